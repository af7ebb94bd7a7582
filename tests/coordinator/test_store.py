import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from bench.federation import ManualClock
from services.coordinator import schema
from services.coordinator.records import Blob, Job, JobState, Round, Run, Update
from services.coordinator.store import SqlStore, migrations, newest_version, open_store
from shared.errors import IllegalTransition, NotFound, StorageFull, VersionConflict
from shared.protocol.digests import digest_of
from shared.protocol.messages import PublishedAdapter, RoundScores
from shared.protocol.rounds import RoundEvent, RoundState, RunEvent, RunState
from shared.protocol.work import PrepareTask
from tests.support.federations import score, terms_of

DIGEST = digest_of(b"adapter")
RUN = Run("run", terms_of(), created_at=1.0)
ROUND = Round("run", 1, DIGEST, DIGEST, entered={"open": 1.0})


class Bell:
    """Counts how often it was rung."""

    def __init__(self) -> None:
        self.rings = 0
        self.for_agents = 0

    def __call__(self, *, for_agents: bool) -> None:
        """Ring."""
        self.rings += 1
        self.for_agents += for_agents


@pytest.fixture
def bell() -> Bell:
    return Bell()


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock, bell: Bell) -> Iterator[SqlStore]:
    """A store with one run and its first round."""
    opened = open_store(tmp_path / "coordinator.db", clock, bell)
    with opened.write() as tx:
        tx.insert_run(RUN, actor="operator")
        tx.insert_round(ROUND, actor="operator")
    yield opened
    opened.close()


def test_the_database_lies_where_it_was_said(tmp_path: Path, clock: ManualClock, bell: Bell):
    """A folder's name may hold what means something in a URL."""
    folder = tmp_path / "a?b%20c#d"
    folder.mkdir()
    open_store(folder / "coordinator.db", clock, bell).close()
    assert (folder / "coordinator.db").exists()
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def events_of(store: SqlStore) -> list[str]:
    """Return the kinds of the run's events, in order."""
    with store.read() as tx:
        return [event.kind for event in tx.events("run", after=0, limit=100)]


def audit_of(store: SqlStore) -> list[tuple[str, str, str]]:
    """Return who did what to what."""
    with store._engine.connect() as connection:
        rows = connection.execute(sa.select(schema.audit).order_by(schema.audit.c.seq)).mappings()
        return [(row["actor"], row["action"], row["subject"]) for row in rows]


def test_the_migrations_make_exactly_the_schema(store: SqlStore) -> None:
    """Tables as alembic makes them and tables as SQLAlchemy sees them are the same, column by column."""
    with store._engine.connect() as connection:
        migration = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(migration, schema.metadata) == []


def test_a_second_start_migrates_nothing(store: SqlStore, tmp_path: Path, clock: ManualClock) -> None:
    """Opening a database that is up to date keeps what it holds."""
    with store.read() as tx:
        before = tx.run("run"), tx.round("run", 1)
    again = open_store(tmp_path / "coordinator.db", clock, lambda **_: None)
    with again.read() as tx:
        assert (tx.run("run"), tx.round("run", 1)) == before
    again.close()


def test_every_connection_is_durable(store: SqlStore, tmp_path: Path) -> None:
    """A commit is on the disk when it returns: WAL, synchronous FULL, and foreign keys are enforced."""
    with store._engine.connect() as connection:
        pragmas = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("synchronous", "foreign_keys")]
    assert pragmas == [2, 1]
    other = sqlite3.connect(tmp_path / "coordinator.db")
    assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    other.close()


