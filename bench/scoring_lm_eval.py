"""lm-evaluation-harness, kept alive and timed: for a Python that has lm-eval and torch, and not FedCoLLM.

It evaluates as it does for everybody; what is measured apart is the part that scores, past reading and tokenising.
"""

import argparse
import sys
import time
from contextlib import redirect_stdout
from typing import Any

import torch
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from bench.other_side import answer_questions


class Timed(HFLM):  # type: ignore[misc]
    """Hugging Face models as lm-eval has them, and the seconds that scoring has taken."""

    seconds = cpu_seconds = 0.0

    def _loglikelihood_tokens(self, *positional: Any, **named: Any) -> Any:  # noqa: ANN401 - lm-eval's own
        started, cpu_started = time.perf_counter(), time.process_time()
        try:
            return super()._loglikelihood_tokens(*positional, **named)
        finally:
            self.seconds += time.perf_counter() - started
            self.cpu_seconds += time.process_time() - cpu_started


def scored(model: Timed, manager: TaskManager, task: str, limit: int | None) -> dict[str, object]:
    """Return what one task's items scored, in the order of its file, and seconds: of scoring, and of all."""
    model.seconds = model.cpu_seconds = 0.0
    started = time.perf_counter()
    found = simple_evaluate(model=model, tasks=[task], task_manager=manager, limit=limit, bootstrap_iters=0)
    items = sorted(found["samples"][task], key=lambda item: item["doc_id"])
    return {
        "seconds": model.seconds,
        "cpu_seconds": model.cpu_seconds,
        "all_seconds": time.perf_counter() - started,
        "correct": [bool(item["acc"]) for item in items],
        "correct_norm": [bool(item["acc_norm"]) for item in items],
        "answers": [[continuation for _, continuation in item["arguments"]] for item in items],
        "log_likelihoods": [[float(likelihood) for likelihood, _ in item["filtered_resps"]] for item in items],
    }


def main() -> None:
    """Load the model, say how long that took, and then answer."""
    parser = argparse.ArgumentParser()
    for name in ("model", "tasks", "device", "dtype"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("batch-size", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    answers = sys.stdout
    with redirect_stdout(sys.stderr):  # what libraries print is no answer
        torch.set_num_threads(options.threads)
        started = time.perf_counter()
        model = Timed(
            pretrained=options.model, device=options.device, dtype=options.dtype, batch_size=options.batch_size
        )
        loaded = time.perf_counter() - started
        manager = TaskManager(include_path=options.tasks, include_defaults=False)

        def answer(task: str | None = None, limit: int | None = None) -> dict[str, object]:
            return scored(model, manager, task, limit) if task else {"seconds": loaded}

        answer_questions(sys.stdin, answers, answer)


if __name__ == "__main__":
    main()
