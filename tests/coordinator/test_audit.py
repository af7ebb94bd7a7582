"""The audit log of a coordinator: a chain in its database."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command

from bench.federation import ManualClock
from services.coordinator.records import Run
from services.coordinator.store import SqlStore, migrations, open_store
from shared.errors import AuditBroken
from shared.protocol.audit import NOTHING, AuditEntry, AuditHead, Chain
from tests.support.federations import terms_of


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> Iterator[SqlStore]:
    """A store with five entries in its audit log."""
    opened = open_store(tmp_path / "coordinator.db", clock, lambda **_: None)
    with opened.write() as tx:
        tx.insert_run(Run("run", terms_of(), created_at=1.0), actor="operator")
    for number in range(4):
        with opened.write() as tx:
            tx.note("run", None, "something.happened", "ada", {"number": number, "share": 0.1, "of": "Zoë"})
    yield opened
    opened.close()


def entries_of(store: SqlStore) -> list[AuditEntry]:
    """Return the whole audit log."""
    with store.read() as tx:
        return tx.audit.entries(after=0, limit=1000)


def head_of(store: SqlStore) -> AuditHead:
    """Return its head."""
    with store.read() as tx:
        return tx.audit.head("clinics")


def check(store: SqlStore, *heads: AuditHead) -> None:
    """Check the log from its first entry to ``heads``."""
    chain = Chain(*heads)
    for entry in entries_of(store):
        chain.append(entry)
    chain.require_whole()


def edit(folder: Path, statement: str, *values: object) -> None:
    """Change the coordinator's database behind its back."""
    database = sqlite3.connect(folder / "coordinator.db")
    with database:
        assert database.execute(statement, values).rowcount > 0
    database.close()


def test_every_change_makes_the_chain_longer(store: SqlStore) -> None:
    """Numbers from 1 on without gaps, each hash in the next entry, and the head is the newest."""
    entries = entries_of(store)
    assert [entry.seq for entry in entries] == [1, 2, 3, 4, 5]
    check(store, head_of(store))
    newest = entries[-1]
    assert (newest.actor, newest.action, newest.subject) == ("ada", "something.happened", "run/run")
    assert newest.detail == {"number": 3, "share": 0.1, "of": "Zoë"}
    with store.read() as tx:
        assert tx.audit.entries(after=2, limit=2) == entries[2:4]


def test_a_log_without_entries_has_a_head(tmp_path: Path, clock: ManualClock) -> None:
    """Its number is 0."""
    empty = open_store(tmp_path / "empty.db", clock, lambda **_: None)
    assert head_of(empty) == AuditHead(federation="clinics", seq=0, hash=NOTHING, at=0.0)
    check(empty, head_of(empty))
    empty.close()


def test_a_change_that_did_not_happen_is_no_entry_and_leaves_no_gap(store: SqlStore) -> None:
    """The entry is in the transaction of its change."""
    before = head_of(store)
    with pytest.raises(ZeroDivisionError), store.write() as tx:
        tx.note("run", None, "something.happened", "bob", {})
        raise ZeroDivisionError
    assert head_of(store) == before
    with store.write() as tx:
        tx.note("run", None, "something.happened", "bob", {})
        tx.note("run", None, "something.happened", "cleo", {})
    assert [entry.actor for entry in entries_of(store)[5:]] == ["bob", "cleo"]
    check(store, before, head_of(store))


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("UPDATE audit SET actor = 'bob' WHERE seq = 3", 3),
        ("UPDATE audit SET at = at + 1 WHERE seq = 3", 3),
        ("""UPDATE audit SET detail = '{"number": 9}' WHERE seq = 3""", 3),
        ("UPDATE audit SET detail = 'no JSON' WHERE seq = 3", 3),
        ("UPDATE audit SET detail = '[]' WHERE seq = 3", 3),
        ("UPDATE audit SET hash = 'no hash' WHERE seq = 3", 3),
        ("UPDATE audit SET at = 'then' WHERE seq = 3", 3),
        ("DELETE FROM audit WHERE seq = 3", 3),
        ("DELETE FROM audit WHERE seq = 5", 5),
        ("DELETE FROM audit WHERE seq > 3", 4),
        ("DELETE FROM audit WHERE seq = 1", 1),
        ("UPDATE audit SET seq = 7 WHERE seq = 3", 3),
        (
            "INSERT INTO audit SELECT 6, at, 'bob', action, subject, detail, previous, hash FROM audit WHERE seq = 5",
            6,
        ),
    ],
)
def test_what_was_done_to_the_database_is_found(statement: str, named: int, store: SqlStore, tmp_path: Path) -> None:
    """Whoever can write to the file cannot change the log unseen by who knows its head."""
    known = head_of(store)
    edit(tmp_path, statement)
    with pytest.raises(AuditBroken, match=rf"entry {named}\b"):
        check(store, known)


def test_a_log_that_was_cut_and_went_on_is_found(store: SqlStore, tmp_path: Path) -> None:
    """The coordinator itself goes on from whatever entry it finds; the chain is right, and passes the old head by."""
    known = head_of(store)
    edit(tmp_path, "DELETE FROM audit WHERE seq > 3")
    for _ in range(5):
        with store.write() as tx:
            tx.note("run", None, "something.happened", "ada", {})
    check(store, head_of(store))
    with pytest.raises(AuditBroken, match="entry 5 of the audit log is another one than was signed"):
        check(store, known, head_of(store))


def test_the_log_of_an_older_release_becomes_a_chain(tmp_path: Path, clock: ManualClock) -> None:
    """Its entries keep their order and what they say, and get numbers without gaps."""
    path = tmp_path / "coordinator.db"
    with sa.create_engine(f"sqlite:///{path}").begin() as connection:
        config = migrations()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    for seq, action in ((1, "run.draft"), (2, "run.running"), (7, "round.open")):
        edit(
            tmp_path,
            "INSERT INTO audit VALUES (?, ?, 'operator', ?, 'run/run', ?)",
            seq,
            seq + 0.1,
            action,
            json.dumps({"name": "a run", "loss": 0.30000000000000004}),
        )
    store = open_store(path, clock, lambda **_: None)
    check(store, head_of(store))
    assert [(entry.seq, entry.at, entry.action) for entry in entries_of(store)] == [
        (1, 1.1, "run.draft"),
        (2, 2.1, "run.running"),
        (3, 7.1, "round.open"),
    ]
    with store.write() as tx:
        tx.insert_run(Run("run", terms_of(), created_at=1.0), actor="operator")
    check(store, head_of(store))
    assert head_of(store).seq == 4
    store.close()