def test_records_come_back_as_they_went(store: SqlStore) -> None:
    """What is written is what is read after a restart, field by field."""
    scores = RoundScores(slm_aggregated=score(1.5), slm=score(1.25), llm=score(0.5))
    full = replace(
        ROUND,
        number=2,
        state=RoundState.REFUSED,
        reason="worse",
        entered={"open": 1.0, "refused": 2.5},
        scores=scores,
        accepted=3,
        refused=2,
        late=1,
        aggregate=DIGEST,
        slm_candidate=DIGEST,
        llm_candidate=DIGEST,
    )
    update = Update("run", 2, "ada", DIGEST, 17, 3.5)
    job = Job("run-0-prepare", "run", 0, PrepareTask(), created_at=2.0, state=JobState.LEASED, token=3, worker="w")
    with store.write() as tx:
        tx.insert_blob(Blob(DIGEST, 1 << 40, "checksum"))
        tx.insert_round(full, actor="operator")
        tx.insert_update(update)
        tx.insert_job(job)
    with store.read() as tx:
        assert tx.run("run") == RUN
        assert tx.round("run", 2) == full
        assert tx.rounds("run") == [ROUND, full]
        assert tx.updates("run", 2) == [update]
        assert tx.job(job.id) == job
        assert tx.open_jobs("run") == [job]
        assert tx.blob(DIGEST) == Blob(DIGEST, 1 << 40, "checksum")


def test_of_two_writers_one_is_told_to_read_again(store: SqlStore) -> None:
    """Both read version 0; the second to write gets a VersionConflict, and nothing of its change is there."""
    with store.read() as tx:
        read_by_both = tx.round("run", 1)
    with store.write() as tx:
        tx.change_round(read_by_both, actor="first", accepted=1)
    with pytest.raises(VersionConflict), store.write() as tx:
        tx.note("run", 1, "second.was.here", "second", {})
        tx.change_round(read_by_both, RoundEvent.ABORT, actor="second", reason="no")
    with store.read() as tx:
        now = tx.round("run", 1)
    assert (now.accepted, now.state, now.version) == (1, RoundState.OPEN, 1)
    assert "second.was.here" not in events_of(store)
    assert "round.aborted" not in events_of(store)
    assert all(actor != "second" for actor, _, _ in audit_of(store))


def test_runs_and_jobs_are_swapped_the_same_way(store: SqlStore) -> None:
    """A run or a job that somebody else changed is not overwritten."""
    job = Job("run-0-prepare", "run", 0, PrepareTask(), created_at=2.0)
    with store.write() as tx:
        tx.insert_job(job)
        tx.change_job(job, state=JobState.LEASED)
        tx.change_run(RUN, RunEvent.START, actor="operator")
    with pytest.raises(VersionConflict), store.write() as tx:
        tx.change_job(job, state=JobState.DONE)
    with pytest.raises(VersionConflict), store.write() as tx:
        tx.change_run(RUN, actor="operator", round=7)
    with store.read() as tx:
        assert tx.job(job.id).state is JobState.LEASED
        assert tx.run("run").round == 0


def test_a_transition_writes_its_event_and_its_audit_line(store: SqlStore) -> None:
    """Whoever reads the log sees every change of state, by whom, and when."""
    with store.write() as tx:
        tx.change_round(ROUND, RoundEvent.ABORT, actor="ada", detail={"reason": "no"}, reason="no")
    assert events_of(store) == ["run.draft", "round.open", "round.aborted"]
    assert audit_of(store)[-1] == ("ada", "round.aborted", "run/run/round/1")
    with store.read() as tx:
        event = tx.events("run", after=0, limit=9)[-1]
        assert (event.detail, event.round) == ({"reason": "no"}, 1)
        assert event.at == tx.round("run", 1).entered["aborted"]


def test_a_transition_that_fails_writes_nothing(store: SqlStore) -> None:
    """Neither state nor event nor audit line is there when the transaction does not end well."""
    before = events_of(store), audit_of(store)
    with pytest.raises(ZeroDivisionError), store.write() as tx:
        tx.change_round(ROUND, RoundEvent.ABORT, actor="ada")
        raise ZeroDivisionError
    assert (events_of(store), audit_of(store)) == before
    with store.read() as tx:
        assert tx.round("run", 1) == ROUND


def test_an_illegal_transition_writes_nothing(store: SqlStore) -> None:
    """The table says no before a row is touched."""
    before = events_of(store), audit_of(store)
    with pytest.raises(IllegalTransition), store.write() as tx:
        tx.change_round(ROUND, RoundEvent.PUBLISH, actor="ada")
    with pytest.raises(IllegalTransition), store.write() as tx:
        tx.change_run(RUN, RunEvent.FINISH, actor="ada")
    assert (events_of(store), audit_of(store)) == before


