"""What an agent remembers of the coordinator's audit log: its heads, and two that contradict each other."""

from pathlib import Path

from pydantic import BaseModel, ValidationError

from shared.folders import appending, write_whole
from shared.protocol.audit import SignedHead
from shared.protocol.terms import FROZEN

# Some 180,000 heads. A coordinator that tells more gets no newer ones kept, and no older ones away.
MOST_HEADS_BYTES = 1 << 26


class AuditContradiction(BaseModel):
    """Why a head that was told cannot be of the log whose head is known: with both signatures, for others to see."""

    known: SignedHead
    told: SignedHead | None
    why: str
    model_config = FROZEN


class AuditHeads:
    """The heads that one agent was told, in its state folder."""

    def __init__(self, root: Path) -> None:
        self._heads = root / "audit-heads.jsonl"
        self._newest = root / "audit-head.json"
        self._broken = root / "audit-broken.json"

    @property
    def newest(self) -> SignedHead | None:
        """The newest head; None before the first, or where the file was damaged."""
        try:
            return SignedHead.model_validate_json(self._newest.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def keep(self, head: SignedHead) -> None:
        """Remember the newest head, beside those before it."""
        self.keep_older(head)
        write_whole(self._newest, head.model_dump_json().encode())

    def keep_older(self, head: SignedHead) -> None:
        """Keep a head beside the others, while there is room for them: whoever verifies the log has them all."""
        if not self._heads.exists() or self._heads.stat().st_size < MOST_HEADS_BYTES:
            with appending(self._heads) as (_, append):
                append(head.model_dump_json().encode())

    @property
    def contradiction(self) -> AuditContradiction | None:
        """Two heads that cannot be of one log, if this agent was told such."""
        try:
            return AuditContradiction.model_validate_json(self._broken.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def keep_contradiction(self, found: AuditContradiction) -> None:
        """Keep two heads that cannot be of one log, until somebody takes the file away."""
        write_whole(self._broken, found.model_dump_json().encode())
