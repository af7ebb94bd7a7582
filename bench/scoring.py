"""Our scoring beside lm-evaluation-harness: ``python -m bench.scoring --data DIR --model DIR [--tasks ...]``.

Both get the same questions, template, model, device, number format, threads and sequences a batch. Items are compared
one by one; seconds are of scoring alone, each side's turn after the other's, and what reading, tokenising and loading
take is told apart. lm-eval runs in a virtual environment of its own.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bench.command_line import whole
from bench.environments import environment
from bench.other_side import OtherSide, same_versions
from bench.scoring_tasks import NAMES, question_set
from bench.side_by_side import Taken, options_of, print_report, ratio_lines
from shared.data.examples import Example
from shared.ml.encoding import encode_choices
from shared.ml.evaluate import EVALUATION_BATCH, Evaluation, evaluate
from shared.ml.models import load_base, load_tokenizer, pick_device

LM_EVAL = "lm-eval==0.4.13"
AS_HERE = ("torch", "transformers", "accelerate", "datasets", "numpy")
WANTED = 2.5
MAX_TOKENS = 1024
WARM_UP = 8


@dataclass(frozen=True)
class Theirs:
    """What lm-eval said of one set of questions, in the order of its file, and seconds: of scoring, and of all."""

    seconds: float
    cpu_seconds: float
    all_seconds: float
    correct: Sequence[bool]
    correct_norm: Sequence[bool]
    answers: Sequence[Sequence[str]]
    log_likelihoods: Sequence[Sequence[float]]


@dataclass(frozen=True)
class Compared:
    """Items on which both differ, by their place in the file, and by how much likelihoods do."""

    acc: Sequence[int]
    acc_norm: Sequence[int]
    log_likelihood: float


def compared(examples: Sequence[Example], ours: Evaluation, theirs: Theirs) -> Compared:
    """Compare item by item. A text that a question lists twice is one choice of ours."""
    differences = [
        abs(of_ours[example.choices.index(answer.strip())] - likelihood)
        for example, of_ours, answers, of_theirs in zip(
            examples, ours.log_likelihoods, theirs.answers, theirs.log_likelihoods, strict=True
        )
        for answer, likelihood in zip(answers, of_theirs, strict=True)
    ]
    return Compared(
        acc=_differing(ours.correct, theirs.correct),
        acc_norm=_differing(ours.correct_norm, theirs.correct_norm),
        log_likelihood=max(differences),
    )


def _differing(ours: Sequence[bool], theirs: Sequence[bool]) -> list[int]:
    return [place for place, (one, other) in enumerate(zip(ours, theirs, strict=True)) if one != other]


@dataclass(frozen=True)
class Turn:
    """What ours scored, how long that took, and seconds of tokenising."""

    found: Evaluation
    taken: Taken
    tokenising: float


@dataclass(frozen=True)
class Ours:
    """The model as this project scores with it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    batch_size: int

    def scored(self, examples: Sequence[Example]) -> Turn:
        """Score them once."""
        started = time.perf_counter()
        encoded = encode_choices(self.tokenizer, examples, max_tokens=MAX_TOKENS)
        tokenised, cpu_tokenised = time.perf_counter(), time.process_time()
        found = evaluate(
            self.model, encoded, batch_size=self.batch_size, vocab_size=len(self.tokenizer), on_batch=lambda: None
        )
        taken = Taken(time.perf_counter() - tokenised, time.process_time() - cpu_tokenised)
        return Turn(found, taken, tokenised - started)


def task_lines(name: str, examples: Sequence[Example], ours: Ours, side: OtherSide, repeats: int) -> Iterator[str]:
    """Yield one set's lines: agreement, then seconds."""

    def theirs(limit: int) -> Theirs:
        return Theirs(**side.ask(task=name, limit=limit))

    ours.scored(examples[:WARM_UP])
    theirs(WARM_UP)
    turns = [(ours.scored(examples), theirs(len(examples))) for _ in range(repeats)]
    found, of_theirs = turns[0][0].found, turns[0][1]
    differences = compared(examples, found, of_theirs)
    yield f"{name}, {len(examples)} items"
    for metric, accuracy, places in (
        ("acc", found.accuracy, differences.acc),
        ("acc_norm", found.accuracy_norm, differences.acc_norm),
    ):
        which = f" ({', '.join(map(str, places))})" if places else ""
        yield f"  {metric} {100 * accuracy:.2f} %, and {len(places)} items differ{which}; wanted: 0"
    yield f"  log-likelihoods differ by {differences.log_likelihood:.1e} nats at most"
    of_lm_eval = [Taken(other.seconds, other.cpu_seconds) for _, other in turns]
    yield from ratio_lines("lm-eval", [one.taken for one, _ in turns], of_lm_eval, wanted=WANTED)
    rest = median(other.all_seconds - other.seconds for _, other in turns)
    yield f"  not in these: ours {median(one.tokenising for one, _ in turns):.1f} to tokenise, lm-eval's {rest:.1f}"


def report(options: argparse.Namespace) -> Iterator[str]:
    """Yield the lines of all sets."""
    device = pick_device(options.device)
    torch.set_num_threads(options.threads)
    sets = [question_set(name, options.data) for name in options.tasks]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        python = environment(options.environment or folder / "environment", [LM_EVAL, *same_versions(*AS_HERE)])
        tasks = folder / "tasks"
        tasks.mkdir()
        for one in sets:
            (tasks / f"{one.name}.yaml").write_text(one.lm_eval_task(), encoding="utf-8")
        words = {
            "--model": options.model.resolve(),
            "--tasks": tasks,
            "--device": device,
            "--dtype": options.dtype,
            "--batch-size": options.batch_size,
            "--threads": options.threads,
        }
        alone = {"HF_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(options.threads)}
        started = time.perf_counter()
        model = load_base(options.model, dtype=options.dtype, device=device)
        ours = Ours(model, load_tokenizer(options.model), options.batch_size)
        loaded = time.perf_counter() - started
        yield (
            f"{LM_EVAL}, both with torch {torch.__version__}, {options.threads} threads, {device}, {options.dtype}, "
            f"{options.batch_size} sequences a batch; median of {options.repeats} (least to most)"
        )
        arguments = [str(word) for pair in words.items() for word in pair]
        with OtherSide(python, "bench.scoring_lm_eval", arguments, changes=alone) as side:
            yield f"seconds to load the model: ours {loaded:.1f}, lm-eval {side.ask()['seconds']:.1f}"
            for one in sets:
                yield from task_lines(one.name, one.examples()[: options.limit], ours, side, options.repeats)


def main() -> None:
    """Print the report."""
    parser = options_of("scoring", __doc__, environment_of="lm-eval")
    parser.add_argument("--model", type=Path, required=True, help="a folder in Hugging Face format")
    parser.add_argument("--tasks", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--limit", type=whole(1), help="take so many questions of each")
    parser.add_argument("--batch-size", type=whole(1), default=EVALUATION_BATCH)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    options = parser.parse_args()
    print_report(parser, options, report(options))


if __name__ == "__main__":
    main()
