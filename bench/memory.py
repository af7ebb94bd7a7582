"""The memory estimate against what tuning takes: ``python -m bench.memory FOLDER [FOLDER] [--dtype ...]``.

One model is trained, as an agent does; of two, LLM and SLM, both are evaluated and co-tuned, as a worker does. Each
measurement is a process of its own on the CPU: it loads what it needs, makes two steps on made-up tokens, and tells by
how much its memory grew at the peak. Weights that are mapped from their file count: they are needed each step.
"""

import argparse
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel

from bench.command_line import whole
from bench.resident import grown
from services.coordinator.presets import preset_terms
from shared.devices import DtypeName
from shared.ml.cotune import cotune
from shared.ml.encoding import Encoded, EncodedChoices
from shared.ml.evaluate import EVALUATION_BATCH, evaluate
from shared.ml.memory import Estimate, estimate, estimate_pair, largest_batch
from shared.ml.models import load_with_lora
from shared.ml.train import train_local
from shared.protocol.terms import RunTerms


@dataclass(frozen=True)
class Case:
    """What is tuned, and with how much at once."""

    models: tuple[Path, ...]
    dtype: DtypeName = "float32"
    rows: int = 4
    tokens: int = 96
    answer: int = 8
    checkpointing: bool = False

    @property
    def terms(self) -> RunTerms:
        """A run's, with batches of so many rows."""
        llm, slm = str(self.models[0]), str(self.models[-1])
        size = {"batch_size": self.rows}
        return preset_terms("smollm2", llm=llm, slm=slm, training=size, cotuning=size)

    @property
    def examples(self) -> list[Encoded]:
        """Two batches."""
        return [Encoded(tuple(range(1, self.tokens + 1)), self.tokens - self.answer)] * (2 * self.rows)

    @property
    def scored(self) -> list[EncodedChoices]:
        """As many completions as a worker evaluates at once."""
        return [EncodedChoices(tuple(self.examples[:1]), 0, (1,))] * EVALUATION_BATCH

    def __str__(self) -> str:
        names = " and ".join(model.name for model in self.models)
        again = ", checkpointing" if self.checkpointing else ""
        return f"{names}, {self.dtype}{again}, {self.rows} x {self.tokens} ({self.answer})"


def estimated(case: Case) -> Estimate:
    """Return what the agent, or the worker, would say."""
    if len(case.models) == 1:
        return estimate(
            case.models[0],
            dtype=case.dtype,
            lora=case.terms.slm_lora,
            training=largest_batch(case.examples, case.rows),
            gradient_checkpointing=case.checkpointing,
        )
    return estimate_pair(
        case.terms,
        case.examples,
        case.scored,
        dtype=case.dtype,
        gradient_checkpointing=case.checkpointing,
        device=torch.device("cpu"),
    )


def measured(case: Case) -> int:
    """Return by how many bytes a new process grows that does it."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_growth, case).result()


def _growth(case: Case) -> int:
    torch.set_num_threads(1)
    return grown(lambda: _tune(case, [_load(model, case) for model in case.models]))


def _load(model: Path, case: Case) -> PeftModel:
    return load_with_lora(
        model,
        lora=case.terms.slm_lora,
        seed=0,
        max_tokens=case.tokens,
        dtype=case.dtype,
        device=torch.device("cpu"),
        gradient_checkpointing=case.checkpointing,
    )


def _tune(case: Case, models: list[PeftModel]) -> None:
    entries = int(models[0].get_input_embeddings().weight.shape[0])
    if len(models) == 1:
        train_local(
            models[0],
            case.examples,
            epochs=1,
            batch_size=case.rows,
            optimiser=case.terms.training.optimiser,
            seed=1,
            vocab_size=entries,
            on_step=lambda *_: None,
        )
        return
    llm, slm = models
    for model in (slm, llm):
        evaluate(model, case.scored, batch_size=EVALUATION_BATCH, vocab_size=entries, on_batch=lambda: None)
    cotune(llm, slm, case.examples, terms=case.terms.cotuning, seed=1, vocab_size=entries, on_step=lambda *_: None)


def main() -> None:
    """Print a line for each number format."""
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__)
    parser.add_argument("models", type=Path, nargs="+", help="one folder, or the LLM's and the SLM's")
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--load", nargs=3, type=whole(1), default=[4, 96, 8], metavar=("ROWS", "TOKENS", "ANSWER"))
    parser.add_argument("--checkpointing", action="store_true")
    arguments = parser.parse_args()
    rows, tokens, answer = arguments.load
    for dtype in arguments.dtype:
        case = Case(tuple(arguments.models), dtype, rows, tokens, answer, arguments.checkpointing)
        found, said = measured(case), estimated(case)
        print(
            f"{case}: measured {found / 1e6:.0f} MB, estimate {said.total_bytes / 1e6:.0f} MB, "
            f"ratio {said.total_bytes / found:.2f} ({said})",
            flush=True,
        )


if __name__ == "__main__":
    main()
