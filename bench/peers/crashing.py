"""``kill -9`` of the coordinator's side at a seeded moment: when it serves again, and what becomes of the run."""

import asyncio
import random
import time
from dataclasses import dataclass
from pathlib import Path

from bench.peers.measuring import LOOK_SECONDS, lengths, started, wait_for_rounds
from bench.peers.starting import is_served
from bench.peers.systems import Case, RoundEnd, Running, System

PATIENCE_SECONDS = 120.0
"""How long nothing may happen after the kill until a run counts as lost: five of its rounds, if those are longer."""


@dataclass(frozen=True)
class Crashed:
    """A case whose coordinator was killed."""

    system: str
    seed: int
    rounds: int
    rounds_before: int
    """Rounds that had ended."""
    into_next: float
    """How far the next one was, in rounds."""
    serves_after: float | None
    goes_on_after: float | None
    """Seconds from the kill to the end of the next round; None if none ended."""
    kept: int | None
    """The newest round whose adapter the coordinator's side still had when it served again."""
    rounds_lost: int
    """Rounds that had ended and were run again, or whose adapter is gone with a run that does not go on."""
    digest: str | None
    """Of the adapter of the last round, if there was one."""


async def crash(system: System, case: Case, seed: int, limit_seconds: float, folder: Path) -> Crashed:
    """Run a case, kill its coordinator in the middle and wait for what comes.

    Raises:
        TimeoutError: the rounds before the kill have not ended in time.
    """
    drawn = random.Random(seed)  # noqa: S311 - a moment, and no secret
    before, fraction = drawn.randrange(2, case.rounds), drawn.random()
    async with started(system, case, folder) as running:
        ends = await wait_for_rounds(running, before, limit_seconds)
        if ends is None:
            raise TimeoutError(f"{before} rounds have not ended after {limit_seconds:.0f} s")
        length = lengths(ends)[-1]
        await asyncio.sleep(max(0.0, ends[-1].at + fraction * length - time.time()))
        before = len(running.rounds())
        patience = max(PATIENCE_SECONDS, 5 * length)
        await running.crash()
        killed = time.time()
        await _served(running, patience, wanted=False)  # a process that is killed takes a moment to end
        await running.restart()
        serves = await _served(running, patience)
        kept = await running.kept()
        after = await wait_for_rounds(running, before + 1, patience)
        if after is not None:
            await wait_for_rounds(running, case.rounds, limit_seconds)
        last = running.rounds()[-1]
    return Crashed(
        system=system.name,
        seed=seed,
        rounds=case.rounds,
        rounds_before=before,
        into_next=fraction,
        serves_after=None if serves is None else serves - killed,
        goes_on_after=None if after is None else after[before].at - killed,
        kept=kept,
        rounds_lost=lost(before, kept, None if after is None else after[before]),
        digest=last.digest,
    )


def lost(before: int, kept: int | None, first_after: RoundEnd | None) -> int:
    """Return how many of the rounds that had ended were lost: by the first that ended after the kill, if one has.

    A round may have been kept, and not have been noted yet as one that had ended.
    """
    return max(0, before - (kept or 0)) if first_after is None else before + 1 - first_after.number


async def _served(running: Running, seconds: float, *, wanted: bool = True) -> float | None:
    """Return when the coordinator's port is listened on, or is not; None if that takes longer."""
    until = time.monotonic() + seconds
    while await is_served(running.port) is not wanted:
        if time.monotonic() > until:
            return None
        await asyncio.sleep(LOOK_SECONDS)
    return time.time()
