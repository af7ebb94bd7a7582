"""Which signed requests have come already: nonces, each remembered for as long as its signature holds.

In a file of its own, apart from the store: a nonce is written for every request and survives kill -9, but is not
synced. A power cut may lose those of the last moments; a request that is repeated then changes nothing twice, like any
other (docs/protocol.md, "Retries").
"""

import sqlite3
from pathlib import Path

from services.coordinator.store import no_storage
from shared.errors import ConfigurationError, RequestReplayed

SCHEMA = """
CREATE TABLE IF NOT EXISTS nonces (
    name TEXT NOT NULL, nonce TEXT NOT NULL, until REAL NOT NULL, PRIMARY KEY (name, nonce)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS nonces_until ON nonces (until);
"""


class Nonces:
    """The nonces of one coordinator."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it.

        Raises:
            ConfigurationError: it is there, and is something else.
        """
        try:
            self._requests, self._cleaning = _open(path), _open(path)
            self._requests.executescript(SCHEMA)
        except sqlite3.DatabaseError as error:
            raise ConfigurationError(
                f"{path} cannot be used ({error}): stop the coordinator for two minutes, delete it and start again; "
                "it only holds which requests of the last minutes have come"
            ) from None

    def remember(self, name: str, nonce: str, *, until: float) -> None:
        """Take note of a nonce, in microseconds; to be called from one thread.

        Raises:
            RequestReplayed: this signer has used it before.
            StorageFull, StorageReadOnly: the disk takes nothing more.
        """
        try:
            self._requests.execute("INSERT INTO nonces VALUES (?, ?, ?)", (name, nonce, until))
        except sqlite3.IntegrityError:
            raise RequestReplayed(
                f"this very request of {name} has come before: each attempt is to be signed anew, and if it was, "
                "somebody on the way repeats requests"
            ) from None
        except sqlite3.OperationalError as error:
            raise no_storage(error) or error from error

    def forget(self, now: float) -> None:
        """Forget what no longer holds at ``now`` (seconds since 1970), and tidy up; in a thread, once in a while."""
        self._cleaning.execute("DELETE FROM nonces WHERE until < ?", (now,))
        self._cleaning.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def close(self) -> None:
        """Close the file."""
        self._requests.close()
        self._cleaning.close()


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    # What a checkpoint syncs takes as long as a disk takes: that is left to ``forget``, which nobody waits for.
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "wal_autocheckpoint=0"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    return connection
