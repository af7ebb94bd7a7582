"""Derive an SLM from an LLM that has no small sibling: ``python -m bench.derive_slm --model DIR --text DIR --out DIR``.

The layers that do most are kept, and what is left is healed by distillation on plain text (``bench.prune``). The
result is an ordinary Hugging Face folder with the LLM's own tokenizer, and ``derived.json``, which says what was done.
The folder appears when all is done, so Ctrl-C leaves nothing.
"""

import argparse
import json
import math
import platform
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from transformers import PreTrainedModel

from bench.command_line import above_zero, record, whole
from bench.plain_text import HELD_OUT_TEXTS, Texts, read_texts
from bench.prune import (
    Influence,
    NextToken,
    block_influence,
    compare_next_tokens,
    cut,
    decoder_layers,
    distillation_step,
    layers_to_keep,
    layers_train,
)
from shared.errors import FedCoLLMError, ModelUnreadable, OutputExists
from shared.folders import appearing
from shared.ml.checkpoint import tokenizer_files
from shared.ml.digests import tokenizer_digest
from shared.ml.hub import model_directory
from shared.ml.library_errors import told_as
from shared.ml.models import load_base, load_tokenizer, pick_device, require_context
from shared.ml.seeding import derive_seed

REPORT: Final = "derived.json"
INFLUENCE_TEXTS: Final = 24
"""What block influence is measured on; they are trained on as well."""
CHOSEN: Final = 0.25
"""Part of the positions whose logits are compared; the head costs as much as a third of the layers do."""
WARM_UP: Final = 0.03
LAST_RATE: Final = 0.05
"""Part of the learning rate that is left at the end."""
BETAS: Final = (0.9, 0.95)
PROGRESS_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Budget:
    """How long to heal: so many steps, or so many minutes; with steps, the result depends on nothing but the seed."""

    steps: int | None = None
    minutes: float | None = None

    def spent(self, steps: int, seconds: float) -> float:
        """Return the part that is used up; from 1 on it is over."""
        if self.steps is not None:
            return steps / self.steps if self.steps else 1.0
        return seconds / (60 * self.minutes) if self.minutes else 1.0


