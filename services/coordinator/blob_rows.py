"""Which blobs something still names: what retention leaves, and what a backup holds."""

from collections.abc import Collection

import sqlalchemy as sa

from services.coordinator import schema
from services.coordinator.rows import Rows
from shared.protocol.rounds import ENDED_ROUNDS, RoundState

# What may stand in rounds' columns for an adapter.
_OF_A_ROUND = ("slm_adapter", "llm_adapter", "aggregate", "slm_candidate", "llm_candidate")


class BlobRows:
    """The blobs' rows, as far as they may go, inside one transaction."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def named(self, beginning: str = "sha256:") -> set[str]:
        """Return the digests with this beginning that have a row."""
        digest = schema.blobs.c.digest
        return {row["digest"] for row in self._rows.all(sa.select(digest).where(digest.startswith(beginning)))}

    def kept(self, beginning: str = "sha256:", *, newest: int | None) -> set[str]:
        """Return the digests with this beginning that must stay (docs/operating.md, "What is deleted by itself").

        Of each run, ``newest`` says of how many published rounds the adapters stay; None is all of them.
        """
        rounds, updates, messages = schema.rounds.c, schema.updates.c, schema.attempt_messages.c
        live, lasting = rounds.state.not_in(ENDED_ROUNDS), _lasting(newest)
        of_update = sa.and_(rounds.run_id == updates.run_id, rounds.number == updates.round)
        prepared = sa.type_coerce(schema.runs.c.prepared, sa.JSON)
        queries = [
            sa.select(schema.runs.c.slm_adapter),
            sa.select(schema.runs.c.llm_adapter),
            *(sa.select(prepared[model]["adapter"].as_string()) for model in ("slm", "llm")),
            *(sa.select(rounds[column]).where(live) for column in _OF_A_ROUND),
            *(sa.select(rounds[column]).where(lasting) for column in ("slm_candidate", "llm_candidate")),
            sa.select(rounds.aggregate).where(lasting, rounds.shared_with.is_not(None)),
            sa.select(updates.digest).join(schema.rounds, of_update).where(live),
            sa.select(messages.body).where(messages.stage == RoundState.MASKED),
            sa.select(schema.promotions.c.digest),
        ]
        [digest] = sa.union_all(*queries).subquery().c
        wanted = sa.select(digest.label("digest")).where(digest.startswith(beginning))
        return {row["digest"] for row in self._rows.all(wanted)}

    def forget_updates(self, run_id: str, number: int) -> None:
        """Delete the readable updates of a round; their blobs are named by nothing then, or by something else."""
        updates = schema.updates
        self._rows.write_quietly(updates.delete().where(updates.c.run_id == run_id, updates.c.round == number))

    def forget(self, digests: Collection[str]) -> int:
        """Delete the rows of blobs that nothing names any more, and return how many bytes those have."""
        blobs, updates = schema.blobs, schema.updates
        query = sa.select(sa.func.sum(blobs.c.bytes)).where(blobs.c.digest.in_(digests))
        size = self._rows.value(query) or 0
        self._rows.write_quietly(updates.delete().where(updates.c.digest.in_(digests)))
        self._rows.write_quietly(blobs.delete().where(blobs.c.digest.in_(digests)))
        return int(size)


def _lasting(newest: int | None) -> sa.ColumnElement[bool]:
    """Return whether a round has published adapters that stay: it is among the newest, or agents hold its adapter."""
    rounds, other, pinned = schema.rounds.c, schema.rounds.alias(), schema.promotions.c
    published = rounds.state == RoundState.PUBLISHED
    if newest is None:
        return published
    of_run = sa.select(other.c.number).where(other.c.run_id == rounds.run_id, other.c.state == RoundState.PUBLISHED)
    youngest = of_run.order_by(other.c.number.desc()).limit(newest).correlate(schema.rounds)
    held = sa.exists().where(pinned.run_id == rounds.run_id, pinned.round == rounds.number)
    return sa.and_(published, sa.or_(rounds.number.in_(youngest), held))
