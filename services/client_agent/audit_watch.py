"""Whether the coordinator's audit log stays one log, as far as an agent can see (docs/protocol.md, "Audit").

The coordinator tells every agent its log's head. An agent sees by itself where that is older than the newest one that
it knows, or another one at the same entry. A log that was rewritten and has grown since it cannot see so: for that it
keeps every head, and whoever verifies the log with them sees which of them is not of it.
"""

import structlog

from services.client_agent.audit_heads import AuditContradiction, AuditHeads
from services.client_agent.status import Status
from shared.errors import AuditBroken, SignatureInvalid
from shared.protocol.audit import SignedHead, require_head

NOT_TOLD = "the coordinator does not tell the head of its audit log any more"

log = structlog.get_logger()


class AuditWatch:
    """The newest head that this agent was told, and what contradicts it."""

    def __init__(self, heads: AuditHeads, status: Status) -> None:
        self._heads = heads
        self._status = status
        self._known = self._told = heads.newest
        if (contradiction := heads.contradiction) is not None:
            status.audit_broken = contradiction.why

    def see(self, told: SignedHead | None) -> None:
        """Remember a head; or say, and go on saying, why it cannot be of the log that this agent knows."""
        if told == self._told:
            return
        self._told = told
        why = NOT_TOLD if told is None else _contradiction(told, self._known)
        if why is not None:
            self._break(told, why)
        elif told is not None:
            self._known = told
            self._heads.keep(told)

    def see_of_card(self, head: SignedHead) -> None:
        """Remember a head that a model card shows, which need not be the newest; or say that it is of another log."""
        known = self._known
        if known is not None and (head.key, head.head.federation) != (known.key, known.head.federation):
            self._break(head, f"a model card shows another audit log: {_contradiction(head, known)}")
            return
        self._heads.keep_older(head)

    def _break(self, told: SignedHead | None, why: str) -> None:
        log.error("agent.audit_broken", detail=why)
        self._status.audit_broken = why
        if self._known is not None and self._heads.contradiction is None:
            self._heads.keep_contradiction(AuditContradiction(known=self._known, told=told, why=why))


def _contradiction(told: SignedHead, known: SignedHead | None) -> str | None:
    try:
        require_head(told, known=known)
    except (AuditBroken, SignatureInvalid) as error:
        return str(error)
    return None
