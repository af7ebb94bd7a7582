"""What a case costs: seconds and bytes of its rounds, and the memory of the coordinator's side."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from bench.peers import noted
from bench.peers.payload import FOLDER
from bench.peers.processes import Peak
from bench.peers.systems import Case, RoundEnd, Running, System

START_SECONDS = 300.0
LOOK_SECONDS, SAMPLE_SECONDS = 0.02, 0.5
SMALL_MEGABYTES = 5.0
"""Processes below are a wrapper's shell and its sleeps."""


@dataclass(frozen=True)
class Measured:
    """A case as it was run; of its rounds the first is dropped."""

    system: str
    agents: int
    adapter_bytes: int
    asked: int
    """Rounds, with the first."""
    seconds: list[float]
    bytes_per_round: float | None
    memory: list[Peak]
    trainings: list[float]
    """Seconds of the longest training of each round, where there is a real one."""
    ended: str
    """Why it has ended."""
    digest: str | None

    @property
    def megabytes(self) -> float:
        """The sum of what the processes of the coordinator's side have had at most."""
        return sum(peak.megabytes for peak in self.memory)


def lengths(ends: Sequence[RoundEnd]) -> list[float]:
    """Return the seconds from each end of a round to the next: those of all rounds but the first."""
    return [after.at - before.at for before, after in pairwise(ends)]


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Return a percentile, between two values on the line that joins them; None without values."""
    return float(np.percentile(values, percent)) if values else None


def slope(points: Sequence[tuple[float, float]]) -> float | None:
    """Return the slope of the line of least squares; None unless there are two places."""
    places = [place for place, _ in points]
    if len(set(places)) < 2:  # noqa: PLR2004 - a line has two
        return None
    return float(np.polyfit(places, [value for _, value in points], 1)[0])


def longest(seconds: Sequence[float], agents: int) -> list[float]:
    """Return the longest of each round's trainings, of those that are whole, in the order in which they ended."""
    whole = len(seconds) // agents * agents
    return [max(seconds[start : start + agents]) for start in range(0, whole, agents)]


@asynccontextmanager
async def started(system: System, case: Case, folder: Path) -> AsyncIterator[Running]:
    """Start a system that runs the case.

    Raises:
        TimeoutError: it does not start.
    """
    os.environ[FOLDER] = str(folder)
    async with AsyncExitStack() as stack:
        async with asyncio.timeout(START_SECONDS):
            running = await stack.enter_async_context(system.running(folder, case))
        yield running


async def measure(system: System, case: Case, limit_seconds: float, folder: Path) -> Measured:
    """Run a case until its last round has ended, or for this long once everything is started."""
    bytes_at: list[int] = []
    async with started(system, case, folder) as running:
        until, sampled = time.monotonic() + limit_seconds, 0.0
        while len(ends := running.rounds()) < case.rounds and time.monotonic() < until:
            bytes_at += [running.count.both] * (len(ends) - len(bytes_at))
            if time.monotonic() > sampled + SAMPLE_SECONDS:
                running.coordinator.sample()
                sampled = time.monotonic()
            await asyncio.sleep(LOOK_SECONDS)
        bytes_at += [running.count.both] * (len(ends) - len(bytes_at))
        running.coordinator.sample()
        memory = [peak for peak in running.coordinator.peaks() if peak.megabytes > SMALL_MEGABYTES]
    seconds = lengths(ends)
    return Measured(
        system=system.name,
        agents=case.agents,
        adapter_bytes=case.adapter_bytes,
        asked=case.rounds,
        seconds=seconds,
        bytes_per_round=(bytes_at[-1] - bytes_at[0]) / len(seconds) if seconds else None,
        memory=memory,
        trainings=longest([each.seconds for each in noted.trainings(folder)], case.agents)[1:],
        ended="" if len(ends) == case.rounds else f"stopped after {limit_seconds:.0f} s",
        digest=ends[-1].digest if ends else None,
    )


async def wait_for_rounds(running: Running, count: int, seconds: float) -> Sequence[RoundEnd] | None:
    """Return the rounds when there are so many; None if that takes longer."""
    until = time.monotonic() + seconds
    while len(ends := running.rounds()) < count:
        if time.monotonic() > until:
            return None
        await asyncio.sleep(LOOK_SECONDS)
    return ends