def test_events_are_numbered_in_order_and_read_from_where_one_was(store: SqlStore) -> None:
    """A reader that goes on after the last number it saw misses nothing and sees nothing twice."""
    with store.write() as tx:
        for index in range(7):
            tx.note("run", None, f"kind.{index}", "ada", {"index": index})
    seen, after = [], 0
    while True:
        with store.read() as tx:
            page = tx.events("run", after=after, limit=2)
        if not page:
            break
        assert all(event.seq > after for event in page)
        after = page[-1].seq
        seen += [event.kind for event in page]
    assert seen == ["run.draft", "round.open", *[f"kind.{index}" for index in range(7)]]


def test_the_bell_rings_after_a_commit_that_changed_something_only(store: SqlStore, bell: Bell) -> None:
    """Long polls wake for every change, and for nothing else."""
    rung = bell.rings
    with store.read() as tx:
        tx.run("run")
    with store.write() as tx:
        tx.run("run")
    assert bell.rings == rung
    with store.write() as tx:
        tx.note("run", None, "kind", "ada", {})
        assert bell.rings == rung
    assert bell.rings == rung + 1
    with pytest.raises(ZeroDivisionError), store.write() as tx:
        tx.note("run", None, "kind", "ada", {})
        raise ZeroDivisionError
    assert bell.rings == rung + 1


def test_agents_are_woken_by_what_may_be_for_them(store: SqlStore, bell: Bell) -> None:
    """Rounds and runs that go on, and the adapter to hold; not by another agent that is ready: there are many."""
    with store.write() as tx:
        tx.insert_blob(Blob(DIGEST, 1, ""))
    chosen = PublishedAdapter(run_id="run", round=1, digest=DIGEST)
    changes = {
        "another is ready": lambda tx: tx.change_round(tx.round("run", 1), actor="ada", accepted=1),
        "work is done": lambda tx: tx.insert_job(Job("job", "run", 1, PrepareTask(), created_at=1.0)),
        "a stage": lambda tx: tx.change_round(tx.round("run", 1), RoundEvent.GATHER, actor="coordinator"),
        "the run": lambda tx: tx.change_run(tx.run("run"), RunEvent.START, actor="operator"),
        "a round": lambda tx: tx.insert_round(replace(ROUND, number=2), actor="coordinator"),
        "the adapter": lambda tx: tx.adapters.pin(chosen, actor="operator"),
        "none of them": lambda tx: tx.adapters.pin(None, actor="operator"),
    }
    woken = {}
    for name, change in changes.items():
        before = bell.for_agents
        with store.write() as tx:
            change(tx)
        woken[name] = bell.for_agents > before
    assert [name for name, heard in woken.items() if not heard] == ["another is ready", "work is done"]


def test_a_reader_sees_one_moment(store: SqlStore) -> None:
    """What a writer commits meanwhile does not show in a read that has begun."""
    with store.read() as tx:
        before = tx.round("run", 1)
        with store.write() as other:
            other.change_round(before, actor="ada", accepted=5)
        assert tx.round("run", 1) == before
    with store.read() as tx:
        assert tx.round("run", 1).accepted == 5


def test_a_full_disk_keeps_nothing_of_a_change(store: SqlStore) -> None:
    """A database that may not grow says StorageFull, holds what it held, and goes on when there is room again."""
    before = events_of(store), audit_of(store)
    with store._engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")  # stays with the pool's only connection
    with pytest.raises(StorageFull, match="make room"), store.write() as tx:
        tx.note("run", None, "kind", "ada", {"long": "x" * 100_000})
    assert (events_of(store), audit_of(store)) == before
    with store._engine.connect() as connection:
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages + 1000}")
    with store.write() as tx:
        tx.note("run", None, "kind", "ada", {"long": "x" * 100_000})


