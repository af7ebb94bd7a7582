"""What must survive: rows in one SQL database, every change a compare-and-swap in a transaction of its own.

A change of a run's or round's state goes through the protocol's table and writes its event and its audit line in the
same transaction; records go in and out, rows do not.
"""

from dataclasses import fields, replace
from functools import lru_cache
from typing import Any, Literal

import sqlalchemy as sa
from pydantic import BaseModel, TypeAdapter

from services.coordinator import schema
from services.coordinator.adapter_rows import AdapterRows
from services.coordinator.attempt_rows import AttemptRows
from services.coordinator.audit_rows import AuditRows
from services.coordinator.blob_rows import BlobRows
from services.coordinator.count_rows import CountRows
from services.coordinator.member_rows import MemberRows
from services.coordinator.records import Blob, Detail, Job, JobState, LoggedEvent, Round, Run, Update
from services.coordinator.rows import Rows, by
from shared.errors import NotFound
from shared.protocol.messages import AgentsEvaluation, RoundScores
from shared.protocol.rounds import (
    ENDED_ROUNDS,
    ROUND_TRANSITIONS,
    RUN_TRANSITIONS,
    RoundEvent,
    RoundState,
    RunEvent,
    RunState,
    advance,
)
from shared.protocol.terms import RunTerms
from shared.protocol.work import PrepareResult, Task

# Asked with nearly every request.
_RUN = sa.select(schema.runs).where(by(schema.runs.c.id))
_ROUND = sa.select(schema.rounds).where(by(schema.rounds.c.run_id, schema.rounds.c.number))

_TASK: TypeAdapter[Task] = TypeAdapter(Task)


