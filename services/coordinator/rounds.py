"""The round engine: who is wanted, what is accepted, when a round closes (docs/protocol.md, steps 2 to 6).

Decisions are the protocol room's; this file applies them to the store. It holds nothing in memory, so that any
call may be the first after a restart. No HTTP, no torch.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from services.coordinator.aggregating import Aggregation
from services.coordinator.blobs import IncomingBlob
from services.coordinator.manifest import manifest_of
from services.coordinator.ports import Blobs, Clock, Store
from services.coordinator.progress import SYSTEM, came_to_nothing, go_on, order, unfinished
from services.coordinator.records import Job, JobState, Round, Run, Update
from services.coordinator.transaction import Transaction
from shared.errors import (
    BlobCorrupt,
    BlobMissing,
    MessageInvalid,
    NotFound,
    ProtocolError,
    RoundClosed,
    UpdateConflict,
    ValuesNotFinite,
    VersionConflict,
)
from shared.protocol.codec import require_file, require_size
from shared.protocol.messages import Assignment, CotuneTask, PublishedAdapter, UpdateReceipt, Wanted, manifest_digest
from shared.protocol.rounds import RoundEvent, RoundState, RunState, Verdict, data_seed, verdict
from shared.protocol.tensors import Layout

log = structlog.get_logger()


@dataclass(frozen=True)
class Slot:
    """Where an agent's update of a round goes, and what it must look like."""

    run_id: str
    round: int
    agent: str
    layout: Layout
    weight: int


