"""Our local training beside trl's SFTTrainer: ``python -m bench.training --data DIR --model DIR``.

Both get the same model in float32, LoRA, questions of ARC-Easy, tokens, examples a batch, loss (of the answer alone),
AdamW with a constant rate, and threads. First the same batches in the same order, for the losses and the adapters; then
an epoch of each in its own order, each side's turn after the other's; then once more, not timed, to count what each
computes beside the least that is needed. trl runs in a virtual environment of its own and in its defaults otherwise,
but for gradient checkpointing, which is off on both sides, and bf16. It has a sampler by length as well, which is not
its default and is measured apart.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from peft import PeftModel
from safetensors.numpy import load_file, save_file

from bench.command_line import above_zero, whole
from bench.environments import environment
from bench.flops import Epoch, machine_of, operations_of, shape_of, utilisation
from bench.other_side import OtherSide, same_versions
from bench.scoring_tasks import question_set
from bench.side_by_side import Taken, apart, options_of, print_report, ratio_lines
from shared.ml.adapters import adapter_config, adapter_tensors, load_adapter
from shared.ml.encoding import Encoded, batches, encode_examples
from shared.ml.models import load_tokenizer, load_with_lora, pick_device
from shared.ml.seeding import derive_seed
from shared.ml.train import steps_per_epoch, train_local
from shared.protocol.terms import LoraTerms, OptimiserTerms

TRL = "trl==1.16.0"
AS_HERE = ("torch", "transformers", "peft", "accelerate", "datasets", "numpy", "safetensors")
WANTED = 1.3
LOSSES_APART, ADAPTERS_APART = 1e-3, 0.01
MAX_TOKENS = 512
SEED = 1


class Ours:
    """The model with LoRA as an agent trains it; each training begins with the same adapter."""

    def __init__(self, model: PeftModel, batch_size: int, learning_rate: float, vocab_size: int) -> None:
        self.model = model
        self._begin = adapter_tensors(model)
        self.batch_size = batch_size
        self._optimiser = OptimiserTerms(learning_rate=learning_rate)
        self._vocab_size = vocab_size

    def save(self, folder: Path, *, base: str) -> None:
        """Write the adapter that trainings begin with as PEFT reads it."""
        save_file(dict(self._begin), folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text(json.dumps(adapter_config(self.model, base_model=base)))

    def order(self, examples: Sequence[Encoded]) -> list[Encoded]:
        """Return the examples in the order in which an epoch takes them."""
        epoch = batches(examples, batch_size=self.batch_size, seed=derive_seed(SEED, 0))
        return [one for batch in epoch for one in batch]

    def train(self, examples: Sequence[Encoded]) -> tuple[Taken, list[float]]:
        """Train one epoch; return how long it took, and the loss of each step."""
        load_adapter(self.model, self._begin)
        losses: list[float] = []
        started, cpu_started = time.perf_counter(), time.process_time()
        train_local(
            self.model,
            examples,
            epochs=1,
            batch_size=self.batch_size,
            optimiser=self._optimiser,
            seed=SEED,
            vocab_size=self._vocab_size,
            on_step=lambda _step, _steps, loss: losses.append(loss),
        )
        return Taken(time.perf_counter() - started, time.process_time() - cpu_started), losses


@dataclass(frozen=True)
class Theirs:
    """The same model and adapter in trl's hands."""

    side: OtherSide
    batch_size: int
    learning_rate: float

    def train(
        self, examples: Sequence[Encoded], *, sampling: str, into: Path | None = None
    ) -> tuple[Taken, list[float]]:
        """Train one epoch; return how long it took, and the loss of each step if the adapter goes ``into`` a folder."""
        found = self._asked(examples, sampling=sampling, into=str(into) if into else None, count=False)
        return Taken(found["seconds"], found["cpu_seconds"]), found["losses"]

    def operations(self, examples: Sequence[Encoded]) -> int:
        """Train one epoch as trl does by default, and return the operations of its matrix products."""
        return int(self._asked(examples, sampling="random", into=None, count=True)["operations"])

    def _asked(self, examples: Sequence[Encoded], **settings: object) -> Any:  # noqa: ANN401 - what JSON can say
        return self.side.ask(
            texts=[(one.token_ids, one.answer_start) for one in examples],
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            **settings,
        )


