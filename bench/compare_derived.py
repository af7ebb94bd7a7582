"""What an SLM made by ``bench.derive_slm`` is worth: ``python -m bench.compare_derived --llm DIR --derived DIR …``.

The LLM, its cut before healing, the derived SLM, and other models with the same tokenizer, on the texts that were held
out; and, for information, on ARC's questions as AI2 publishes them (arXiv 1803.05457), by the likelihood of each
answer's text. Nothing is chosen by the questions.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from transformers import PreTrainedModel

from bench.arc import arc_questions
from bench.command_line import record, whole
from bench.plain_text import Texts, read_texts
from bench.prune import compare_next_tokens, cut, decoder_layers
from shared.errors import ConfigurationError, FedCoLLMError, TokenizerMismatch
from shared.ml.digests import tokenizer_digest
from shared.ml.encoding import EncodedChoices, encode_choices
from shared.ml.evaluate import evaluate
from shared.ml.models import load_base, load_tokenizer, pick_device

LONGEST_QUESTION: Final = 512


@dataclass(frozen=True)
class Row:
    """One model: its size, losses in nats per token on the held-out texts, and right answers where there are any."""

    model: str
    layers: int
    parameters: int
    held_out_loss: float
    kl_to_llm: float
    right: int | None = None
    questions: int | None = None
    chance: float | None = None
    seconds: int = 0

    @property
    def accuracy(self) -> str:
        """In per cent, as it is printed."""
        return f"{100 * self.right / self.questions:.1f}" if self.right is not None and self.questions else "-"


def measure(
    model: PreTrainedModel,
    *,
    name: str,
    llm: PreTrainedModel,
    vocab_size: int,
    texts: Texts,
    questions: Sequence[EncodedChoices],
    batch: int,
) -> Row:
    """Return what one model is worth."""
    started = time.monotonic()
    found = compare_next_tokens(model, llm, [texts.held_out_NT.to(model.device)])
    of_questions: dict[str, Any] = {}
    if questions:
        scored = evaluate(model, questions, batch_size=batch, vocab_size=vocab_size, on_batch=lambda: None)
        of_questions = {
            "right": sum(scored.correct),
            "questions": scored.examples,
            "chance": round(scored.chance, 4),
        }
    return Row(
        model=name,
        layers=len(decoder_layers(model)),
        parameters=model.num_parameters(),
        held_out_loss=round(found.own_loss, 4),
        kl_to_llm=round(found.divergence, 4),
        seconds=round(time.monotonic() - started),
        **of_questions,
    )


def models(options: argparse.Namespace, llm: PreTrainedModel, kept: Sequence[int]) -> Iterator[tuple[str, Any]]:
    """Yield each model with its name; one at a time, so that two of them and the LLM are never held."""
    yield "LLM", llm
    yield "cut, not healed", cut(llm, kept)
    yield "derived", load_base(options.derived, dtype="float32", device=llm.device)
    expected = tokenizer_digest(load_tokenizer(options.llm))
    for folder in options.other:
        if tokenizer_digest(load_tokenizer(folder)) != expected:
            raise TokenizerMismatch(f"{folder} has another tokenizer than the LLM: losses per token do not compare")
        yield folder.name, load_base(folder, dtype="float32", device=llm.device)


def run(options: argparse.Namespace, command: list[str]) -> None:
    """Measure, print the table, and write it."""
    try:
        report = json.loads((options.derived / "derived.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{options.derived} has no derived.json: make it with bench.derive_slm") from error
    llm = load_base(options.llm, dtype="float32", device=pick_device(options.device))
    tokenizer = load_tokenizer(options.llm)
    texts = read_texts(
        options.text,
        tokenizer,
        tokens=report["tokens_of_a_text"],
        at_most=2 * report["held_out"]["texts"],
        seed=report["seed"],
    )
    if texts.held_out_digest != report["held_out"]["digest"]:
        raise ConfigurationError(
            "these are not the texts that the SLM was derived with, so it may have learnt from some of them: "
            "give --text as it was given to bench.derive_slm"
        )
    questions = (
        encode_choices(tokenizer, arc_questions(options.questions), max_tokens=LONGEST_QUESTION)
        if options.questions
        else []
    )
    rows: list[Row] = []
    print(f"{'model':<24}{'layers':>7}{'parameters':>13}{'held-out loss':>15}{'KL to LLM':>11}{'accuracy':>10}")
    for name, model in models(options, llm, report["kept_layers"]):
        row = measure(
            model,
            name=name,
            llm=llm,
            vocab_size=len(tokenizer),
            texts=texts,
            questions=questions,
            batch=options.batch,
        )
        rows.append(row)
        losses = f"{row.held_out_loss:>15.3f}{row.kl_to_llm:>11.3f}"
        print(f"{name:<24}{row.layers:>7}{row.parameters:>13,}{losses}{row.accuracy:>10}", flush=True)
    if options.out:
        content = {
            "command": command,
            "machine": options.machine,
            "questions": options.questions.name if options.questions else None,
            "models": [asdict(row) for row in rows],
            "derived": report,
        }
        options.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.compare_derived", description=__doc__)
    parser.add_argument("--llm", type=Path, required=True, help="the LLM's folder")
    parser.add_argument("--derived", type=Path, required=True, help="the folder that bench.derive_slm made")
    parser.add_argument("--other", type=Path, nargs="*", default=[], help="folders of models with the same tokenizer")
    parser.add_argument("--text", type=Path, nargs="+", required=True, help="as it was given to bench.derive_slm")
    parser.add_argument("--questions", type=Path, help="one of ARC's JSONL files")
    parser.add_argument("--batch", type=whole(1), default=32, help="answers a forward pass")
    parser.add_argument("--threads", type=whole(1), default=1)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N, auto")
    parser.add_argument("--machine", default="", help="a word on the machine, for the record")
    parser.add_argument("--out", type=Path, help="write the table as JSON too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        run(options, record(parser, options))
    except FedCoLLMError as error:
        print(f"{error.code}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