class Transaction:
    """Reads and changes inside one transaction; other rows have files of their own."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self.adapters = AdapterRows(rows)
        self.members = MemberRows(rows)
        self.attempts = AttemptRows(rows)
        self.audit = AuditRows(rows)
        self.blobs = BlobRows(rows)
        self.counts = CountRows(rows)

    def wake(self) -> None:
        """Ring the bell after the commit, whether or not a change did."""
        self._rows.changed = True

    # --- runs ---------------------------------------------------------------------------------------------------

    def run(self, run_id: str) -> Run:
        """Return a run, or raise NotFound."""
        row = self._rows.first(_RUN, id=run_id)
        if row is None:
            raise NotFound(f"there is no run {run_id!r}: list the runs to see which there are")
        return _run(row)

    def runs(
        self, *, states: tuple[RunState, ...] = (), before: Run | None = None, limit: int | None = None
    ) -> list[Run]:
        """Return runs, newest first; all states unless some are named, and only older ones than ``before``."""
        table = schema.runs.c
        query = sa.select(schema.runs).order_by(table.created_at.desc(), table.id).limit(limit)
        if states:
            query = query.where(table.state.in_(states))
        if before is not None:
            same = sa.and_(table.created_at == before.created_at, table.id > before.id)
            query = query.where(sa.or_(table.created_at < before.created_at, same))
        return [_run(row) for row in self._rows.all(query)]

    def insert_run(self, run: Run, *, actor: str) -> None:
        """Add a run."""
        self._rows.write(schema.runs.insert().values(_row(run)))
        self._rows.log(run.id, None, f"run.{run.state}", actor, {"name": run.terms.name})

    def change_run(
        self,
        run: Run,
        event: RunEvent | None = None,
        *,
        actor: str,
        detail: Detail | None = None,
        **changes: Any,  # noqa: ANN401 - columns differ in type
    ) -> Run:
        """Change a run that is still as it was read; with an event, through the table, logged.

        Raises:
            IllegalTransition: the table has no such event in the run's state.
            VersionConflict: the run has changed since it was read.
        """
        changed = replace(run, **changes)
        if event is not None:
            changed = replace(changed, state=advance(RUN_TRANSITIONS, run.state, event, f"run {run.id}"))
            self._rows.for_agents = True
            self._rows.log(run.id, None, f"run.{changed.state}", actor, detail or {})
        self._rows.swap(schema.runs, run, _row(changed), schema.runs.c.id == run.id)
        return replace(changed, version=run.version + 1)

    # --- rounds -------------------------------------------------------------------------------------------------

    def round(self, run_id: str, number: int) -> Round:
        """Return a round, or raise NotFound."""
        row = self._rows.first(_ROUND, run_id=run_id, number=number)
        if row is None:
            raise NotFound(f"run {run_id!r} has no round {number}")
        return _round(row)

    def rounds(self, run_id: str, *, after: int = 0, limit: int | None = None) -> list[Round]:
        """Return the rounds of a run whose number is above ``after``, oldest first."""
        table = schema.rounds.c
        query = sa.select(schema.rounds).where(table.run_id == run_id, table.number > after)
        query = query.order_by(table.number).limit(limit)
        return [_round(row) for row in self._rows.all(query)]

    def live_round(self, run: Run) -> Round | None:
        """Return the round of ``run`` that has not ended, if there is one."""
        # There may be no round of the newest number: a coordinator that was restored has left some out.
        newest = self.rounds(run.id, after=run.round - 1)
        return newest[0] if newest and newest[0].state not in ENDED_ROUNDS else None

    def insert_round(self, opened: Round, *, actor: str) -> None:
        """Add a round."""
        self._rows.for_agents = True
        self._rows.write(schema.rounds.insert().values(_row(opened)))
        self._rows.log(
            opened.run_id, opened.number, f"round.{opened.state}", actor, {"slm_adapter": opened.slm_adapter}
        )

    def change_round(
        self,
        current: Round,
        event: RoundEvent | None = None,
        *,
        actor: str,
        detail: Detail | None = None,
        **changes: Any,  # noqa: ANN401 - columns differ in type
    ) -> Round:
        """Change a round that is still as it was read; with an event, through the table, logged.

        Raises:
            IllegalTransition: the table has no such event in the round's state.
            VersionConflict: the round has changed since it was read.
        """
        changed = replace(current, **changes)
        if event is not None:
            what = f"round {current.number} of run {current.run_id}"
            state = advance(ROUND_TRANSITIONS, current.state, event, what)
            # A round that opens again after an attempt has waited for its agents since it first opened.
            since = {state.value: self._rows.now()} if state is not RoundState.OPEN else {}
            changed = replace(changed, state=state, entered={**current.entered, **since})
            self._rows.for_agents = True
            self._rows.log(current.run_id, current.number, f"round.{state}", actor, detail or {})
        # What ``count`` counts may have grown since the round was read.
        values = {name: value for name, value in _row(changed).items() if name not in {"refused", "late"}}
        table = schema.rounds.c
        self._rows.swap(schema.rounds, current, values, table.run_id == current.run_id, table.number == current.number)
        return replace(changed, version=current.version + 1)

    def count(self, current: Round, column: Literal["refused", "late"]) -> None:
        """Count an update that was not accepted; the round itself stays as it is, and so does its version."""
        table = schema.rounds
        count = table.c[column]
        key = (table.c.run_id == current.run_id, table.c.number == current.number)
        self._rows.write_quietly(table.update().where(*key).values({column: count + 1}))

    def published_count(self, run_id: str) -> int:
        """Return how many rounds of a run have been published."""
        table = schema.rounds.c
        query = sa.select(sa.func.count()).where(table.run_id == run_id, table.state == RoundState.PUBLISHED)
        return int(self._rows.value(query))

    # --- updates and blobs --------------------------------------------------------------------------------------

    def updates(self, run_id: str, number: int) -> list[Update]:
        """Return the accepted updates of a round in the order of their agents' names."""
        table = schema.updates.c
        query = sa.select(schema.updates).where(table.run_id == run_id, table.round == number).order_by(table.agent)
        return [Update(**row) for row in self._rows.all(query)]

    def update(self, run_id: str, number: int, agent: str) -> Update | None:
        """Return an agent's accepted update of a round, if there is one."""
        table = schema.updates.c
        key = (table.run_id == run_id, table.round == number, table.agent == agent)
        row = self._rows.first(sa.select(schema.updates).where(*key))
        return None if row is None else Update(**row)

    def insert_update(self, update: Update) -> None:
        """Add an accepted update; its blob must have been added before."""
        self._rows.write(schema.updates.insert().values(_row(update)))

    def has_blob(self, digest: str) -> bool:
        """Return whether a blob has a row."""
        return self._rows.first(sa.select(schema.blobs.c.digest).where(schema.blobs.c.digest == digest)) is not None

    def insert_blob(self, blob: Blob) -> None:
        """Add a blob's row; the same blob again changes nothing, and nobody waits for one."""
        if not self.has_blob(blob.digest):
            self._rows.write_quietly(schema.blobs.insert().values(_row(blob)))

    def blob(self, digest: str) -> Blob:
        """Return a blob's row, or raise NotFound."""
        row = self._rows.first(sa.select(schema.blobs).where(schema.blobs.c.digest == digest))
        if row is None:
            raise NotFound(f"there is no blob {digest}")
        return Blob(**row)

    # --- jobs ---------------------------------------------------------------------------------------------------

    def insert_job(self, job: Job) -> None:
        """Add work."""
        self._rows.write(schema.jobs.insert().values(_row(job)))

    def job(self, job_id: str) -> Job:
        """Return a job, or raise NotFound."""
        row = self._rows.first(sa.select(schema.jobs).where(schema.jobs.c.id == job_id))
        if row is None:
            raise NotFound(f"there is no work {job_id!r}")
        return _job(row)

    def open_jobs(self, run_id: str) -> list[Job]:
        """Return the jobs of a run that are pending or leased, oldest first."""
        table = schema.jobs.c
        query = sa.select(schema.jobs).where(
            table.run_id == run_id, table.state.in_((JobState.PENDING, JobState.LEASED))
        )
        return [_job(row) for row in self._rows.all(query.order_by(table.created_at, table.id))]

    def leased_jobs(self) -> list[Job]:
        """Return the jobs that some worker has, oldest first."""
        table = schema.jobs.c
        query = sa.select(schema.jobs).where(table.state == JobState.LEASED).order_by(table.created_at, table.id)
        return [_job(row) for row in self._rows.all(query)]

    def change_job(self, job: Job, **changes: Any) -> Job:  # noqa: ANN401 - columns differ in type
        """Change a job that is still as it was read, or raise VersionConflict."""
        changed = replace(job, **changes)
        self._rows.swap(schema.jobs, job, _row(changed), schema.jobs.c.id == job.id)
        return replace(changed, version=job.version + 1)

    def renew_job(self, job: Job, *, expires_at: float, renewed_at: float | None) -> None:
        """Let a lease run on; nobody waits for that, so no bell is rung."""
        values = {"expires_at": expires_at, "renewed_at": renewed_at}
        self._rows.write_quietly(schema.jobs.update().where(schema.jobs.c.id == job.id).values(values))

    # --- events -------------------------------------------------------------------------------------------------

    def note(self, run_id: str, number: int | None, kind: str, actor: str, detail: Detail) -> None:
        """Log something that happened without a change of state."""
        self._rows.log(run_id, number, kind, actor, detail)

    def events(self, run_id: str, *, after: int, limit: int) -> list[LoggedEvent]:
        """Return the events of a run whose number is above ``after``, oldest first."""
        table = schema.events.c
        query = (
            sa.select(table.seq, table.at, table.kind, table.round, table.detail)
            .where(table.run_id == run_id, table.seq > after)
            .order_by(table.seq)
            .limit(limit)
        )
        return [LoggedEvent(**row) for row in self._rows.all(query)]


