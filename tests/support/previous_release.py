"""Write what a release leaves in a coordinator's folder, to be kept as what the next one has to go on from.

To be run with the release that is to be kept, before the first migration of the next:

    python -m tests.support.previous_release tests/coordinator/previous_release

The database is kept as SQL, so that changes of it can be read; the blobs, which are tiny, as they are.
"""

import asyncio
import shutil
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from bench.federation import Federation, ManualClock
from services.coordinator.membership import Membership
from shared.protocol.rounds import RoundState
from shared.protocol.terms import CohortTerms
from tests.support.federations import federation, terms_of
from tests.support.players import FOUR, SECURE

DUMP, KEY, BLOBS = "coordinator.sql", "coordinator.key", "blobs"
PATIENT = CohortTerms(min_count=2, max_count=2, min_seconds=10_000, max_seconds=10_000)
READABLE, MASKED, ENDED = "readable", "masked", "ended"


async def play(folder: Path) -> None:
    """Bring three runs to where a restart finds something to do: an update that has come, work that is leased."""
    clock = ManualClock()
    async with federation(folder, clock, agents=FOUR) as opened:
        await opened.start(ENDED, terms_of(rounds=2, **SECURE))
        await opened.finish(ENDED)
        clock.advance(60)
        await opened.start(MASKED, terms_of(rounds=2, **SECURE))
        while live_round(opened, MASKED) != (2, RoundState.AGGREGATED):
            await opened.step()
        opened.context.lifecycle.pause(MASKED, actor="operator")  # so that its work stays undone
        clock.advance(60)
        await opened.start(READABLE, terms_of(rounds=2, cohort=PATIENT))
        while live_round(opened, READABLE) != (2, RoundState.OPEN):
            opened.context.rounds.reconcile()
            await opened.work()
            if live_round(opened, READABLE) == (1, RoundState.OPEN):
                for name in ("ada", "bob"):
                    await opened.agents[name].step(wait_seconds=0)
        await opened.agents["ada"].step(wait_seconds=0)
        opened.context.lifecycle.start(MASKED, actor="operator")
        opened.context.promotion.pin(ENDED, 1, actor="operator")
        revoke(opened.context.membership)


def live_round(opened: Federation, run_id: str) -> tuple[int, RoundState] | None:
    """Return which round of a run goes on, and where it is."""
    with opened.context.store.read() as tx:
        live = tx.live_round(tx.run(run_id))
    return None if live is None else (live.number, live.state)


def revoke(membership: Membership) -> None:
    """Let dan out, who is in no round that goes on."""
    membership.revoke("dan", "has left the federation", actor="operator")


def write(into: Path) -> None:
    """Write the folder anew."""
    shutil.rmtree(into, ignore_errors=True)
    with tempfile.TemporaryDirectory() as made:
        asyncio.run(play(Path(made)))
        data_dir = Path(made) / "coordinator"
        into.mkdir(parents=True)
        with closing(sqlite3.connect(data_dir / "coordinator.db")) as database:
            (into / DUMP).write_text("".join(f"{line}\n" for line in database.iterdump()))
        shutil.copy(data_dir / KEY, into)
        shutil.copytree(data_dir / BLOBS / "sha256", into / BLOBS / "sha256")


def data_dir_of(kept: Path, into: Path) -> Path:
    """Make a coordinator's folder of what was kept."""
    shutil.copytree(kept, into)
    with closing(sqlite3.connect(into / "coordinator.db")) as database:
        database.executescript((into / DUMP).read_text())
    (into / DUMP).unlink()
    (into / KEY).chmod(0o600)
    return into


if __name__ == "__main__":
    write(Path(sys.argv[1]))