def test_a_locked_database_is_not_called_full(store: SqlStore, tmp_path: Path) -> None:
    """Another fault of the database stays visible as what it is."""
    other = sqlite3.connect(tmp_path / "coordinator.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with store._engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout=0")
    with pytest.raises(sa.exc.OperationalError, match="locked"), store.write():
        pass
    other.close()


def test_an_update_without_a_stored_blob_is_not_counted(store: SqlStore) -> None:
    """The row comes after the blob, and the database holds us to it."""
    with pytest.raises(sa.exc.IntegrityError), store.write() as tx:
        tx.insert_update(Update("run", 1, "ada", digest_of(b"nowhere"), 1, 1.0))


def test_what_is_not_there_is_not_found(store: SqlStore) -> None:
    """A wrong name is an error with a code, not a crash."""
    with store.read() as tx:
        for ask in (
            lambda: tx.run("other"),
            lambda: tx.round("run", 9),
            lambda: tx.job("other"),
            lambda: tx.blob(DIGEST),
        ):
            with pytest.raises(NotFound):
                ask()


def test_runs_are_listed_newest_first(store: SqlStore) -> None:
    """The page that an operator sees begins with what is new, and may name states."""
    with store.write() as tx:
        tx.insert_run(replace(RUN, id="later", created_at=2.0, state=RunState.RUNNING), actor="operator")
    with store.read() as tx:
        assert [run.id for run in tx.runs()] == ["later", "run"]
        assert [run.id for run in tx.runs(limit=1)] == ["later"]
        assert [run.id for run in tx.runs(states=(RunState.DRAFT,))] == ["run"]


def test_a_database_that_is_up_to_date_is_not_migrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that alembic takes memory only after an upgrade; a database that is behind is brought up."""
    path = tmp_path / "coordinator.db"
    open_store(path, lambda: 0.0, lambda **_: None).close()
    migrated: list[sa.Engine] = []
    monkeypatch.setattr("services.coordinator.store.migrate", migrated.append)
    open_store(path, lambda: 0.0, lambda **_: None).close()
    assert migrated == []
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0006'")
    open_store(path, lambda: 0.0, lambda **_: None).close()
    assert len(migrated) == 1
    assert newest_version() == ScriptDirectory.from_config(migrations()).get_current_head()


def test_an_attempt_that_goes_on_while_the_release_changes_goes_on(tmp_path: Path, clock: ManualClock) -> None:
    """Which group an agent is in was known from the attempt alone: the migration tells each agent's own row."""
    path = tmp_path / "coordinator.db"
    with sa.create_engine(f"sqlite:///{path}").begin() as connection:
        config = migrations()
        config.attributes["connection"] = connection
        command.upgrade(config, "0008")
        for statement in (
            (
                "INSERT INTO runs (id, state, version, terms, round, failed_in_a_row, published_round, created_at) "
                "VALUES ('run', 'running', 0, '{}', 1, 0, 0, 1.0)"
            ),
            (
                "INSERT INTO rounds (run_id, number, state, version, slm_adapter, llm_adapter, accepted, refused, "
                "late, attempt, entered) VALUES ('run', 1, 'keys', 0, 'slm', 'llm', 2, 0, 0, 2, '{}')"
            ),
            "INSERT INTO ready (run_id, round, agent) VALUES ('run', 1, 'ada'), ('run', 1, 'bob'), ('run', 1, 'cleo')",
        ):
            connection.exec_driver_sql(statement)
        for number, group, members in ((1, 0, '["cleo"]'), (2, 0, '["ada"]'), (2, 1, '["bob"]')):
            connection.exec_driver_sql(
                'INSERT INTO attempts (run_id, round, number, "group", terms, members) VALUES (?, 1, ?, ?, ?, ?)',
                ("run", number, group, "{}", members),
            )
    open_store(path, clock, lambda **_: None).close()
    with sa.create_engine(f"sqlite:///{path}").connect() as connection:
        groups = connection.exec_driver_sql('SELECT agent, "group" FROM ready ORDER BY agent').fetchall()
    assert [tuple(row) for row in groups] == [("ada", 0), ("bob", 1), ("cleo", None)]
