"""The round engine: who is wanted, what is accepted, when a round closes (docs/protocol.md, steps 2 to 6).

Decisions are the protocol room's; this file applies them to the store. It holds nothing in memory, so that any
call may be the first after a restart. No HTTP, no torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from services.coordinator.aggregating import Aggregation
from services.coordinator.attempts import summons_of, takes_ready
from services.coordinator.manifest import manifest_of, prepared_layout
from services.coordinator.masked_sums import Aggregate, MaskedSums, closed_attempt
from services.coordinator.ports import Blobs, Clock, Store
from services.coordinator.progress import SYSTEM, came_to_nothing, go_on, order, unfinished
from services.coordinator.records import Job, JobState, Round, Run
from services.coordinator.stages import accuse, close, dismiss, expected, gather, weigh
from services.coordinator.transaction import Transaction
from services.coordinator.updates import takes_updates
from shared.errors import (
    BlobCorrupt,
    BlobMissing,
    MeanTooCoarse,
    NotFound,
    ShareInvalid,
    StorageFull,
    StorageReadOnly,
    SumImplausible,
    ValuesNotFinite,
    VersionConflict,
)
from shared.protocol.manifest import manifest_digest
from shared.protocol.membership import UNWILLING, RoundPlace
from shared.protocol.messages import Assignment, PublishedAdapter, Wanted
from shared.protocol.rounds import STAGES, RoundEvent, RoundState, RunState, Verdict, data_seed, verdict
from shared.protocol.work import CotuneTask

NONE: Mapping[str, str] = {}

log = structlog.get_logger()


@dataclass(frozen=True)
class Advanced:
    """What a pass over the runs has left: rounds whose sum is due, and whether all went ``well``.

    no_storage: why something could not be stored; what could be done without it was.
    """

    closing: Sequence[Round]
    well: bool
    no_storage: StorageFull | StorageReadOnly | None = None


class RoundEngine:
    """Rounds of all runs of one coordinator."""

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        plaintext: Aggregation,
        sums: MaskedSums,
        clock: Clock,
        *,
        federation: str,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._plaintext = plaintext
        self._sums = sums
        self._clock = clock
        self._federation = federation

    # --- agents -------------------------------------------------------------------------------------------------

    def wanted(self, agent: str, declined: Mapping[str, str] = NONE) -> Wanted:
        """Return what waits for this agent, and the adapter that it is to hold.

        A stage of an attempt comes first, whichever run it is of, because the others wait for it there. Then comes the
        round that has been open for longest, so that no run's rounds keep the agent from another's. Runs that it has
        declined come last; ``declined`` has a word for the reason of each.
        """
        with self._store.read() as tx:
            adapter = held(tx, declined)
            aggregate = None if adapter is None else tx.adapters.shared_aggregate(adapter.run_id, adapter.round, agent)
            nothing = Wanted(assignment=None, published=adapter, aggregate=aggregate)
            running = [(run, tx.live_round(run)) for run in tx.runs(states=(RunState.RUNNING,))]
            live = [(run, current) for run, current in running if current is not None]
            live.sort(key=lambda each: (each[0].id in declined, each[1].entered[RoundState.OPEN], each[0].id))
            for _, current in live:
                if summons := summons_of(tx, current, agent, federation=self._federation):
                    return nothing.model_copy(update={"summons": summons})
            if any(_is_needed_soon(tx, current, agent) for _, current in live):
                return nothing
            for run, current in live:
                if _waits_for(tx, run, current, agent):
                    assignment = _assignment(run, current, federation=self._federation)
                    return nothing.model_copy(update={"assignment": assignment})
            return nothing

    def awaits(self, agent: str, place: RoundPlace) -> bool:
        """Return whether a round waits for an agent's update, or for its word that there is one."""
        with self._store.read() as tx:
            for run in tx.runs(states=(RunState.RUNNING, RunState.PAUSED)):
                current = tx.live_round(run) if run.id == place.run_id else None
                if current is not None and current.number == place.round:
                    return _waits_for(tx, run, current, agent)
        return False

    def published_path(self, digest: str) -> Path:
        """Return where a published SLM adapter lies; anything else is not found, whether it exists or not."""
        with self._store.read() as tx:
            if not tx.adapters.is_published(digest):
                raise NotFound(f"no published adapter has digest {digest}")
        return self._blobs.path(digest)

    def aggregate_path(self, agent: str, run_id: str, number: int) -> tuple[str, Path]:
        """Return digest and place of the aggregate of a published round, for an agent whose update is in it.

        Raises:
            NotFound: the run shares no aggregates, the round has published nothing, or the agent has no part in it.
        """
        with self._store.read() as tx:
            digest = tx.adapters.shared_aggregate(run_id, number, agent)
        if digest is None:
            raise NotFound(f"round {number} of run {run_id!r} shares no aggregate with {agent}")
        return digest, self._blobs.path(digest)

    # --- the reconciler -----------------------------------------------------------------------------------------

    def reconcile(self) -> bool:
        """Do whatever the running runs lack now, sums included; safe to call at any time, and twice.

        Returns:
            Whether all went well.

        Raises:
            StorageFull, StorageReadOnly: the disk takes nothing more; what could be done without it was.
        """
        advanced = self.advance()
        failed = [closing for closing in advanced.closing if not self.add_up(closing)]
        if advanced.no_storage is not None:
            raise advanced.no_storage
        return advanced.well and not failed

    def advance(self) -> Advanced:
        """Do whatever the running runs lack now but for the sums, which take long, and tell which of these are due."""
        well, closing, no_storage = True, [], None
        with self._store.read() as tx:
            running = tx.runs(states=(RunState.RUNNING,))
        for run in running:
            try:
                current = self._reconcile_run(run.id)
            except VersionConflict:
                log.info("reconcile.again", run_id=run.id)  # somebody was faster; the next pass sees what they did
            except (StorageFull, StorageReadOnly) as error:
                no_storage = error  # what another run has to store may be less
            except Exception:
                # A fault in one run must not stop the others; the next pass tries again.
                log.exception("reconcile.failed", run_id=run.id)
                well = False
            else:
                closing += [] if current is None else [current]
        self._forget()
        return Advanced(tuple(closing), well, no_storage)

    def add_up(self, closing: Round) -> bool:
        """Make one aggregate of a round's updates, outside any transaction; it counts if the round is as it was.

        Returns:
            Whether all went well; else the round is told again by ``advance``.

        Raises:
            StorageFull, StorageReadOnly: the disk takes nothing more.
        """
        try:
            self._aggregate(closing.run_id, closing)
        except VersionConflict:
            log.info("reconcile.again", run_id=closing.run_id)
        except (StorageFull, StorageReadOnly):
            raise
        except Exception:
            log.exception("reconcile.failed", run_id=closing.run_id)
            return False
        return True

    def _reconcile_run(self, run_id: str) -> Round | None:
        """Advance one run, and return its round if that is to be aggregated now."""
        now = self._clock()
        with self._store.write() as tx:
            run = go_on(tx, tx.run(run_id), now)
            for job in tx.open_jobs(run_id):
                run = _expire(tx, run, job, now)
            current = tx.live_round(run)
            if current is None or run.state is not RunState.RUNNING:
                return None
            if current.state in STAGES:
                return current if close(tx, run, current, now) else None
            if current.state is not RoundState.OPEN:
                return None
            current = dismiss(tx, current)
            decision = _decide(run, current, now)
            if decision is Verdict.GIVE_UP:
                cohort = run.terms.cohort
                reason = (
                    f"only {current.accepted} of at least {cohort.min_count} agents had an update "
                    f"after {now - current.since:.0f} seconds"
                )
                came_to_nothing(tx, run, current, RoundEvent.ABORT, reason, now=now)
            if decision is not Verdict.CLOSE:
                return None
            if run.terms.aggregation == "PlaintextAggregation":
                return current
            gather(tx, run, current, federation=self._federation)
            return None

    def _aggregate(self, run_id: str, closing: Round) -> None:
        try:
            if closing.state is RoundState.UNMASKING:
                self._unmask(run_id, closing)
            else:
                self._mean(run_id, closing)
        except (BlobMissing, BlobCorrupt, ValuesNotFinite, ShareInvalid, SumImplausible, MeanTooCoarse) as error:
            event = RoundEvent.REFUSE if isinstance(error, SumImplausible) else RoundEvent.ABORT
            with self._store.write() as tx:
                for agent in error.members if isinstance(error, ShareInvalid) else ():
                    accuse(tx, closing, agent, "the sum cannot be unmasked because of what it has dealt or released")
                reason = f"{error.code}: {error}"
                came_to_nothing(tx, tx.run(run_id), closing, event, reason, now=self._clock())

    def _mean(self, run_id: str, closing: Round) -> None:
        """Aggregate readable updates."""
        with self._store.read() as tx:
            run = tx.run(run_id)
            accepted = tx.updates(run_id, closing.number)
            updates = [(tx.blob(update.digest), update.weight) for update in accepted]
        agents = [update.agent for update in accepted]
        aggregate = self._plaintext.aggregate(updates, prepared_layout(run))
        with self._store.write() as tx:
            # Fails if another update was accepted meanwhile: then the next pass aggregates again, with it.
            self._aggregated(tx, run, closing, Aggregate(aggregate, None, None), agents)

    def _unmask(self, run_id: str, closing: Round) -> None:
        """Aggregate masked updates, or learn the sum of the counts by which they will be weighted."""
        with self._store.read() as tx:
            run, closed = tx.run(run_id), closed_attempt(tx, closing)
            base = tx.blob(closing.slm_adapter)
        unmasked = self._sums.total(closed)
        counts = closed.attempts[0].terms.content == "counts"
        evaluated = run.terms.evaluation_examples
        aggregate = None if counts else self._sums.aggregate(closed, unmasked, base, prepared_layout(run), evaluated)
        with self._store.write() as tx:
            for agent in sorted(unmasked.wrong):
                accuse(tx, closing, agent, "it has released a wrong share")
            if aggregate is None:
                weigh(tx, run, closing, total_count=self._sums.count(closed, unmasked), federation=self._federation)
            else:
                self._aggregated(tx, run, closing, aggregate, closed.survivors)

    def _aggregated(
        self, tx: Transaction, run: Run, closing: Round, aggregate: Aggregate, agents: Sequence[str]
    ) -> None:
        """Take the aggregate of these agents' updates, of a round that is still as it was, and order its co-tuning."""
        tx.insert_blob(aggregate.blob)
        tx.change_round(
            closing,
            RoundEvent.AGGREGATE,
            actor=SYSTEM,
            detail={"updates": len(agents), "bytes": aggregate.blob.bytes},
            aggregate=aggregate.blob.digest,
            shared_with=agents if run.terms.share_aggregate else None,
            accepted=len(agents),  # of those that were ready, some may have been lost
            error_bound=aggregate.error_bound,
            evaluation=aggregate.evaluation,
        )
        assert run.prepared is not None  # noqa: S101 - our own invariant: rounds follow the preparation
        task = CotuneTask(
            prepared=run.prepared.digests,
            slm_adapter=aggregate.blob.digest,
            llm_adapter=closing.llm_adapter,
            seed=data_seed(run.id, run.terms.seed, closing.number, "cotuning"),
        )
        order(tx, tx.run(run.id), task, self._clock())

    def _forget(self) -> None:
        """Delete what was sent in the attempts of rounds that are past them: nobody may need it again."""
        with self._store.read() as tx:
            spent = tx.attempts.spent()
        if not spent:
            return
        digests: list[str] = []
        with self._store.write() as tx:
            for run_id, number in spent:
                vectors = tx.attempts.forget(run_id, number)
                tx.audit.append(SYSTEM, "attempt.deleted", f"run/{run_id}/round/{number}", {"vectors": len(vectors)})
                digests += vectors
        for digest in digests:
            self._blobs.remove(digest)


