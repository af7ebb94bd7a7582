"""Our co-tuning beside a plain loop: ``python -m bench.cotuning --data DIR --llm DIR --slm DIR``.

The plain loop (``bench.cotuning_plain``) draws batches at random, runs both heads at every position and computes both
losses there; a second one takes the answers' logits before its losses. Questions of ARC-Easy, float32, LoRA of rank 8
without dropout, lambda = 1, forward KL, the simultaneous schedule. First all take the same batches, for losses and
adapters; then an epoch of each in its own order, one turn after the other; then the memory that an epoch takes over
the models' own, each in a process of its own: how much more is resident at its peak than with both models loaded and
all their weights read, looked at every 5 ms (on CUDA: what PyTorch had allocated at most).
"""

import multiprocessing
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final, Literal, TypeAlias

import torch
from peft import PeftModel

from bench.command_line import above_zero, whole
from bench.cotuning_plain import PlainLoop, random_batches
from bench.flops import Epoch, machine_of, operations_of, shape_of, utilisation
from bench.resident import grown
from bench.scoring_tasks import question_set
from bench.side_by_side import Taken, apart, options_of, print_report, ratio_lines
from shared.ml.adapters import adapter_tensors, load_adapter
from shared.ml.cotune import cotune
from shared.ml.encoding import Encoded, batches, encode_examples
from shared.ml.models import load_tokenizer, load_with_lora, pick_device
from shared.ml.seeding import derive_seed
from shared.protocol.tensors import Array
from shared.protocol.terms import CotuningTerms, LoraTerms, OptimiserTerms

FASTER, MEMORY = 2.0, 0.7
LOSSES_APART, ADAPTERS_APART = 1e-3, 0.01
MAX_TOKENS = 512
SEED = 1
Side: TypeAlias = Literal["ours", "plain", "picked"]
NAMES: Final[Mapping[Side, str]] = {"ours": "ours", "plain": "plain", "picked": "plain that picks the answers first"}
SIDES: Final = tuple(NAMES)


@dataclass(frozen=True)
class Case:
    """What is co-tuned, and how."""

    data: Path
    llm: Path
    slm: Path
    steps: int
    batch_size: int
    learning_rate: float
    device: str
    threads: int


class Pair:
    """LLM and SLM with LoRA, and the examples; each epoch begins with the same adapters."""

    def __init__(self, case: Case) -> None:
        torch.set_num_threads(case.threads)
        tokenizer = load_tokenizer(case.llm)
        questions = question_set("arc_easy_train", case.data).examples()[: case.steps * case.batch_size]
        self.examples = encode_examples(tokenizer, questions, max_tokens=MAX_TOKENS)
        self.device = pick_device(case.device)
        self.models = {"LLM": self._loaded(case.llm), "SLM": self._loaded(case.slm)}
        self.begin = self.adapters()
        self._batch_size = case.batch_size
        self._optimiser = OptimiserTerms(learning_rate=case.learning_rate)
        self._vocab_size = len(tokenizer)

    def _loaded(self, path: Path) -> PeftModel:
        return load_with_lora(
            path,
            lora=LoraTerms(dropout=0.0),
            seed=SEED,
            max_tokens=MAX_TOKENS,
            dtype="float32",
            device=self.device,
            gradient_checkpointing=False,
        )

    def adapters(self) -> dict[str, Array]:
        """Return copies of both models' LoRA weights."""
        return {
            f"{name} {tensor}": weight
            for name, model in self.models.items()
            for tensor, weight in adapter_tensors(model).items()
        }

    def batches_of(self, side: Side) -> list[list[Encoded]]:
        """Return the batches of an epoch in their order."""
        if side == "ours":
            return list(batches(self.examples, batch_size=self._batch_size, seed=derive_seed(SEED, 0)))
        return random_batches(self.examples, self._batch_size, SEED)

    def run(self, side: Side, chosen: Sequence[Sequence[Encoded]] | None = None) -> tuple[Taken, list[float]]:
        """Take an epoch, a plain loop's in these batches if any; return how long it took, and the losses."""
        for name, model in self.models.items():
            load_adapter(model, {tensor: self.begin[f"{name} {tensor}"] for tensor in adapter_tensors(model)})
        started, cpu_started = time.perf_counter(), time.process_time()
        llm, slm = self.models.values()
        losses: list[float] = []
        if side == "ours":
            cotune(
                llm,
                slm,
                self.examples,
                terms=CotuningTerms(
                    batch_size=self._batch_size, llm_optimiser=self._optimiser, slm_optimiser=self._optimiser
                ),
                seed=SEED,
                vocab_size=self._vocab_size,
                on_step=lambda _step, _steps, loss: losses.append(loss),
            )
        else:
            loop = PlainLoop(llm, slm, self._optimiser, picked=side == "picked")
            losses = loop.run(chosen or self.batches_of(side))
        return Taken(time.perf_counter() - started, time.process_time() - cpu_started), losses


