"""A coordinator on what the release before has left: ``previous_release/``, written by that release itself."""

import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from bench.federation import ManualClock, open_federation
from bench.no_op import InProcess, NoOpTrainer
from services.coordinator import schema
from services.coordinator.store import newest_version, open_store, schema_version
from shared.errors import DatabaseTooNew
from shared.protocol.audit import Chain, require_head
from shared.protocol.rounds import RoundState, RunState
from tests.support.cotuners import AddingCoTuner
from tests.support.federations import LLM_LAYOUT, SLM_LAYOUT
from tests.support.players import FOUR
from tests.support.previous_release import ENDED, MASKED, READABLE, data_dir_of

pytestmark = pytest.mark.anyio

KEPT = Path(__file__).with_name("previous_release")
LATER = 1_700_100_000.0


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """The folder that the release before has left."""
    return data_dir_of(KEPT, tmp_path / "coordinator")


def rows(database: Path) -> Mapping[str, list[dict[str, Any]]]:
    """Return all rows of all tables."""
    with closing(sqlite3.connect(database)) as connection:
        connection.row_factory = sqlite3.Row
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {table: [dict(row) for row in connection.execute(f"SELECT * FROM {table}")] for table in tables}  # noqa: S608


def is_newest(database: Path) -> bool:
    """Return whether a database has exactly the tables and columns of this release."""
    with closing(sqlite3.connect(database)) as connection:
        engine = sa.create_engine("sqlite://", creator=lambda: connection, poolclass=sa.StaticPool)
        with engine.connect() as opened:
            migration = MigrationContext.configure(opened, opts={"compare_type": True})
            return compare_metadata(migration, schema.metadata) == [] and schema_version(database) == newest_version()


def test_an_upgrade_loses_no_row(data_dir: Path) -> None:
    """Every row that was there is there, column by column, in tables that are as this release makes them."""
    database = data_dir / "coordinator.db"
    before = rows(database)
    open_store(database, lambda: LATER, lambda **_: None).close()
    after = rows(database)
    for table, known in before.items():
        if table != "alembic_version":
            kept = [{column: row[column] for column in known[0]} for row in after[table]] if known else []
            assert kept == known, table
    assert is_newest(database)


async def test_runs_of_the_release_before_go_on_to_their_ends(data_dir: Path) -> None:
    """Work that nobody had done is done, an update that had come is used, and nobody trains for it again."""
    trainers = {name: NoOpTrainer() for name in FOUR}
    clock = ManualClock(LATER)
    with closing(sqlite3.connect(data_dir / "coordinator.db")) as database:
        [(_, sent)] = database.execute("SELECT agent, digest FROM updates WHERE run_id = ? AND round = 2", (READABLE,))
    cotuner = AddingCoTuner(SLM_LAYOUT, LLM_LAYOUT)
    everybody = {name: InProcess(trainer) for name, trainer in trainers.items()}
    async with open_federation(data_dir.parent, everybody, cotuner, clock) as opened:
        del opened.agents["dan"]  # who was revoked
        for run_id in (MASKED, READABLE):
            assert (await opened.finish(run_id)).state is RunState.FINISHED
        assert (await opened.run(ENDED)).state is RunState.FINISHED
        second = (await opened.rounds(READABLE)).rounds[1]
        assert (second.state, second.accepted) == (RoundState.PUBLISHED, 2)
        with opened.context.store.read() as tx:
            assert sent in {update.digest for update in tx.updates(READABLE, 2)}
        assert opened.context.promotion.promotion().pinned
        log = opened.context.audit
        require_head(log.head(), known=None)
        chain = Chain(log.head().head)
        for entry in log.page(after=0, limit=1000).entries:
            chain.append(entry)
        chain.require_whole()
    assert [trainer.trainings for trainer in trainers.values()] == [0, 1, 0, 0]  # bob, for the round that was open


def test_a_database_of_a_newer_release_is_refused_and_left_as_it_is(data_dir: Path) -> None:
    """Whoever goes back without a backup is told so, and can still go forward."""
    database = data_dir / "coordinator.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    before = rows(database)
    with pytest.raises(DatabaseTooNew, match=r"newer release \(9999\).*up to \d{4}: nothing was changed"):
        open_store(database, lambda: LATER, lambda **_: None)
    assert rows(database) == before


# Opens a database in a process that dies before its nth statement, for each n from 0 on, until one ends well.
DYING = """
import os, signal, sys, sqlalchemy as sa
from pathlib import Path
from alembic import command  # once, and not in each child
from services.coordinator import store
left = 0

@sa.event.listens_for(sa.Engine, "before_cursor_execute")
def count(*_):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)

for number in range(10_000):
    child = os.fork()
    if not child:
        left = number
        store.open_store(Path(sys.argv[1]), lambda: 0.0, lambda **_: None).close()
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        print(number)
        break
"""


@pytest.mark.parametrize("begins", ["empty", "previous"])
def test_an_upgrade_that_is_killed_anywhere_can_be_repeated(begins: str, data_dir: Path, tmp_path: Path) -> None:
    """Before each of its statements: the next start begins anew, and ends with the same database."""
    database = data_dir / "coordinator.db" if begins == "previous" else tmp_path / "new.db"
    before = rows(database) if begins == "previous" else {}
    died = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", DYING, str(database)], capture_output=True, text=True, check=True, timeout=100
    )
    assert int(died.stdout) >= (2 if begins == "previous" else 30)
    assert is_newest(database)
    after = rows(database)
    assert {table: len(known) for table, known in before.items()} == {table: len(after[table]) for table in before}
