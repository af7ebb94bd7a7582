"""The audit log is a chain: each entry's hash covers the entry and the hash before it (docs/protocol.md, "Audit").

So the newest hash stands for the whole log: whoever remembers it sees whether anything at or before that entry was
changed, put in, taken out, moved or cut off. The coordinator signs it, as the log's *head*.
"""

from typing import Annotated

from pydantic import BaseModel, Field, JsonValue

from shared.errors import AuditBroken
from shared.protocol.digests import Digest, digest_of
from shared.protocol.identity import IdentityKey, PublicKey, Signature, fingerprint, require_signature, signed_bytes
from shared.protocol.names import PrincipalName
from shared.protocol.terms import FROZEN

# What stands for the entry before the first.
NOTHING = f"sha256:{'0' * 64}"

MOST_ENTRIES_A_PAGE = 500

_HEAD = "audit-head"


class AuditEntry(BaseModel):
    """Who did what to what, and when; ``previous`` is the hash of the entry before, and ``hash`` this one's."""

    seq: Annotated[int, Field(ge=1)]
    at: Annotated[float, Field(allow_inf_nan=False)]
    actor: str
    action: str
    subject: str
    detail: dict[str, JsonValue]
    previous: Digest
    hash: Digest = NOTHING
    model_config = FROZEN


class AuditPage(BaseModel):
    """Entries of the audit log, oldest first."""

    entries: tuple[AuditEntry, ...]
    model_config = FROZEN


class AuditHead(BaseModel):
    """The newest entry of a federation's audit log, by number, hash and time; 0 and ``NOTHING`` where there is none."""

    federation: PrincipalName
    seq: Annotated[int, Field(ge=0)]
    hash: Digest
    at: Annotated[float, Field(allow_inf_nan=False)]
    model_config = FROZEN


class SignedHead(BaseModel):
    """A head, and the signature of the coordinator, whose key this is."""

    head: AuditHead
    key: PublicKey
    signature: Signature
    model_config = FROZEN


def entry_hash(entry: AuditEntry) -> str:
    """Return the hash that an entry must have: over everything in it but the hash itself."""
    return digest_of(signed_bytes("audit-entry", entry, without="hash"))


def sealed(entry: AuditEntry) -> AuditEntry:
    """Return an entry with its hash."""
    return entry.model_copy(update={"hash": entry_hash(entry)})


def sign_head(key: IdentityKey, head: AuditHead) -> SignedHead:
    """Sign a head, as the coordinator."""
    return SignedHead(head=head, key=key.public, signature=key.sign(_HEAD, head))


def require_head(told: SignedHead, *, known: SignedHead | None) -> None:
    """Raise unless a head is signed, and may be one that came after the ``known`` one of the same log.

    Raises:
        SignatureInvalid: the key in it has not signed it.
        AuditBroken: it contradicts the known one.
    """
    head = told.head
    require_signature(told.key, _HEAD, head, told.signature, what=f"the audit log's head at entry {head.seq}")
    if known is not None:
        require_later(told, known)


def require_later(told: SignedHead, known: SignedHead) -> None:
    """Raise AuditBroken if a head contradicts the ``known`` one of the same log; their signatures are taken as good."""
    head, before = told.head, known.head
    if told.key != known.key or head.federation != before.federation:
        raise AuditBroken(
            f"this is the audit log of {head.federation}, signed by {fingerprint(told.key)}, and before it was that of "
            f"{before.federation}, signed by {fingerprint(known.key)}: ask the operator whether the coordinator was "
            "set up anew"
        )
    if head.seq < before.seq:
        raise AuditBroken(
            f"the audit log ends at entry {head.seq}, and before it had {before.seq}: its end was cut off, or an older "
            "copy was put in its place"
        )
    if head.seq == before.seq and head.hash != before.hash:
        raise AuditBroken(f"entry {head.seq} of the audit log is another one than before: the log was rewritten")


class Chain:
    """An audit log that is checked entry by entry, from the first on."""

    def __init__(self, *heads: AuditHead) -> None:
        """The log must pass through each of ``heads``."""
        self._hashes: dict[int, set[str]] = {}
        for head in heads:
            self._hashes.setdefault(head.seq, set()).add(head.hash)
        self.seq = 0
        self._hash = NOTHING

    def append(self, entry: AuditEntry) -> None:
        """Check the next entry.

        Raises:
            AuditBroken: it is the first wrong one.
        """
        due = self.seq + 1
        if entry.seq != due:
            raise AuditBroken(
                f"where entry {due} of the audit log should be is entry {entry.seq}: entries were taken out, put in "
                "or moved"
            )
        if entry_hash(entry) != entry.hash:
            raise AuditBroken(f"entry {due} of the audit log was changed: its hash is not that of what it says")
        if entry.previous != self._hash:
            raise AuditBroken(
                f"entry {due} of the audit log does not follow on entry {self.seq}: one of them was changed or replaced"
            )
        self.seq, self._hash = due, entry.hash
        self._require_heads()

    def require_whole(self) -> None:
        """Raise unless the log has reached all its heads.

        Raises:
            AuditBroken: its end is missing.
        """
        last = max(self._hashes, default=0)
        if self.seq < last:
            raise AuditBroken(f"entry {self.seq + 1} of the audit log is missing, and all after it: there were {last}")

    def _require_heads(self) -> None:
        if self._hashes.get(self.seq, {self._hash}) != {self._hash}:
            raise AuditBroken(
                f"entry {self.seq} of the audit log is another one than was signed: it or entries before it were "
                "rewritten"
            )
