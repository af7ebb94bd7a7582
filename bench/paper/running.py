"""Runs an experiment's cells, several beside each other, and shows how far they are."""

import asyncio
import logging
import multiprocessing
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from queue import Queue

import structlog
import torch
import transformers
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from bench.command_line import processors
from bench.paper.cache import PACKAGES, Cache, code_digest
from bench.paper.cells import Made, Outcome, Place, run_cell
from bench.paper.config import Experiment
from bench.paper.methods import Cell
from bench.paper.parties import Parties

REFRESH_SECONDS = 0.5
Said = Queue[tuple[str, str]]


@dataclass(frozen=True)
class Keyed:
    """A cell, its digest, and where it finds what it needs."""

    cell: Cell
    key: str
    place: Place


def keyed_cell(experiment: Experiment, cell: Cell, cache: Cache, parties: Parties, *, llm: Path, slm: Path) -> Keyed:
    """Return a cell with its digest; its run's folder is named by that.

    Raises:
        FedCoLLMError: a model or an example cannot be read, or the terms cannot be.
    """
    here = Place(llm, slm, parties, folder=cache.folder, digest_cache=cache.folder / "digests.json")
    key = cache.key(experiment, cell, here)
    return Keyed(cell, key, replace(here, folder=cache.run_folder(key)))


def run_cells(experiment: Experiment, cells: Sequence[Keyed], cache: Cache, *, jobs: int) -> list[Outcome]:
    """Return every cell's outcome, in order; what is not in the cache is run, ``jobs`` of them at a time.

    Cells of one digest are one run: a variant that says what the experiment says anyway is FedCoLLM under another name.

    Raises:
        RuntimeError: some cells have failed; the others are in the cache.
    """
    waiting = {one.key: one for one in cells if cache.get(one.key) is None}
    failed = _run(experiment, list(waiting.values()), cache, jobs=jobs) if waiting else {}
    if failed:
        reasons = "\n".join(f"  {name}: {error}" for name, error in failed.items())
        raise RuntimeError(f"{len(failed)} of {len(cells)} runs have failed, the others are kept:\n{reasons}")
    outcomes = [(one.cell, cache.get(one.key)) for one in cells]
    return [found.model_copy(update={"method": cell.method}) for cell, found in outcomes if found is not None]


def _run(experiment: Experiment, waiting: Sequence[Keyed], cache: Cache, *, jobs: int) -> dict[str, BaseException]:
    """Run cells in processes of their own, and return what went wrong, by cell."""
    failed: dict[str, BaseException] = {}
    threads = max(1, (os.cpu_count() or 1) // jobs)
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    made = Made(
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        machine=processors(),
        jobs=jobs,
        versions=versions,
        code=code_digest()[:12],
    )
    context = multiprocessing.get_context("spawn")
    with (
        context.Manager() as manager,
        # A process for each cell: what models have left behind in one, some gigabytes after a few cells, ends with it.
        ProcessPoolExecutor(
            jobs, mp_context=context, initializer=_begin, initargs=(threads,), max_tasks_per_child=1
        ) as pool,
        _bars() as bars,
    ):
        said: Said = manager.Queue()
        running: dict[Future[Outcome], Keyed] = {
            pool.submit(_run_one, experiment, one.cell, one.place, said): one for one in waiting
        }
        shown = _Shown(bars, bars.add_task(experiment.title, total=len(running)))
        try:
            while running:
                done, _ = wait(running, timeout=REFRESH_SECONDS, return_when=FIRST_COMPLETED)
                while not said.empty():
                    shown.say(*said.get())
                for future in done:
                    one = running.pop(future)
                    if error := future.exception():
                        failed[one.cell.name] = error
                        shown.end(one.cell.name, f"has failed: {error}")
                    else:
                        cache.put(one.key, future.result().model_copy(update={"made": made}))
                        shutil.rmtree(cache.run_folder(one.key), ignore_errors=True)
                        shown.end(one.cell.name, _in_short(future.result()))
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise
    return failed


@dataclass
class _Shown:
    """One bar for all cells, and a line for each that runs."""

    bars: Progress
    whole: TaskID
    lines: dict[str, TaskID] = field(default_factory=dict)

    def say(self, name: str, what: str) -> None:
        """Show what a cell does."""
        if name not in self.lines:
            self.lines[name] = self.bars.add_task(name, total=None)
        self.bars.update(self.lines[name], description=f"{name}: {what}")

    def end(self, name: str, how: str) -> None:
        """Put a cell that has ended above the bars."""
        self.bars.advance(self.whole)
        if name in self.lines:
            self.bars.remove_task(self.lines.pop(name))
        self.bars.console.print(f"{name}: {how}", markup=False, highlight=False)


def _bars() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        refresh_per_second=2,  # a picture costs more than a look: ten a second took a tenth of a core
    )


def _in_short(outcome: Outcome) -> str:
    scores: Mapping[str, float] = {name: 100 * one.accuracy for name, one in outcome.measured.items()}
    return ", ".join(f"{name} {score:.1f}" for name, score in scores.items()) + f" in {outcome.seconds:.0f} s"


def _begin(threads: int) -> None:
    """Make a process ready: quiet, and with its share of the cores."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    torch.set_num_threads(threads)


def _run_one(experiment: Experiment, cell: Cell, place: Place, said: Said) -> Outcome:
    return asyncio.run(run_cell(experiment, cell, place, lambda what: said.put((cell.name, what))))
