"""The rows of secure aggregation: who is ready, the attempts of a round, and what their members have sent."""

from collections.abc import Collection
from dataclasses import replace
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from services.coordinator import schema
from services.coordinator.member_rows import is_former
from services.coordinator.records import Attempt, Round
from services.coordinator.rows import Rows, by
from shared.protocol.rounds import STAGES, RoundState
from shared.protocol.secagg.attempt import AttemptTerms, Roster

# Asked with every request of a member's.
_READY = sa.select(schema.ready).where(by(schema.ready.c.run_id, schema.ready.c.round, schema.ready.c.agent))
_OF_AGENT = (
    sa.select(schema.attempts)
    .join(
        schema.ready,
        (schema.attempts.c.run_id == schema.ready.c.run_id)
        & (schema.attempts.c.round == schema.ready.c.round)
        & (schema.attempts.c.group == schema.ready.c.group),
    )
    .where(by(schema.ready.c.run_id, schema.ready.c.round, schema.ready.c.agent, schema.attempts.c.number))
)
_MESSAGE = sa.select(schema.attempt_messages.c.body).where(by(*schema.attempt_messages.primary_key.columns))


class AttemptRows:
    """Secure aggregation inside one transaction."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    # --- who is ready -------------------------------------------------------------------------------------------

    def ready(self, current: Round) -> list[str]:
        """Return the agents that are ready for a round, by name; those that are barred from it are not."""
        table = schema.ready.c
        query = sa.select(table.agent).where(*self._of_round(schema.ready, current), table.barred.is_(None))
        return [row["agent"] for row in self._rows.all(query.order_by(table.agent))]

    def ready_but_gone(self, current: Round) -> list[str]:
        """Return who of those that are ready may take part in nothing any more, by name."""
        table = schema.ready.c
        of_member = schema.members.c.name == table.agent
        query = sa.select(table.agent).join(schema.members, of_member).where(*self._of_round(schema.ready, current))
        query = query.where(table.barred.is_(None), is_former(self._rows.now())).order_by(table.agent)
        return [row["agent"] for row in self._rows.all(query)]

    def is_ready(self, current: Round, agent: str) -> bool:
        """Return whether an agent has said that it is ready, or is barred from the round."""
        return self._ready(current, agent) is not None

    def barred(self, current: Round, agent: str) -> str | None:
        """Return why an agent may take no part in a round any more, if that is so."""
        row = self._ready(current, agent)
        return None if row is None else row["barred"]

    def add_ready(self, current: Round, agent: str) -> None:
        """Note that an agent is ready."""
        self._rows.write(schema.ready.insert().values(run_id=current.run_id, round=current.number, agent=agent))

    def remove_ready(self, current: Round, agent: str) -> None:
        """Forget that an agent was ready: it fell silent, and is asked again."""
        where = (*self._of_round(schema.ready, current), schema.ready.c.agent == agent)
        self._rows.write(schema.ready.delete().where(*where))

    def bar(self, current: Round, agent: str, reason: str) -> None:
        """Let an agent take no part in a round any more."""
        where = (*self._of_round(schema.ready, current), schema.ready.c.agent == agent)
        self._rows.write(schema.ready.update().where(*where).values(barred=reason))

    # --- attempts -----------------------------------------------------------------------------------------------

    def of(self, current: Round) -> list[Attempt]:
        """Return the attempts that are going on in a round, a group each."""
        table = schema.attempts
        where = (*self._of_round(table, current), table.c.number == current.attempt)
        return [_attempt(row) for row in self._rows.all(sa.select(table).where(*where).order_by(table.c.group))]

    def of_agent(self, current: Round, agent: str) -> Attempt | None:
        """Return the attempt of an agent's group, of those that are going on in a round; None where it is in none."""
        row = self._rows.first(
            _OF_AGENT, run_id=current.run_id, round=current.number, number=current.attempt, agent=agent
        )
        return None if row is None else _attempt(row)

    def insert(self, attempt: Attempt) -> None:
        """Add an attempt of agents that are ready."""
        self._rows.write(schema.attempts.insert().values(_values(attempt)))
        ready = schema.ready
        members = (ready.c.run_id == attempt.run_id, ready.c.round == attempt.round, ready.c.agent.in_(attempt.members))
        self._rows.write(ready.update().where(*members).values(group=attempt.group))

    def change(self, attempt: Attempt, **changes: Any) -> Attempt:  # noqa: ANN401 - columns differ in type
        """Change an attempt; whoever does that has changed its round by compare-and-swap."""
        changed, table = replace(attempt, **changes), schema.attempts.c
        key = (
            table.run_id == attempt.run_id,
            table.round == attempt.round,
            table.number == attempt.number,
            table.group == attempt.group,
        )
        self._rows.write(schema.attempts.update().where(*key).values(_values(changed)))
        return changed

    # --- messages -----------------------------------------------------------------------------------------------

    def message(self, current: Round, attempt: int, stage: str, agent: str) -> str | None:
        """Return what an agent has sent at a stage of an attempt, if it has."""
        row = self._rows.first(
            _MESSAGE, run_id=current.run_id, round=current.number, attempt=attempt, stage=stage, agent=agent
        )
        return None if row is None else row["body"]

    def messages(self, current: Round, stage: str, agents: Collection[str]) -> dict[str, str]:
        """Return what these agents have sent at a stage of the attempt that is going on, by their names."""
        table = schema.attempt_messages
        query = sa.select(table.c.agent, table.c.body).where(*self._at_stage(current, stage), table.c.agent.in_(agents))
        return {row["agent"]: row["body"] for row in self._rows.all(query.order_by(table.c.agent))}

    def sealed_for(self, current: Round, holder: str, dealers: Collection[str]) -> dict[str, str]:
        """Return what each of these dealers has sealed for one member, and nothing of what is for the others."""
        table = schema.attempt_messages.c
        sealed = sa.type_coerce(table.body, sa.JSON)["sealed"][holder].as_string().label("sealed")
        query = sa.select(table.agent, sealed).where(
            *self._at_stage(current, RoundState.SHARES), table.agent.in_(dealers)
        )
        return {row["agent"]: row["sealed"] for row in self._rows.all(query.order_by(table.agent))}

    def senders(self, current: Round, stage: str) -> set[str]:
        """Return who has sent something at a stage of the attempt that is going on."""
        query = sa.select(schema.attempt_messages.c.agent).where(*self._at_stage(current, stage))
        return {row["agent"] for row in self._rows.all(query)}

    def have_sent(self, current: Round, stage: str, agents: Collection[str]) -> bool:
        """Return whether all of these have sent something at a stage of the attempt that is going on."""
        sent = schema.attempt_messages.c.agent.in_(agents)
        query = sa.select(sa.func.count()).select_from(schema.attempt_messages)
        return bool(self._rows.value(query.where(*self._at_stage(current, stage), sent)) == len(agents))

    def add_message(self, current: Round, stage: str, agent: str, body: str) -> None:
        """Keep a message; nobody waits for one alone, so no bell is rung."""
        self._rows.write_quietly(
            schema.attempt_messages.insert().values(
                run_id=current.run_id,
                round=current.number,
                attempt=current.attempt,
                stage=stage,
                agent=agent,
                body=body,
            )
        )

    def spent(self) -> list[tuple[str, int]]:
        """Return the rounds, by run and number, that are past their attempts and have rows of them."""
        rounds, table = schema.rounds, schema.attempts
        of_round = (table.c.run_id == rounds.c.run_id) & (table.c.round == rounds.c.number)
        query = sa.select(table.c.run_id, table.c.round).join(rounds, of_round).distinct()
        live = (RoundState.OPEN, *STAGES)
        return [(row["run_id"], row["round"]) for row in self._rows.all(query.where(rounds.c.state.not_in(live)))]

    def forget(self, run_id: str, number: int) -> list[str]:
        """Delete all that is known of a round's attempts, and return the digests of the vectors to delete."""
        messages, blobs = schema.attempt_messages.c, schema.blobs
        masked = sa.select(messages.body).where(messages.run_id == run_id, messages.round == number)
        digests = [row["body"] for row in self._rows.all(masked.where(messages.stage == RoundState.MASKED))]
        for table in (schema.attempt_messages, schema.attempts, schema.ready):
            self._rows.write_quietly(table.delete().where(table.c.run_id == run_id, table.c.round == number))
        self._rows.write_quietly(blobs.delete().where(blobs.c.digest.in_(digests)))
        return digests

    def _ready(self, current: Round, agent: str) -> sa.RowMapping | None:
        return self._rows.first(_READY, run_id=current.run_id, round=current.number, agent=agent)

    def _at_stage(self, current: Round, stage: str) -> tuple[sa.ColumnElement[bool], ...]:
        table = schema.attempt_messages
        return *self._of_round(table, current), table.c.attempt == current.attempt, table.c.stage == stage

    @staticmethod
    def _of_round(table: sa.Table, current: Round) -> tuple[sa.ColumnElement[bool], ...]:
        return table.c.run_id == current.run_id, table.c.round == current.number


def _values(attempt: Attempt) -> dict[str, Any]:
    values: dict[str, Any] = {**vars(attempt), "terms": attempt.terms.model_dump_json()}
    return values | {"roster": None if attempt.roster is None else attempt.roster.model_dump_json()}


def _attempt(row: sa.RowMapping) -> Attempt:
    roster = None if row["roster"] is None else _roster(row["roster"])
    named = {
        column: None if row[column] is None else tuple(row[column])
        for column in ("members", "dealers", "survivors", "signers")
    }
    return Attempt(**{**row, **named, "terms": AttemptTerms.model_validate_json(row["terms"]), "roster": roster})


# Read on every request of a stage: the same text is parsed once.
@lru_cache(maxsize=64)
def _roster(text: str) -> Roster:
    return Roster.model_validate_json(text)