def _row(record: Run | Round | Update | Job | Blob) -> dict[str, Any]:
    """Return a record's columns; messages become the text that they travel as."""
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return {name: value.model_dump_json() if isinstance(value, BaseModel) else value for name, value in values.items()}


def _run(row: sa.RowMapping) -> Run:
    prepared = None if row["prepared"] is None else _prepare_result(row["prepared"])
    return Run(**{**row, "state": RunState(row["state"]), "terms": _run_terms(row["terms"]), "prepared": prepared})


def _round(row: sa.RowMapping) -> Round:
    scores = None if row["scores"] is None else RoundScores.model_validate_json(row["scores"])
    evaluation = None if row["evaluation"] is None else AgentsEvaluation.model_validate_json(row["evaluation"])
    return Round(**{**row, "state": RoundState(row["state"]), "scores": scores, "evaluation": evaluation})


def _job(row: sa.RowMapping) -> Job:
    return Job(**{**row, "state": JobState(row["state"]), "task": _TASK.validate_json(row["task"])})


# A run's messages never change and are read on every request: the same text is parsed once.
@lru_cache(maxsize=64)
def _run_terms(text: str) -> RunTerms:
    return RunTerms.model_validate_json(text)


@lru_cache(maxsize=64)
def _prepare_result(text: str) -> PrepareResult:
    return PrepareResult.model_validate_json(text)