def learning_rate_factor(spent: float) -> float:
    """Linear warm-up, then half a cosine down to a small rest; ``spent`` is the part of the budget used up."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, spent)))
    return min(1.0, (spent + 0.1 * WARM_UP) / WARM_UP) * (LAST_RATE + (1 - LAST_RATE) * cosine)


def heal(
    student: PreTrainedModel,
    llm: PreTrainedModel,
    training_NT: torch.Tensor,
    *,
    keep: Sequence[int],
    budget: Budget,
    batch: int,
    learning_rate: float,
    seed: int,
    clock: Callable[[], float] = time.monotonic,
    say: Callable[[str], None] = print,
) -> int:
    """Distil the LLM into its cut until the budget is spent; return the number of steps."""
    generator = torch.Generator().manual_seed(derive_seed(seed, 1))
    tokens = training_NT.shape[1]
    chosen = max(1, int(CHOSEN * batch * tokens))
    started = said = clock()
    step = 0
    with layers_train(student) as weights:
        optimiser = torch.optim.AdamW(weights, lr=learning_rate, betas=BETAS, weight_decay=0.0)
        while (spent := budget.spent(step, clock() - started)) < 1:
            optimiser.param_groups[0]["lr"] = learning_rate * learning_rate_factor(spent)
            rows = [row % len(training_NT) for row in range(step * batch, (step + 1) * batch)]
            loss = distillation_step(
                student,
                llm,
                optimiser,
                keep=keep,
                token_ids_BT=training_NT[rows].to(student.device),
                chosen_Q=torch.randperm(batch * tokens, generator=generator)[:chosen].to(student.device),
            )
            step += 1
            if clock() - said >= PROGRESS_SECONDS:
                said = clock()
                minutes = (said - started) / 60
                say(f"step {step}, {100 * spent:.0f} % of the budget, {minutes:.1f} min: loss {loss:.3f}")
    return step


@dataclass(frozen=True)
class Cut:
    """What is left of the LLM before it is healed: why, and how well it does."""

    student: PreTrainedModel
    keep: tuple[int, ...]
    influences: list[Influence]
    before: NextToken


def choose_and_cut(
    llm: PreTrainedModel, texts: Texts, *, layers: int, batch: int, say: Callable[[str], None] = print
) -> Cut:
    """Leave out the layers that do least, and measure what is left."""
    influences = block_influence(llm, torch.split(texts.training_NT[:INFLUENCE_TEXTS].to(llm.device), batch))
    keep = layers_to_keep(influences, layers)
    say(f"keeping {layers} of {len(influences)} layers: {', '.join(map(str, keep))}")
    student = cut(llm, keep)
    before = compare_next_tokens(student, llm, [texts.held_out_NT.to(llm.device)])
    say(f"held-out loss: LLM {before.llm_loss:.3f}; cut {before.own_loss:.3f}, KL to the LLM {before.divergence:.3f}")
    return Cut(student, keep, influences, before)


def heal_and_measure(
    made: Cut,
    llm: PreTrainedModel,
    texts: Texts,
    *,
    budget: Budget,
    batch: int,
    learning_rate: float,
    seed: int,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Heal the cut, in place; return what was done and measured."""
    student, before, started = made.student, made.before, time.monotonic()
    steps = heal(
        student,
        llm,
        texts.training_NT,
        keep=made.keep,
        budget=budget,
        batch=batch,
        learning_rate=learning_rate,
        seed=seed,
        say=say,
    )
    seconds = time.monotonic() - started
    after = compare_next_tokens(student, llm, [texts.held_out_NT.to(llm.device)])
    say(f"held-out loss after {steps} steps: {after.own_loss:.3f}, KL to the LLM {after.divergence:.3f}")
    seen = steps * batch * texts.training_NT.shape[1]
    return {
        "kept_layers": list(made.keep),
        "influences": [asdict(influence) for influence in made.influences],
        "parameters": {"llm": llm.num_parameters(), "slm": student.num_parameters()},
        "steps": steps,
        "batch": batch,
        "tokens_of_a_text": texts.training_NT.shape[1],
        "tokens_seen": seen,
        "passes": round(seen / texts.training_NT.numel(), 3),
        "learning_rate": learning_rate,
        "seed": seed,
        "held_out": {
            "texts": len(texts.held_out_NT),
            "digest": texts.held_out_digest,
            "loss_llm": round(before.llm_loss, 4),
            "loss_cut": round(before.own_loss, 4),
            "loss_slm": round(after.own_loss, 4),
            "kl_cut": round(before.divergence, 4),
            "kl_slm": round(after.divergence, 4),
        },
        "seconds": {"healing": round(seconds)},
    }


def write_model(student: PreTrainedModel, *, llm: Path, into: Path) -> None:
    """Write the SLM with the LLM's tokenizer into a folder, and check that it loads as what it is.

    Raises:
        ModelUnreadable: it does not; this family keeps something of a layer elsewhere.
    """
    with told_as(ModelUnreadable, f"the cut of {llm} cannot be written: {_elsewhere(student)}"):
        student.config.validate()
    student.save_pretrained(into)
    for file in [*tokenizer_files(llm), *llm.glob("generation_config.json")]:
        shutil.copyfile(file, into / file.name)
    require_same(student, llm, into)


def require_absent(out: Path) -> None:
    """Check before the work that its result can be written.

    Raises:
        OutputExists: it cannot.
    """
    if out.exists():
        raise OutputExists(f"{out} is there already, and is not written over: name another folder, or remove it")