class RoundEngine:
    """Rounds of all runs of one coordinator."""

    def __init__(self, store: Store, blobs: Blobs, aggregation: Aggregation, clock: Clock) -> None:
        self._store = store
        self._blobs = blobs
        self._aggregation = aggregation
        self._clock = clock

    # --- agents -------------------------------------------------------------------------------------------------

    def wanted(self, agent: str, declined: Collection[str] = ()) -> Wanted:
        """Return the oldest round that waits for this agent, and the newest published adapter.

        Runs that the agent has declined, because its SLM is not theirs, come last, and their adapters not at all.
        """
        with self._store.read() as tx:
            assignment = None
            running = reversed(tx.runs(states=(RunState.RUNNING,)))
            for run in sorted(running, key=lambda run: run.id in declined):
                current = tx.live_round(run)
                if current is None or not _takes_updates(run, current):
                    continue
                if tx.update(run.id, current.number, agent) is not None:
                    continue
                seed = data_seed(run.terms.seed, current.number, agent)
                assignment = Assignment(
                    run_id=run.id,
                    round=current.number,
                    manifest=manifest_digest(manifest_of(run)),
                    adapter=current.slm_adapter,
                    seed=seed,
                )
                break
            newest = tx.newest_published(declined)
            return Wanted(assignment=assignment, published=published(newest) if newest else None)

    def receipt(
        self, agent: str, run_id: str, number: int, *, digest: str, size: int, examples: int | None
    ) -> tuple[UpdateReceipt | None, Slot]:
        """Decide, before the first byte of an update is read, whether it may come.

        Returns:
            The receipt, if the same bytes were accepted before, and the slot that the update is for.

        Raises:
            NotFound, RoundClosed, UpdateConflict, MessageInvalid, BlobTruncated, BlobTooLarge: it may not.
        """
        with self._store.read() as tx:
            run = tx.run(run_id)
            current = tx.round(run_id, number)
            accepted = tx.update(run_id, number, agent)
        slot = _slot(run, number, agent, examples)
        with self._refusals_counted(slot):
            require_size(size, slot.layout)
        if accepted is not None:
            return _receipt(_same(accepted, digest), size), slot
        if not _takes_updates(run, current):
            with self._store.write() as tx:
                tx.count(current, "late", actor=agent)
            raise _closed(slot, current)
        return None, slot

    def write(self, slot: Slot, incoming: IncomingBlob, chunk: bytes | bytearray) -> None:
        """Take the next bytes of an update.

        Raises:
            BlobTooLarge: it goes on after the length that it announced.
            StorageFull: the disk has no room.
        """
        with self._refusals_counted(slot):
            incoming.write(chunk)

    def accept(self, slot: Slot, incoming: IncomingBlob, *, digest: str) -> UpdateReceipt:
        """Check an update that has come in whole, keep it, and count it; the last one wakes the aggregation.

        Raises:
            BlobTruncated, DigestMismatch, LayoutMismatch, ValuesNotFinite: nothing of the update is kept.
            RoundClosed: the round closed while the update came in.
        """
        with self._refusals_counted(slot):
            incoming.require(digest)
            require_file(incoming.part, slot.layout)
        blob = incoming.keep()
        with self._store.write() as tx:
            current = tx.round(slot.run_id, slot.round)
            accepted = tx.update(slot.run_id, slot.round, slot.agent)
            if accepted is not None:
                return _receipt(_same(accepted, digest), blob.bytes)
            in_time = _takes_updates(tx.run(slot.run_id), current)
            update = Update(slot.run_id, slot.round, slot.agent, digest, slot.weight, self._clock())
            if in_time:
                tx.insert_blob(blob)
                tx.insert_update(update)
                tx.change_round(current, actor=slot.agent, accepted=current.accepted + 1)
                tx.note(slot.run_id, slot.round, "update.accepted", slot.agent, {"accepted": current.accepted + 1})
            else:
                tx.count(current, "late", actor=slot.agent)
        if not in_time:
            raise _closed(slot, current)
        return _receipt(update, blob.bytes)

    def published_path(self, digest: str) -> Path:
        """Return where a published SLM adapter lies; anything else is not found, whether it exists or not."""
        with self._store.read() as tx:
            if not tx.is_published(digest):
                raise NotFound(f"no published adapter has digest {digest}")
        return self._blobs.path(digest)

    @contextmanager
    def _refusals_counted(self, slot: Slot) -> Iterator[None]:
        """Count an update that turns out not to be what it must be."""
        try:
            yield
        except ProtocolError as error:
            with self._store.write() as tx:
                current = tx.round(slot.run_id, slot.round)
                tx.count(current, "refused", actor=slot.agent, detail={"code": error.code})
            raise

    # --- the reconciler -----------------------------------------------------------------------------------------

    def reconcile(self) -> None:
        """Do whatever the running runs lack now; safe to call at any time, and twice."""
        with self._store.read() as tx:
            running = tx.runs(states=(RunState.RUNNING,))
        for run in running:
            try:
                closing = self._reconcile_run(run.id)
                if closing is not None:
                    self._aggregate(run.id, closing)
            except VersionConflict:
                log.info("reconcile.again", run_id=run.id)  # somebody was faster; the next pass sees what they did
            except Exception:
                # A fault in one run, a full disk for instance, must not stop the others; the next pass tries again.
                log.exception("reconcile.failed", run_id=run.id)

    def _reconcile_run(self, run_id: str) -> Round | None:
        """Advance one run, and return its round if that is to be aggregated now."""
        now = self._clock()
        with self._store.write() as tx:
            run = go_on(tx, tx.run(run_id), now)
            for job in tx.open_jobs(run_id):
                run = _expire(tx, run, job, now)
            current = tx.live_round(run)
            if current is None or current.state is not RoundState.OPEN or run.state is not RunState.RUNNING:
                return None
            cohort = run.terms.cohort
            decision = verdict(
                current.accepted,
                now - current.entered["open"],
                min_count=cohort.min_count,
                max_count=cohort.max_count,
                min_seconds=cohort.min_seconds,
                max_seconds=cohort.max_seconds,
            )
            if decision is Verdict.GIVE_UP:
                reason = (
                    f"only {current.accepted} of at least {cohort.min_count} agents had sent an update "
                    f"after {cohort.max_seconds:g} seconds"
                )
                came_to_nothing(tx, run, current, RoundEvent.ABORT, reason, now=now)
            return current if decision is Verdict.CLOSE else None

    def _aggregate(self, run_id: str, closing: Round) -> None:
        with self._store.read() as tx:
            run = tx.run(run_id)
            accepted = tx.updates(run_id, closing.number)
            updates = [(tx.blob(update.digest), update.weight) for update in accepted]
        try:
            aggregate = self._aggregation.aggregate(updates, _prepared_layout(run))
        except (BlobMissing, BlobCorrupt, ValuesNotFinite) as error:
            with self._store.write() as tx:
                reason = f"{error.code}: {error}"
                came_to_nothing(tx, tx.run(run_id), closing, RoundEvent.ABORT, reason, now=self._clock())
            return
        with self._store.write() as tx:
            tx.insert_blob(aggregate)
            # Fails if another update was accepted meanwhile: then the next pass aggregates again, with it.
            tx.change_round(
                closing,
                RoundEvent.AGGREGATE,
                actor=SYSTEM,
                detail={"updates": len(updates), "bytes": aggregate.bytes},
                aggregate=aggregate.digest,
            )
            seed = data_seed(run.terms.seed, closing.number, "cotuning")
            assert run.prepared is not None  # noqa: S101 - our own invariant: rounds follow the preparation
            task = CotuneTask(
                prepared=run.prepared.digests,
                slm_adapter=aggregate.digest,
                llm_adapter=closing.llm_adapter,
                seed=seed,
            )
            order(tx, tx.run(run_id), task, self._clock())


