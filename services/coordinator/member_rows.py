"""The members' rows: who belongs to the federation, each change by compare-and-swap and with its audit line."""

from collections.abc import Collection
from dataclasses import asdict, replace

import sqlalchemy as sa

from services.coordinator import schema
from services.coordinator.records import Detail, Member
from services.coordinator.rows import Rows, by
from shared.errors import NotFound
from shared.protocol.membership import MemberState

# Asked with every request of an agent's.
_BY_NAME = sa.select(schema.members).where(by(schema.members.c.name))


class MemberRows:
    """Members inside one transaction."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def get(self, name: str) -> Member:
        """Return a member, or raise NotFound."""
        row = self._rows.first(_BY_NAME, name=name)
        member = None if row is None else _member(row)
        if member is None:
            raise NotFound(f"this federation has no agent {name!r}: list the agents to see which there are")
        return member

    def named(self, names: Collection[str]) -> list[Member]:
        """Return the members of these names, by name."""
        query = sa.select(schema.members).where(schema.members.c.name.in_(names)).order_by(schema.members.c.name)
        return [_member(row) for row in self._rows.all(query)]

    def by_invitation(self, digest: str) -> Member | None:
        """Return who was invited by the token with this digest, if anybody was."""
        return self._first(schema.members.c.invitation == digest)

    def all(self) -> list[Member]:
        """Return all members, by name."""
        return [_member(row) for row in self._rows.all(sa.select(schema.members).order_by(schema.members.c.name))]

    def page(self, *, after: str, limit: int) -> list[Member]:
        """Return the members whose names come after one, by name."""
        table = schema.members.c
        query = sa.select(schema.members).where(table.name > after).order_by(table.name).limit(limit)
        return [_member(row) for row in self._rows.all(query)]

    def names_by_state(self) -> dict[MemberState, list[str]]:
        """Return who is in which state; every state is there."""
        names: dict[MemberState, list[str]] = {state: [] for state in MemberState}
        for row in self._rows.all(sa.select(schema.members.c.name, schema.members.c.state)):
            names[MemberState(row["state"])].append(row["name"])
        return names

    def current(self) -> list[str]:
        """Return who may take part now, by name."""
        query = sa.select(schema.members.c.name).where(sa.not_(is_former(self._rows.now())))
        return [row["name"] for row in self._rows.all(query.order_by(schema.members.c.name))]

    def former(self, names: Collection[str]) -> list[str]:
        """Return who of these may take part in nothing any more, by name."""
        table = schema.members.c
        query = sa.select(table.name).where(table.name.in_(names), is_former(self._rows.now())).order_by(table.name)
        return [row["name"] for row in self._rows.all(query)]

    def insert(self, member: Member, *, actor: str) -> None:
        """Add a member."""
        self._rows.write(schema.members.insert().values(asdict(member)))
        self._log(member, actor, {})

    def change(self, member: Member, into: Member, *, actor: str, detail: Detail | None = None) -> Member:
        """Change a member that is still as it was read, or raise VersionConflict."""
        changed = replace(into, changed_at=self._rows.now(), version=member.version + 1)
        self._rows.swap(schema.members, member, asdict(changed), schema.members.c.name == member.name)
        self._log(changed, actor, detail or {})
        return changed

    def _first(self, where: sa.ColumnElement[bool]) -> Member | None:
        row = self._rows.first(sa.select(schema.members).where(where))
        return None if row is None else _member(row)

    def _log(self, member: Member, actor: str, detail: Detail) -> None:
        # The key is in the line, because who was let in with which one is what an audit asks.
        self._rows.audit(actor, f"member.{member.state}", f"member/{member.name}", {"key": member.key, **detail})


def is_former(now: float) -> sa.ColumnElement[bool]:
    """Return the condition of being no member at ``now``: not approved, or until a time that is over."""
    table = schema.members.c
    return sa.or_(table.state != MemberState.APPROVED, table.not_after < now)


def _member(row: sa.RowMapping) -> Member:
    return Member(**{**row, "state": MemberState(row["state"])})
