"""Derive an SLM from an LLM that has no small sibling: ``python -m bench.derive_slm --model DIR --text DIR --out DIR``.

The layers that do most are kept, and what is left is healed by distillation on plain text (``bench.prune``). The
result is an ordinary Hugging Face folder with the LLM's own tokenizer, and ``derived.json``, which says what was done.
Nothing is written before the end, so Ctrl-C leaves nothing.
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

from bench.plain_text import Texts, read_texts
from bench.prune import (
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
from shared.ml.digests import tokenizer_digest
from shared.ml.hub import model_directory
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
TOKENIZER_FILES: Final = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "chat_template*",
    "generation_config.json",
)


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


def derive(
    llm: PreTrainedModel,
    texts: Texts,
    *,
    layers: int,
    budget: Budget,
    batch: int,
    learning_rate: float,
    seed: int,
    say: Callable[[str], None] = print,
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Cut and heal; return the SLM, and what was done and measured."""
    started = time.monotonic()
    held_out = torch.split(texts.held_out_NT.to(llm.device), batch)
    influences = block_influence(llm, torch.split(texts.training_NT[:INFLUENCE_TEXTS].to(llm.device), batch))
    keep = layers_to_keep(influences, layers)
    say(f"keeping {layers} of {len(influences)} layers: {', '.join(map(str, keep))}")
    student = cut(llm, keep)
    before = compare_next_tokens(student, llm, held_out)
    say(f"held-out loss: LLM {before.llm_loss:.3f}; cut {before.own_loss:.3f}, KL to the LLM {before.divergence:.3f}")
    healing = time.monotonic()
    steps = heal(
        student,
        llm,
        texts.training_NT,
        keep=keep,
        budget=budget,
        batch=batch,
        learning_rate=learning_rate,
        seed=seed,
        say=say,
    )
    healed = time.monotonic()
    after = compare_next_tokens(student, llm, held_out)
    say(f"held-out loss after {steps} steps: {after.own_loss:.3f}, KL to the LLM {after.divergence:.3f}")
    seen = steps * batch * texts.training_NT.shape[1]
    return student, {
        "kept_layers": list(keep),
        "influences": [asdict(influence) for influence in influences],
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
        "seconds": {"healing": round(healed - healing), "all": round(time.monotonic() - started)},
    }


def write_model(student: PreTrainedModel, report: dict[str, Any], *, llm: Path, out: Path) -> None:
    """Write the SLM with the LLM's tokenizer to ``out``: all of it, or nothing.

    Raises:
        OutputExists: ``out`` is there.
        OutputUnwritable: the disk says no.
        ModelUnreadable: what was written is not what was derived; this family keeps something of a layer elsewhere.
    """
    with appearing(out, marker=REPORT, force=False) as new:
        student.save_pretrained(new)
        for pattern in TOKENIZER_FILES:
            for file in llm.glob(pattern):
                shutil.copyfile(file, new / file.name)
        (new / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        require_same(student, llm, new)


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
                f"the cut of {llm} computes something else once written and loaded: its family "
                f"({student.config.model_type}) keeps something of each layer elsewhere; choose another family"
            )


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    arguments = argparse.ArgumentParser(prog="python -m bench.derive_slm", description=__doc__)
    arguments.add_argument("--model", type=Path, required=True, help="the LLM's folder, in Hugging Face format")
    arguments.add_argument("--text", type=Path, nargs="+", required=True, help="plain text: files, folders of .txt")
    arguments.add_argument("--layers", type=int, required=True, help="how many to keep")
    arguments.add_argument("--out", type=Path, required=True, help="folder to make")
    budget = arguments.add_mutually_exclusive_group(required=True)
    budget.add_argument("--minutes", type=float, help="of healing; how far it gets depends on the machine")
    budget.add_argument("--steps", type=int, help="of healing; 0 cuts only")
    arguments.add_argument("--tokens", type=int, default=128, help="of a text")
    arguments.add_argument("--texts", type=int, default=20_000, help="to draw at most, held-out ones included")
    arguments.add_argument("--batch", type=int, default=4, help="texts a step")
    arguments.add_argument("--learning-rate", type=float, default=1e-3)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--threads", type=int, default=1, help="of torch; the weights depend on it slightly")
    arguments.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N, auto")
    return arguments


def run(options: argparse.Namespace) -> None:
    """Derive the SLM that the command line asks for."""
    require_absent(options.out)
    folder = model_directory(options.model)
    llm = load_base(folder, dtype="float32", device=pick_device(options.device))
    decoder_layers(llm)  # refuse a family before its texts are read
    require_context(llm.config.to_dict(), name=str(options.model), max_tokens=options.tokens)
    texts = read_texts(
        options.text, load_tokenizer(folder), tokens=options.tokens, at_most=options.texts, seed=options.seed
    )
    print(f"{len(texts.training_NT)} texts of {options.tokens} tokens to learn from", flush=True)
    student, report = derive(
        llm,
        texts,
        layers=options.layers,
        budget=Budget(options.steps, options.minutes),
        batch=options.batch,
        learning_rate=options.learning_rate,
        seed=options.seed,
        say=lambda line: print(line, flush=True),
    )
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    write_model(student, report | {"threads": options.threads, "versions": versions}, llm=folder, out=options.out)
    print(f"written to {options.out}")


def main() -> int:
    """Run the command line; return the exit status."""
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        run(options)
    except FedCoLLMError as error:
        print(f"{error.code}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
