"""The coordinator's database as it is at one moment, in a file of its own: for backups, while the coordinator runs."""

import sqlite3
from contextlib import closing
from pathlib import Path

from services.coordinator.store import newest_version, open_store, schema_version
from shared.errors import ConfigurationError, OutputUnwritable, StorageError
from shared.protocol.audit import AuditHead
from shared.protocol.rounds import ENDED_ROUNDS


def snapshot(database: Path, into: Path, *, federation: str) -> tuple[AuditHead, set[str]]:
    """Write what the database holds now to ``into``; return its audit log's head, and the digests of its blobs.

    What agents have sent for rounds that go on is left out: those rounds end where the snapshot is put back, and
    nobody else has a use for it. So are the rows of blobs that nothing names; no page holds what was deleted.

    Raises:
        ConfigurationError: there is no database, or another release has written it.
        OutputUnwritable: the disk of the snapshot says no.
    """
    if not database.is_file():
        raise ConfigurationError(f"there is no {database}: name the settings of a coordinator that has been started")
    if (version := schema_version(database)) != newest_version():
        raise ConfigurationError(
            f"{database} has the schema {version}, and this release's is {newest_version()}: back up with the release "
            "that the coordinator runs"
        )
    raw = into.with_name(f"{into.name}.raw")
    try:
        _copy(database, raw)
        found = _tidied(raw, federation=federation)
        _copy(raw, into)
    except (sqlite3.OperationalError, StorageError) as error:
        raise OutputUnwritable(f"{into} cannot be written ({error}): make room, or choose another folder") from None
    raw.unlink()
    return found


def _tidied(raw: Path, *, federation: str) -> tuple[AuditHead, set[str]]:
    """Delete from a copy what no backup is to hold, and return its log's head and the digests that it names."""
    store = open_store(raw, lambda: 0.0, lambda **_: None)
    try:
        with store.write() as tx:
            for run in tx.runs():
                for current in tx.rounds(run.id):
                    if current.state not in ENDED_ROUNDS:
                        tx.attempts.forget(run.id, current.number)
                        tx.blobs.forget_updates(run.id, current.number)
            kept = tx.blobs.kept(newest=None) & tx.blobs.named()
            tx.blobs.forget(tx.blobs.named() - kept)
            return tx.audit.head(federation), kept
    finally:
        store.close()


def _copy(database: Path, into: Path) -> None:
    """Copy one moment of a database, however busy it is, without the pages that it does not use."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("VACUUM INTO ?", (str(into),))