def agreement(ours: Ours, theirs: Theirs, examples: Sequence[Encoded], begin: Path, end: Path) -> str:
    """Give both the same batches; say how far losses and adapters are apart."""
    _, our_losses = ours.train(examples)
    trained = adapter_tensors(ours.model)
    _, their_losses = theirs.train(ours.order(examples), sampling="sequential", into=end)
    largest = max(abs(one - other) for one, other in zip(our_losses, their_losses, strict=True))
    begun, ended = (load_file(folder / "adapter_model.safetensors") for folder in (begin, end))
    return (
        f"the same {len(our_losses)} batches: losses from {our_losses[0]:.3f} to {our_losses[-1]:.3f} differ by "
        f"{largest:.1e} nats at most, the adapters by {apart(trained, ended, begun):.1e} of what training changed; "
        f"wanted: {LOSSES_APART} and {ADAPTERS_APART} or less"
    )


def speed(ours: Ours, theirs: Theirs, examples: Sequence[Encoded], repeats: int) -> Iterator[str]:
    """Take turns, each in its own order; yield examples a second, ratios, and how near both are to the floor."""
    turns = [
        (
            ours.train(examples)[0],
            theirs.train(examples, sampling="random")[0],
            theirs.train(examples, sampling="group_by_length")[0],
        )
        for _ in range(repeats)
    ]
    mine, random, by_length = (list(taken) for taken in zip(*turns, strict=True))
    for name, of in (("ours", mine), ("trl", random)):
        yield f"examples a second, {name}: {len(examples) / median(one.seconds for one in of):.2f}"
    yield "an epoch, each in its own order"
    yield from ratio_lines("trl", mine, random, wanted=WANTED)
    yield "the same, trl with its sampler by length"
    yield from ratio_lines("trl", mine, by_length, wanted=None)
    yield from utilisation(
        machine_of(ours.model.device, torch.float32),
        [shape_of(ours.model)],
        {
            "ours": Epoch(operations_of(partial(ours.train, examples)), median(one.seconds for one in mine)),
            "trl": Epoch(theirs.operations(examples), median(one.seconds for one in random)),
        },
        tokens=sum(len(one.token_ids) - 1 for one in examples),
        answers=sum(len(one.token_ids) - one.answer_start for one in examples),
        steps=steps_per_epoch(len(examples), ours.batch_size),
    )


def report(options: argparse.Namespace) -> Iterator[str]:
    """Yield the lines: agreement, then examples a second."""
    device = pick_device(options.device)
    torch.set_num_threads(options.threads)
    tokenizer = load_tokenizer(options.model)
    count = options.steps * options.batch_size
    questions = question_set("arc_easy_train", options.data).examples()[:count]
    examples = encode_examples(tokenizer, questions, max_tokens=MAX_TOKENS)
    model = load_with_lora(
        options.model,
        lora=LoraTerms(dropout=0.0),
        seed=SEED,
        max_tokens=MAX_TOKENS,
        dtype="float32",
        device=device,
        gradient_checkpointing=False,
    )
    ours = Ours(model, options.batch_size, options.learning_rate, len(tokenizer))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        begin, end = folder / "begin", folder / "end"
        begin.mkdir()
        ours.save(begin, base=str(options.model.resolve()))
        python = environment(options.environment or folder / "environment", [TRL, *same_versions(*AS_HERE)])
        words = {"--model": options.model.resolve(), "--adapter": begin, "--device": device}
        arguments = [str(word) for pair in (words | {"--threads": options.threads}).items() for word in pair]
        alone = {"HF_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(options.threads)}
        yield (
            f"{TRL}, both with torch {torch.__version__}, {options.threads} threads, {device}, float32; LoRA of rank "
            f"8, {len(examples)} questions of ARC-Easy, {options.batch_size} a batch"
        )
        with OtherSide(python, "bench.training_trl", arguments, changes=alone) as side:
            theirs = Theirs(side, options.batch_size, options.learning_rate)
            yield agreement(ours, theirs, examples, begin, end)
            yield from speed(ours, theirs, examples, options.repeats)


def main() -> None:
    """Print the report."""
    parser = options_of("training", __doc__, environment_of="trl")
    parser.add_argument("--model", type=Path, required=True, help="a folder in Hugging Face format")
    parser.add_argument("--steps", type=whole(2), default=32)
    parser.add_argument("--batch-size", type=whole(1), default=8)
    parser.add_argument("--learning-rate", type=above_zero, default=3e-4)
    options = parser.parse_args()
    print_report(parser, options, report(options))


if __name__ == "__main__":
    main()
