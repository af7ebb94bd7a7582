"""Work for the co-tuning workers: leases with a fencing token, heartbeats, results (docs/protocol.md, "Work").

A lease that is not renewed runs out, and the work goes to whoever asks next, under a higher token; what the first
worker sends after that is refused, so two workers can never both decide a round.
"""

from collections.abc import Iterator
from pathlib import Path

from services.coordinator.blobs import IncomingBlob
from services.coordinator.ports import Blobs, Clock, Store
from services.coordinator.progress import SYSTEM, abandon, evaluated, order, prepared, unfinished
from services.coordinator.records import Detail, Job, JobState, Run
from services.coordinator.transaction import Transaction
from shared.errors import BlobTooLarge, LeaseLost, MessageInvalid
from shared.protocol.codec import require_file
from shared.protocol.digests import digest_of
from shared.protocol.rounds import RoundEvent, RoundState, RunState
from shared.protocol.tensors import Layout
from shared.protocol.work import CotuneResult, CotuneTask, EvaluateResult, EvaluateTask, Lease, PrepareResult, Result


class WorkDesk:
    """Hands out work and takes results."""

    def __init__(self, store: Store, blobs: Blobs, clock: Clock, *, lease_seconds: float, max_blob_bytes: int) -> None:
        self._store = store
        self._blobs = blobs
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._max_blob_bytes = max_blob_bytes

    def lease(self, principal: str, worker: str) -> Lease | None:
        """Return the oldest work that nobody holds, now leased to ``worker`` of ``principal``; None when there is none.

        Who holds a lease and was not heard of since has not read the answer, and gets the same one again: not a new
        token, by which a late copy of the request would fence off its own sender. After the first heartbeat the same
        name is a worker that has started anew and waits like any other, so that leases that end badly are counted.
        """
        with self._store.read() as tx:
            if not (_unread(tx, principal, worker, self._clock()) or _pending(tx)):
                return None
        with self._store.write() as tx:
            now = self._clock()
            unread = _unread(tx, principal, worker, now)
            if unread:
                return self._granted(*unread[0])
            pending = _pending(tx)
            if not pending:
                return None
            run, job = pending[0]
            job = tx.change_job(
                job,
                state=JobState.LEASED,
                token=job.token + 1,
                principal=principal,
                worker=worker,
                expires_at=now + self._lease_seconds,
                renewed_at=None,
            )
            _note(tx, job, "leased", principal)
            if isinstance(job.task, CotuneTask):
                current = tx.round(run.id, job.round)
                if current.state is RoundState.AGGREGATED:
                    tx.change_round(current, RoundEvent.COTUNE, actor=principal)
        return self._granted(run, job)

    def heartbeat(self, job_id: str, token: int) -> None:
        """Renew a lease, or raise LeaseLost."""
        with self._store.write() as tx:
            now = self._clock()
            tx.renew_job(_held(tx, job_id, token), expires_at=now + self._lease_seconds, renewed_at=now)

    def complete(self, job_id: str, token: int, result: Result, *, actor: str) -> None:
        """Take a result and let the run go on from it; the same result again changes nothing.

        Raises:
            LeaseLost: another worker has the work, or nobody needs it any more.
            MessageInvalid, LayoutMismatch, ValuesNotFinite: the result is not one of this work.
        """
        digest = digest_of(result.model_dump_json().encode())
        with self._store.read() as tx:
            job = tx.job(job_id)
            if job.state is JobState.DONE and (job.token, job.result) == (token, digest):
                return
            _held(tx, job_id, token)
            if result.kind != job.task.kind:
                raise MessageInvalid(f"work {job_id} is to {job.task.kind}, and the result is of {result.kind}")
            adapters = _adapters(tx.run(job.run_id), result)
            paths = {self._blobs.path(tx.blob(adapter).digest): layout for adapter, layout in adapters.items()}
        for path, layout in paths.items():
            require_file(path, layout)  # reads the whole adapter: nobody waits for that in a transaction
        with self._store.write() as tx:
            job = tx.change_job(_held(tx, job_id, token), state=JobState.DONE, result=digest)
            _note(tx, job, "done", actor)
            run = tx.run(job.run_id)
            match result:
                case PrepareResult():
                    prepared(tx, run, result)
                case CotuneResult():
                    if result.micro_batch is not None:
                        _note(tx, job, "memory_ran_out", actor, micro_batch=result.micro_batch)
                    self._cotuned(tx, run, job, result)
                case EvaluateResult():
                    evaluated(tx, run, tx.round(run.id, job.round), result.scores, self._clock())

    def fail(self, job_id: str, token: int, code: str, message: str, *, actor: str, elsewhere: bool = False) -> None:
        """Take a worker's word that the work cannot be done, there or at all; the same word again changes nothing."""
        with self._store.write() as tx:
            job = tx.job(job_id)
            if job.state in {JobState.FAILED, JobState.PENDING} and job.token == token:
                return
            job = _held(tx, job_id, token)
            run, reason, now = tx.run(job.run_id), f"{code}: {message}", self._clock()
            if elsewhere:
                _note(tx, job, "returned", actor, reason=reason)
                unfinished(tx, run, job, f"said {reason}", now)
            else:
                _note(tx, job, "failed", actor)
                abandon(tx, run, job, reason, now)

    def blob_path(self, digest: str) -> Path:
        """Return where any stored adapter lies, published or not."""
        with self._store.read() as tx:
            return self._blobs.path(tx.blob(digest).digest)

    def require_blob(self, digest: str, announced: str, size: int) -> None:
        """Raise unless a worker may store a blob of this size under this name."""
        if announced != digest:
            raise MessageInvalid(
                f"the path names {digest} and the digest of the blob is {announced}: they must be the same"
            )
        if size > self._max_blob_bytes:
            raise BlobTooLarge(
                f"the adapter has {size} bytes and this coordinator takes {self._max_blob_bytes}: "
                "lower the LoRA rank or raise FEDCOLLM_COORDINATOR_MAX_ADAPTER_BYTES"
            )

    def store_blob(self, incoming: IncomingBlob, digest: str) -> None:
        """Keep a worker's blob; the same one again changes nothing."""
        incoming.require(digest)
        blob = incoming.keep()
        with self._store.write() as tx:
            tx.insert_blob(blob)

    def _granted(self, run: Run, job: Job) -> Lease:
        return Lease(
            job_id=job.id,
            token=job.token,
            run_id=run.id,
            round=job.round,
            terms=run.terms,
            task=job.task,
            lease_seconds=self._lease_seconds,
        )

    def _cotuned(self, tx: Transaction, run: Run, job: Job, result: CotuneResult) -> None:
        """Take the candidates theta^{t+1} and omega^{t+1}, and order their evaluation (design, round step 5)."""
        current = tx.round(run.id, job.round)
        assert current.aggregate is not None  # noqa: S101 - our own invariant: co-tuning follows the aggregation
        tx.change_round(
            current,
            RoundEvent.EVALUATE,
            actor=SYSTEM,
            detail={"steps": result.steps, **result.losses},
            slm_candidate=result.slm_adapter,
            llm_candidate=result.llm_adapter,
        )
        assert run.prepared is not None  # noqa: S101 - our own invariant: rounds follow the preparation
        task = EvaluateTask(
            prepared=run.prepared.digests,
            slm_aggregated=current.aggregate,
            slm_adapter=result.slm_adapter,
            llm_adapter=result.llm_adapter,
        )
        order(tx, run, task, self._clock())


