"""The audit log's rows; ``Rows.audit`` writes them all, each in the transaction of its change."""

import json

import sqlalchemy as sa

from services.coordinator import schema
from services.coordinator.records import Detail
from services.coordinator.rows import Rows
from shared.errors import AuditBroken, NotFound
from shared.protocol.audit import NOTHING, AuditEntry, AuditHead


class AuditRows:
    """The audit log inside one transaction."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def append(self, actor: str, action: str, subject: str, detail: Detail) -> None:
        """Log a change that is no run's, round's or member's."""
        self._rows.audit(actor, action, subject, detail)

    def entries(self, *, after: int, limit: int) -> list[AuditEntry]:
        """Return the entries whose number is above ``after``, oldest first.

        Raises:
            AuditBroken: somebody has made of one what is no entry any more.
        """
        table = schema.audit.c
        query = sa.select(schema.audit).where(table.seq > after).order_by(table.seq).limit(limit)
        return [_entry(row) for row in self._rows.all(query)]

    def entry(self, action: str, subject: str) -> AuditEntry:
        """Return the newest entry that says that this was done to this, or raise NotFound."""
        table = schema.audit.c
        query = sa.select(schema.audit).where(table.subject == subject, table.action == action)
        row = self._rows.first(query.order_by(table.seq.desc()).limit(1))
        if row is None:
            raise NotFound(f"the audit log has no {action} of {subject}")
        return _entry(row)

    def head(self, federation: str) -> AuditHead:
        """Return the log's head as it is now."""
        table = schema.audit.c
        row = self._rows.first(sa.select(table.seq, table.hash, table.at).order_by(table.seq.desc()).limit(1))
        return AuditHead(federation=federation, **row or {"seq": 0, "hash": NOTHING, "at": 0.0})


def _entry(row: sa.RowMapping) -> AuditEntry:
    try:
        return AuditEntry.model_validate({**row, "detail": json.loads(row["detail"])})
    except ValueError:
        raise AuditBroken(f"entry {row['seq']} of the audit log was changed: it cannot be read any more") from None
