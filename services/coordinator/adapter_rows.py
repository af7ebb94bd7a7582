"""Published adapters, which are rounds' and runs' rows, and the row that says which of them the agents hold."""

import json
from collections.abc import Collection

import sqlalchemy as sa

from services.coordinator import schema
from services.coordinator.rows import Rows
from shared.errors import NotFound
from shared.protocol.membership import RoundPlace
from shared.protocol.messages import PublishedAdapter, RoundScores
from shared.protocol.published import PublishedView
from shared.protocol.rounds import RoundState

# The one row of its table.
PINNED = 1
_PINNED = sa.select(schema.promotions.c.run_id, schema.promotions.c.round, schema.promotions.c.digest).where(
    schema.promotions.c.id == PINNED
)


class AdapterRows:
    """Published adapters inside one transaction."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def newest(self, but: Collection[str] = ()) -> PublishedAdapter | None:
        """Return what the newest run that has published a round published last, of runs but these.

        theta^0, which is untrained, does not count.
        """
        table = schema.runs.c
        there = sa.select(table.id, table.published_round, table.slm_adapter)
        query = there.where(table.published_round > 0, table.id.not_in(but)).order_by(table.created_at.desc(), table.id)
        row = self._rows.first(query.limit(1))
        if row is None:
            return None
        return PublishedAdapter(run_id=row["id"], round=row["published_round"], digest=row["slm_adapter"])

    def pinned(self) -> PublishedAdapter | None:
        """Return the adapter that an operator has chosen for the agents, if one has."""
        row = self._rows.first(_PINNED)
        return None if row is None else PublishedAdapter.model_validate(dict(row))

    def pin(self, chosen: PublishedAdapter | None, *, actor: str) -> None:
        """Choose the adapter that agents hold from now on, or with None the newest, whichever that is."""
        self._rows.for_agents = True
        self._rows.write(schema.promotions.delete())
        if chosen is None:
            self._rows.audit(actor, "adapter.unpinned", "adapters", {})
            return
        self._rows.write(schema.promotions.insert().values({"id": PINNED, **chosen.model_dump()}))
        subject = f"run/{chosen.run_id}/round/{chosen.round}"
        self._rows.audit(actor, "adapter.pinned", subject, {"slm_adapter": chosen.digest})

    def of_round(self, run_id: str, number: int) -> PublishedAdapter:
        """Return the adapter that a round has published, if it is still kept, or raise NotFound."""
        table = schema.rounds.c
        published = (table.run_id == run_id, table.number == number, table.state == RoundState.PUBLISHED)
        kept = schema.blobs.c.digest == table.slm_candidate
        row = self._rows.first(sa.select(table.slm_candidate).join(schema.blobs, kept).where(*published))
        if row is None:
            raise NotFound(
                f"round {number} of run {run_id!r} has published no adapter, or it is kept no more: list those that "
                "there are"
            )
        return PublishedAdapter(run_id=run_id, round=number, digest=row["slm_candidate"])

    def is_published(self, digest: str) -> bool:
        """Return whether ``digest`` names an SLM adapter that some run has published, and that is still kept.

        It is theta^0 or a later theta^t.
        """
        if self._rows.first(sa.select(schema.blobs.c.digest).where(schema.blobs.c.digest == digest)) is None:
            return False
        table = schema.rounds.c
        published = sa.or_(
            sa.and_(table.state == RoundState.PUBLISHED, table.slm_candidate == digest), table.slm_adapter == digest
        )
        if self._rows.first(sa.select(table.number).where(published).limit(1)):
            return True
        newest = sa.select(schema.runs.c.id).where(schema.runs.c.slm_adapter == digest).limit(1)
        return self._rows.first(newest) is not None

    def shared_aggregate(self, run_id: str, number: int, agent: str) -> str | None:
        """Return the digest of the aggregate of a round that has published, if it is shared with this agent."""
        table = schema.rounds.c
        published = (table.run_id == run_id, table.number == number, table.state == RoundState.PUBLISHED)
        row = self._rows.first(sa.select(table.aggregate, table.shared_with).where(*published))
        return row["aggregate"] if row is not None and agent in (row["shared_with"] or ()) else None

    def page(self, *, run_id: str | None, before: RoundPlace | None, limit: int) -> list[PublishedView]:
        """Return published adapters, of one run or of all: those of newer runs first, of a run its newer rounds.

        ``before`` is a round that has published one; the page begins after it.
        """
        rounds, runs, blobs = schema.rounds.c, schema.runs.c, schema.blobs.c
        query = (
            sa.select(schema.rounds, runs.created_at, runs.terms, blobs.bytes)
            .join(schema.runs, runs.id == rounds.run_id)
            .join(schema.blobs, blobs.digest == rounds.slm_candidate)
            .where(rounds.state == RoundState.PUBLISHED)
            .order_by(runs.created_at.desc(), runs.id, rounds.number.desc())
            .limit(limit)
        )
        if run_id is not None:
            query = query.where(rounds.run_id == run_id)
        if before is not None:
            created_at = sa.select(runs.created_at).where(runs.id == before.run_id).scalar_subquery()
            query = query.where(
                sa.or_(
                    runs.created_at < created_at,
                    sa.and_(runs.created_at == created_at, runs.id > before.run_id),
                    sa.and_(runs.id == before.run_id, rounds.number < before.round),
                )
            )
        return [_view(row) for row in self._rows.all(query)]


def _view(row: sa.RowMapping) -> PublishedView:
    return PublishedView(
        run_id=row["run_id"],
        run_name=json.loads(row["terms"])["name"],
        round=row["number"],
        slm_adapter=row["slm_candidate"],
        llm_adapter=row["llm_candidate"],
        bytes=row["bytes"],
        published_at=row["entered"][RoundState.PUBLISHED],
        scores=None if row["scores"] is None else RoundScores.model_validate_json(row["scores"]),
    )