def _waits_for(tx: Transaction, run: Run, current: Round, agent: str) -> bool:
    """Return whether a round waits for an agent's update, or for its word that there is one."""
    if not current.asks(agent):
        return False
    if run.terms.aggregation == "PlaintextAggregation":
        return takes_updates(run, current) and tx.update(run.id, current.number, agent) is None
    return takes_ready(run, current) and not tx.attempts.is_ready(current, agent)


def _is_needed_soon(tx: Transaction, current: Round, agent: str) -> bool:
    """Return whether an attempt goes on with an agent, which would miss its stages if it trained for another run."""
    if current.state not in STAGES:
        return False
    attempt = tx.attempts.of_agent(current, agent)
    return attempt is not None and agent in expected(attempt, current.state)


def _assignment(run: Run, current: Round, *, federation: str) -> Assignment:
    return Assignment(
        run_id=run.id,
        round=current.number,
        manifest=manifest_digest(manifest_of(run, federation=federation)),
        adapter=current.slm_adapter,
    )


def _decide(run: Run, current: Round, now: float) -> Verdict:
    """Apply the closing rule to an open round; once its cohort has closed, it waits for nobody but the minimum."""
    cohort = run.terms.cohort
    if current.total_count is not None:  # the counts are weighed: whoever is not among them cannot come any more
        return Verdict.CLOSE if current.accepted >= cohort.min_count else Verdict.GIVE_UP
    return verdict(
        current.accepted,
        now - current.since,
        min_count=cohort.min_count,
        max_count=cohort.max_count,
        min_seconds=0 if current.attempt else cohort.min_seconds,
        max_seconds=cohort.max_seconds,
    )


def held(tx: Transaction, declined: Mapping[str, str] = NONE) -> PublishedAdapter | None:
    """Return the adapter that an agent is to hold: the one that an operator has pinned, else the newest.

    Of runs whose adapters the agent cannot use, none is: a run that it only takes no part in is no such run.
    """
    unusable = [run_id for run_id, reason in declined.items() if reason != UNWILLING]
    pinned = tx.adapters.pinned()
    return tx.adapters.newest(unusable) if pinned is None or pinned.run_id in unusable else pinned


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