def agreement(pair: Pair) -> Iterator[str]:
    """Yield how far the plain loop is from ours on the same batches."""
    _, ours = pair.run("ours")
    adapters = pair.adapters()
    _, plain = pair.run("plain", pair.batches_of("ours"))
    largest = max(abs(one - other) for one, other in zip(ours, plain, strict=True))
    yield (
        f"the same {len(ours)} batches: losses from {ours[0]:.3f} to {ours[-1]:.3f} differ by {largest:.1e} nats at "
        f"most, the adapters by {apart(adapters, pair.adapters(), pair.begin):.1e} of what training changed; wanted: "
        f"{LOSSES_APART} and {ADAPTERS_APART} or less"
    )


def epochs(pair: Pair, seconds: Mapping[Side, float]) -> Iterator[str]:
    """Yield the least that an epoch needs, and how near the loops come to it."""
    compared: Sequence[Side] = ("ours", "plain")
    yield from utilisation(
        machine_of(pair.device, torch.float32),
        [shape_of(model) for model in pair.models.values()],
        {side: Epoch(operations_of(partial(pair.run, side)), seconds[side]) for side in compared},
        tokens=sum(len(one.token_ids) - 1 for one in pair.examples),
        answers=sum(len(one.token_ids) - one.answer_start for one in pair.examples),
        steps=len(pair.batches_of("ours")),
    )


def peak_bytes(case: Case, side: Side) -> int:
    """Return what an epoch takes over the models' own memory, in a new process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak, case, side).result()


def _peak(case: Case, side: Side) -> int:
    pair = Pair(case)
    for model in pair.models.values():
        for weight in model.parameters():
            weight.detach().sum()  # weights that are mapped from their file are resident once they were read
    if pair.device.type != "cuda":
        return grown(lambda: pair.run(side))
    before = torch.cuda.memory_allocated(pair.device)
    torch.cuda.reset_peak_memory_stats(pair.device)
    pair.run(side)
    return torch.cuda.max_memory_allocated(pair.device) - before


def report(case: Case, repeats: int) -> Iterator[str]:
    """Yield the lines: agreement, seconds an example, utilisation, memory."""
    pair = Pair(case)
    yield (
        f"torch {torch.__version__}, {case.threads} threads, {pair.device}, float32; LLM {case.llm.name}, SLM "
        f"{case.slm.name}, {len(pair.examples)} questions of ARC-Easy, {case.batch_size} a batch"
    )
    yield from agreement(pair)
    turns = [{side: pair.run(side)[0] for side in SIDES} for _ in range(repeats)]
    ours, plain, picked = ([turn[side] for turn in turns] for side in SIDES)
    for side in SIDES:
        each = median(turn[side].seconds for turn in turns) / len(pair.examples)
        yield f"seconds an example, {NAMES[side]}: {each:.3f}"
    yield "an epoch, each in its own order"
    yield from ratio_lines(NAMES["plain"], ours, plain, wanted=FASTER)
    yield from ratio_lines(NAMES["picked"], ours, picked, wanted=None)
    yield from epochs(pair, {side: median(turn[side].seconds for turn in turns) for side in SIDES})
    del pair
    peaks = {side: peak_bytes(case, side) for side in SIDES}
    yield (
        f"memory over the models' own: ours {peaks['ours'] / 1e6:.0f} MB, plain {peaks['plain'] / 1e6:.0f} MB, ratio "
        f"{peaks['ours'] / peaks['plain']:.2f}, wanted: {MEMORY} or less; plain that picks the answers first "
        f"{peaks['picked'] / 1e6:.0f} MB, ratio {peaks['ours'] / peaks['picked']:.2f}"
    )


def main() -> None:
    """Print the report."""
    parser = options_of("cotuning", __doc__)
    parser.add_argument("--llm", type=Path, required=True, help="a folder in Hugging Face format")
    parser.add_argument("--slm", type=Path, required=True, help="another, with the same tokenizer")
    parser.add_argument("--steps", type=whole(2), default=32)
    parser.add_argument("--batch-size", type=whole(1), default=8)
    parser.add_argument("--learning-rate", type=above_zero, default=3e-4)
    options = parser.parse_args()
    fields = ("data", "llm", "slm", "steps", "batch_size", "learning_rate", "device", "threads")
    case = Case(**{name: getattr(options, name) for name in fields})
    print_report(parser, options, report(case, options.repeats))


if __name__ == "__main__":
    main()
