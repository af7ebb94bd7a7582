"""What of the blobs may go, and when: bounded work a pass, and safe wherever it is broken off (docs/adr/0023).

A blob goes once nothing that stays names it, and its file was not written lately. A blob that is on its way to a row
has a file that was: so neither an upload nor a worker's result can lose what it has just stored. Rows go first and
files after them; a crash in between leaves a file that no row names, which a later pass, or the next start, removes.
"""

from itertools import cycle

from services.coordinator.ports import Blobs, Clock, Store
from services.coordinator.progress import SYSTEM
from services.coordinator.transaction import Transaction

# What was stored so long ago, and by nobody who still works, is on its way to no row any more.
SETTLED_SECONDS = 3600.0

# A pass looks at one of so many parts of all blobs, by how their digests begin.
BEGINNINGS = tuple(f"sha256:{number:02x}" for number in range(256))


class Retention:
    """Deletes what nobody needs, a part at a time."""

    def __init__(self, store: Store, blobs: Blobs, clock: Clock, *, keep_rounds: int | None) -> None:
        """``keep_rounds`` says of how many published rounds of each run the adapters stay; None is all of them."""
        self._store = store
        self._blobs = blobs
        self._clock = clock
        self._keep_rounds = keep_rounds
        self._beginnings = cycle(BEGINNINGS)

    def collect_next(self) -> None:
        """Look at the next part."""
        self.collect(next(self._beginnings))

    def collect(self, beginning: str) -> int:
        """Delete what may go of the blobs whose digests begin so, and return how many that were."""
        with self._store.read() as tx:
            if not self._doomed(tx, beginning):
                return 0
        with self._store.write() as tx:
            # Once more, now that nobody else writes: whoever stored one of them meanwhile has given it a new file.
            doomed = self._doomed(tx, beginning)
            written_before = self._written_before(tx)
            size = tx.blobs.forget(doomed)
            if doomed:
                tx.audit.append(SYSTEM, "blobs.deleted", "blobs", {"blobs": len(doomed), "bytes": size})
        for digest in doomed:
            self._blobs.remove(digest, written_before=written_before)
        return len(doomed)

    def _doomed(self, tx: Transaction, beginning: str) -> set[str]:
        there = self._blobs.written(beginning)
        written_before = self._written_before(tx)
        fresh = {digest for digest, at in there.items() if at >= written_before}
        return (there.keys() | tx.blobs.named(beginning)) - fresh - tx.blobs.kept(beginning, newest=self._keep_rounds)

    def _written_before(self, tx: Transaction) -> float:
        """Return the time before which a file must have been written to go: a worker's result names what it stored."""
        return min([self._clock() - SETTLED_SECONDS, *(job.created_at for job in tx.leased_jobs())])