def published(run: Run) -> PublishedAdapter | None:
    """Return the adapter that a run has published last; theta^0, which is untrained, does not count."""
    if run.slm_adapter is None or run.published_round == 0:
        return None
    return PublishedAdapter(run_id=run.id, round=run.published_round, digest=run.slm_adapter)


def _expire(tx: Transaction, run: Run, job: Job, now: float) -> Run:
    """Put a job whose worker fell silent before the other workers, or give up on it."""
    if job.state is not JobState.LEASED or job.expires_at is None or job.expires_at > now:
        return run
    tx.note(run.id, job.round or None, "work.lease_expired", SYSTEM, {"kind": job.task.kind, "lease": job.token})
    return unfinished(tx, run, job, "fell silent", now)


def _takes_updates(run: Run, current: Round) -> bool:
    """Return whether a round takes another update: it is open, and its cohort is not full (docs/protocol.md step 5)."""
    return current.state is RoundState.OPEN and current.accepted < run.terms.cohort.max_count


def _closed(slot: Slot, current: Round) -> RoundClosed:
    return RoundClosed(
        f"round {slot.round} of run {slot.run_id} is {current.state} and takes no more updates: "
        "ask what is wanted, and go on there"
    )


def _same(accepted: Update, digest: str) -> Update:
    """Return the accepted update if it is the one that comes again, or raise UpdateConflict."""
    if accepted.digest != digest:
        raise UpdateConflict(
            f"{accepted.agent} has sent another update for round {accepted.round} of run {accepted.run_id} before, and "
            "an agent has one: keep the first, and train the next round"
        )
    return accepted


def _slot(run: Run, number: int, agent: str, examples: int | None) -> Slot:
    if run.terms.weighting == "unweighted" and examples is not None:
        raise MessageInvalid("this run's mean is unweighted: do not send a number of examples")
    if run.terms.weighting == "examples" and examples is None:
        raise MessageInvalid("this run's mean is weighted by examples: send their number as the parameter 'examples'")
    return Slot(run.id, number, agent, _prepared_layout(run), 1 if examples is None else examples)


def _prepared_layout(run: Run) -> Layout:
    if run.prepared is None:
        raise NotFound(f"run {run.id} has not been prepared yet, so it has no rounds")
    return run.prepared.slm.layout


def _receipt(update: Update, size: int) -> UpdateReceipt:
    return UpdateReceipt(
        run_id=update.run_id,
        round=update.round,
        agent=update.agent,
        digest=update.digest,
        bytes=size,
        received_at=update.received_at,
    )
