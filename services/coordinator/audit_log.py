"""What others may see of the audit log, and the coordinator's word for it (docs/protocol.md, "Audit")."""

from pathlib import Path

from services.coordinator.ports import Store
from shared.key_file import keep_key, key_of
from shared.protocol.audit import AuditPage, SignedHead, sign_head
from shared.protocol.identity import IdentityKey


def coordinator_key(data_dir: Path) -> IdentityKey:
    """Return the coordinator's own key, which lies beside its database; a new one at its first start."""
    file = data_dir / "coordinator.key"
    key = key_of(file)
    keep_key(file, key)
    return key


class AuditLog:
    """The audit log of one coordinator."""

    def __init__(self, store: Store, key: IdentityKey, *, federation: str) -> None:
        """``key`` is the coordinator's own."""
        self._store = store
        self._key = key
        self._federation = federation
        self._signed: SignedHead | None = None

    def head(self) -> SignedHead:
        """Return the newest entry's number and hash, signed."""
        with self._store.read() as tx:
            head = tx.audit.head(self._federation)
        signed = self._signed
        if signed is None or signed.head != head:  # agents ask more often than there is something new to sign
            signed = self._signed = sign_head(self._key, head)
        return signed

    def page(self, *, after: int, limit: int) -> AuditPage:
        """Return entries whose number is above ``after``, oldest first.

        Raises:
            AuditBroken: somebody has made of one what is no entry any more.
        """
        with self._store.read() as tx:
            return AuditPage(entries=tuple(tx.audit.entries(after=after, limit=limit)))