def _adapters(run: Run, result: Result) -> dict[str, Layout]:
    """Return the adapters that a result names, and what each must look like."""
    match result:
        case PrepareResult():
            return {result.slm.adapter: result.slm.layout, result.llm.adapter: result.llm.layout}
        case CotuneResult():
            assert run.prepared is not None  # noqa: S101 - our own invariant: rounds follow the preparation
            return {result.slm_adapter: run.prepared.slm.layout, result.llm_adapter: run.prepared.llm.layout}
        case EvaluateResult():
            return {}


def _pending(tx: Transaction) -> list[tuple[Run, Job]]:
    return [(run, job) for run, job in _open(tx) if job.state is JobState.PENDING]


def _unread(tx: Transaction, principal: str, worker: str, now: float) -> list[tuple[Run, Job]]:
    """Return the live lease of this holder, if it was never heard of under it."""
    return [
        (run, job)
        for run, job in _open(tx)
        if job.state is JobState.LEASED
        and (job.principal, job.worker, job.renewed_at) == (principal, worker, None)
        and job.expires_at is not None
        and job.expires_at > now
    ]


def _open(tx: Transaction) -> Iterator[tuple[Run, Job]]:
    for run in reversed(tx.runs(states=(RunState.RUNNING,))):
        for job in tx.open_jobs(run.id):
            yield run, job


def _note(tx: Transaction, job: Job, what: str, principal: str, **more: str | int) -> None:
    """Log who did what to a piece of work: the principal is known by its token, the worker's name is its own word."""
    detail: Detail = {"kind": job.task.kind, "lease": job.token, "worker": job.worker, **more}
    tx.note(job.run_id, job.round or None, f"work.{what}", principal, detail)


def _held(tx: Transaction, job_id: str, token: int) -> Job:
    job = tx.job(job_id)
    if job.state is not JobState.LEASED or job.token != token:
        raise LeaseLost(
            f"work {job_id} is {job.state} under lease {job.token}, not under {token}: drop it and ask for other work"
        )
    return job
