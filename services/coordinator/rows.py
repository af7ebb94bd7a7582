"""Rows inside one transaction: asked for, written, swapped, and every change logged where it is made.

What ``transaction`` and the tables' own modules are built on; they know the records, and this file does not.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import sqlalchemy as sa

from services.coordinator import schema
from services.coordinator.records import Detail
from shared.errors import VersionConflict
from shared.protocol.audit import NOTHING, AuditEntry, sealed

# Both are run in every change, and cost as much to build as to run; so do others that are built once (``by``).
_NEWEST = sa.select(schema.audit.c.seq, schema.audit.c.hash).order_by(schema.audit.c.seq.desc()).limit(1)
_APPEND = schema.audit.insert()


def by(*columns: sa.Column[Any]) -> sa.ColumnElement[bool]:
    """Return the condition that columns have the values of the statement's parameters of their names."""
    return sa.and_(*(column == sa.bindparam(f"{column.name}_") for column in columns))


class Versioned(Protocol):
    """A record whose row is changed by compare-and-swap."""

    @property
    def version(self) -> int:
        """How often the row has changed."""
        ...

    @property
    def state(self) -> str:
        """Where what it stands for is."""
        ...


class Rows:
    """The rows of one transaction; ``changed`` says whether it has changed something that somebody may wait for.

    ``for_agents`` says whether agents may, and ``audited`` are the audit lines that it has written.
    """

    def __init__(self, connection: sa.Connection, clock: Callable[[], float]) -> None:
        """``clock`` gives the seconds since 1970."""
        self._connection = connection
        self._clock = clock
        self.changed = False
        self.for_agents = False
        self.audited: list[AuditEntry] = []

    def now(self) -> float:
        """Return the seconds since 1970."""
        return self._clock()

    def first(self, query: sa.Select[Any], **values: str | int) -> sa.RowMapping | None:
        """Return the first row of a query's, if there is one; ``values`` are those of columns that it goes ``by``."""
        return self._connection.execute(query, {f"{name}_": value for name, value in values.items()}).mappings().first()

    def all(self, query: sa.Select[Any]) -> Sequence[sa.RowMapping]:
        """Return the rows of a query."""
        return self._connection.execute(query).mappings().all()

    def value(self, query: sa.Select[Any]) -> Any:  # noqa: ANN401 - columns differ in type
        """Return the one value that a query is for."""
        return self._connection.execute(query).scalar_one()

    def write(self, statement: sa.Insert | sa.Update | sa.Delete) -> int:
        """Change rows, and return how many were there to be changed."""
        self.changed = True
        return self.write_quietly(statement)

    def write_quietly(self, statement: sa.Insert | sa.Update | sa.Delete) -> int:
        """Change rows that nobody waits for, so that no bell is rung."""
        return self._connection.execute(statement).rowcount

    def swap(self, table: sa.Table, before: Versioned, values: dict[str, Any], *key: sa.ColumnElement[bool]) -> None:
        """Write ``values`` if the row still has the version and state that ``before`` was read with.

        Raises:
            VersionConflict: it has not.
        """
        unchanged = (table.c.version == before.version, table.c.state == before.state)
        statement = table.update().where(*key, *unchanged).values(values | {"version": before.version + 1})
        if self.write(statement) != 1:
            raise VersionConflict(f"a row of {table.name} has changed since it was read: read it and decide again")

    def log(self, run_id: str, number: int | None, kind: str, actor: str, detail: Detail) -> None:
        """Write the event of a run and its audit line."""
        event = {"run_id": run_id, "round": number, "at": self._clock(), "kind": kind, "detail": detail}
        self.write(schema.events.insert().values(event))
        self.audit(actor, kind, f"run/{run_id}" if number is None else f"run/{run_id}/round/{number}", detail)

    def audit(self, actor: str, action: str, subject: str, detail: Detail) -> None:
        """Write the audit line of a change, in the transaction of the change; no secrets and no data in it."""
        before = self.first(_NEWEST)
        line = AuditEntry(
            seq=1 if before is None else before["seq"] + 1,
            at=self._clock(),
            actor=actor,
            action=action,
            subject=subject,
            detail=detail,
            previous=NOTHING if before is None else before["hash"],
        )
        self.changed = True
        self.audited.append(line)
        self._connection.execute(_APPEND, sealed(line).model_dump() | {"detail": json.dumps(detail)})
