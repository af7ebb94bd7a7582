"""The store, counted: what metrics are made of. Each is one query, and none gives a row for every agent or update."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from services.coordinator import schema
from services.coordinator.records import JobState
from services.coordinator.rows import Rows
from shared.protocol.rounds import ENDED_ROUNDS, RunState


@dataclass(frozen=True)
class Sent:
    """What agents have sent to all rounds together, but that an open round may still lose what it has accepted."""

    accepted: int
    refused: int
    late: int


@dataclass(frozen=True)
class Leases:
    """Leases of all work together: how many were given, and how many of those ended without a result."""

    given: int
    lost: int


@dataclass(frozen=True)
class Stored:
    """Blobs that have a row."""

    blobs: int
    bytes: int


class CountRows:
    """Counts inside one transaction."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def runs(self) -> Mapping[str, int]:
        """Return how many runs there are by state."""
        return self._by_state(schema.runs)

    def rounds(self) -> Mapping[str, int]:
        """Return how many rounds there are by state."""
        return self._by_state(schema.rounds)

    def jobs(self) -> Mapping[str, int]:
        """Return how many pieces of work there are by state."""
        return self._by_state(schema.jobs)

    def members(self) -> Mapping[str, int]:
        """Return how many agents there are by state."""
        return self._by_state(schema.members)

    def sent(self) -> Sent:
        """Return what agents have sent."""
        rounds = schema.rounds.c
        accepted = sa.case((rounds.state.in_(ENDED_ROUNDS), rounds.accepted), else_=0)
        return Sent(**self._sums(accepted=accepted, refused=rounds.refused, late=rounds.late))

    def leases(self) -> Leases:
        """Return what has become of leases; a job's token counts its own, and the newest of one not pending is good."""
        jobs = schema.jobs.c
        lost = sa.case((jobs.state == JobState.PENDING, jobs.token), (jobs.token > 0, jobs.token - 1), else_=0)
        return Leases(**self._sums(given=jobs.token, lost=lost))

    def waiting_since(self) -> float | None:
        """Return since when the oldest work of a running run waits for a worker, if any does."""
        query: sa.Select[Any] = sa.select(sa.func.min(schema.jobs.c.created_at)).join(schema.runs)
        running = (schema.jobs.c.state == JobState.PENDING, schema.runs.c.state == RunState.RUNNING)
        since: float | None = self._rows.value(query.where(*running))
        return since

    def stored(self) -> Stored:
        """Return how much is stored as blobs."""
        blobs = schema.blobs.c
        return Stored(**self._sums(blobs=sa.literal(1), bytes=blobs.bytes))

    def audit_entries(self) -> int:
        """Return how long the audit log is."""
        return self._rows.value(sa.select(sa.func.max(schema.audit.c.seq))) or 0

    def moments_of_ended_rounds(self) -> Iterator[Mapping[str, float]]:
        """Yield when each round that has ended came into each of its states."""
        query = sa.select(schema.rounds.c.entered).where(schema.rounds.c.state.in_(ENDED_ROUNDS))
        for row in self._rows.all(query):
            yield row["entered"]

    def _by_state(self, table: sa.Table) -> Mapping[str, int]:
        query = sa.select(table.c.state, sa.func.count().label("count")).group_by(table.c.state)
        return {row["state"]: row["count"] for row in self._rows.all(query)}

    def _sums(self, **columns: sa.ColumnElement[Any]) -> dict[str, int]:
        query = sa.select(*(sa.func.sum(column).label(name) for name, column in columns.items()))
        return {name: total or 0 for name, total in (self._rows.first(query) or {}).items()}