def require_same(student: PreTrainedModel, llm: Path, written: Path) -> None:
    """Check that what was written loads as what was derived, with the tokenizer of the LLM.

    Raises:
        ModelUnreadable: it does not.
    """
    if tokenizer_digest(load_tokenizer(written)) != tokenizer_digest(load_tokenizer(llm)):
        raise ModelUnreadable(f"the tokenizer copied from {llm} is another one there: save it as a tokenizer.json")
    loaded = load_base(written, dtype="float32", device=student.device)
    ids_BT = torch.arange(8, device=student.device)[None]
    with torch.no_grad():
        if not torch.allclose(loaded(input_ids=ids_BT).logits, student(input_ids=ids_BT).logits, atol=1e-3):
            raise ModelUnreadable(
                f"the cut of {llm} computes something else once written and loaded: {_elsewhere(student)}"
            )


def _elsewhere(student: PreTrainedModel) -> str:
    return f"its family ({student.config.model_type}) keeps something of each layer elsewhere; choose another family"


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    arguments = argparse.ArgumentParser(prog="python -m bench.derive_slm", description=__doc__)
    arguments.add_argument("--model", type=Path, required=True, help="the LLM's folder, in Hugging Face format")
    arguments.add_argument("--text", type=Path, nargs="+", required=True, help="plain text: files, folders of .txt")
    arguments.add_argument("--layers", type=whole(1), required=True, help="how many to keep")
    arguments.add_argument("--out", type=Path, required=True, help="folder to make")
    budget = arguments.add_mutually_exclusive_group(required=True)
    budget.add_argument("--minutes", type=above_zero, help="of healing; how far it gets depends on the machine")
    budget.add_argument("--steps", type=whole(0), help="of healing; 0 cuts only")
    arguments.add_argument("--tokens", type=whole(2), default=128, help="of a text")
    arguments.add_argument("--texts", type=whole(2 * HELD_OUT_TEXTS), default=20_000, help="at most, held-out ones too")
    arguments.add_argument("--batch", type=whole(1), default=4, help="texts a step")
    arguments.add_argument("--learning-rate", type=above_zero, default=1e-3)
    arguments.add_argument("--seed", type=whole(0), default=1)
    arguments.add_argument("--threads", type=whole(1), default=1, help="of torch; the weights depend on it slightly")
    arguments.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N, auto")
    return arguments


def run(options: argparse.Namespace, command: list[str]) -> None:
    """Derive the SLM that the command line asks for."""
    started = time.monotonic()
    require_absent(options.out)
    # The folder is made before anything is computed, and written before it is healed: what cannot be ends at once.
    with appearing(options.out, marker=REPORT, force=False) as new:
        folder = model_directory(options.model)
        llm = load_base(folder, dtype="float32", device=pick_device(options.device))
        decoder_layers(llm)  # refuse a family before its texts are read
        require_context(llm.config.to_dict(), name=str(options.model), max_tokens=options.tokens)
        texts = read_texts(
            options.text, load_tokenizer(folder), tokens=options.tokens, at_most=options.texts, seed=options.seed
        )
        say(f"{len(texts.training_NT)} texts of {options.tokens} tokens to learn from")
        made = choose_and_cut(llm, texts, layers=options.layers, batch=options.batch, say=say)
        write_model(made.student, llm=folder, into=new)
        report = heal_and_measure(
            made,
            llm,
            texts,
            budget=Budget(options.steps, options.minutes),
            batch=options.batch,
            learning_rate=options.learning_rate,
            seed=options.seed,
            say=say,
        )
        write_model(made.student, llm=folder, into=new)
        report["seconds"]["all"] = round(time.monotonic() - started)
        report |= {"threads": options.threads, "versions": versions(), "command": command}
        (new / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    say(f"written to {options.out}")


def say(line: str) -> None:
    """Print a line that is seen at once, wherever it goes."""
    print(line, flush=True)


def versions() -> dict[str, str]:
    """Return those of what decides the weights."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def main() -> int:
    """Run the command line; return the exit status."""
    arguments = parser()
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        run(options, record(arguments, options))
    except FedCoLLMError as error:
        print(f"{error.code}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
