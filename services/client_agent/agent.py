"""The agent: see what is wanted, train, protect, submit, wait (docs/protocol.md, steps 2 to 5 and 9).

Every step begins from the state folder, so that an agent that was killed anywhere goes on where it was.
"""

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import structlog
from structlog.contextvars import bind_contextvars, unbind_contextvars

from services.client_agent.attempts import AttemptMember
from services.client_agent.audit_watch import AuditWatch
from services.client_agent.coordinator_client import CoordinatorClient
from services.client_agent.declined import Declined
from services.client_agent.holdout import HoldOut
from services.client_agent.policy import Policy
from services.client_agent.state import DAY_SECONDS, StateFolder, StoredUpdate
from services.client_agent.status import Phase, Status
from services.client_agent.trainer import Progress, Trainer, TrainingOrder
from shared.adapter_folder import card_files
from shared.backoff import Backoff
from shared.errors import (
    DigestMismatch,
    FedCoLLMError,
    NotFound,
    RemoteProblem,
    RoundClosed,
    UpdateConflict,
)
from shared.logs import Repeats
from shared.protocol.attempts import Summons
from shared.protocol.codec import blob_bytes, flat_numbers, require_file
from shared.protocol.manifest import Manifest, manifest_digest
from shared.protocol.messages import LONGEST_POLL_SECONDS, Assignment, PublishedAdapter, Wanted
from shared.protocol.rounds import data_seed
from shared.protocol.secagg.attempt import fewest_parties, layout_digest
from shared.protocol.secagg.coding import clipped
from shared.storing import storing

AFTER_FAILURE = Backoff(first_seconds=10.0, most_seconds=60.0)

# A long poll that brings nothing new earlier than this is no long poll: who answers so is not asked faster.
LEAST_POLL_SECONDS = 1.0

# So many assignments and summonses are known again when they are told once more.
ASKED_KEPT = 64

TOO_LATE = frozenset({RoundClosed.code, UpdateConflict.code, NotFound.code})

log = structlog.get_logger()


class Agent:
    """One organisation's agent."""

    def __init__(
        self,
        coordinator: CoordinatorClient,
        trainer: Trainer,
        state: StateFolder,
        status: Status,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        *,
        name: str,
        member: AttemptMember,
        policy: Policy,
        slm: str,
        clock: Callable[[], float] = time.time,
        holdout: HoldOut | None = None,
        backoff: Backoff = AFTER_FAILURE,
    ) -> None:
        """``clock`` gives the seconds since 1970; ``holdout`` is told what the agent does, and has its spare time."""
        self._name = name
        self._coordinator = coordinator
        self._trainer = trainer
        self._state = state
        self._status = status
        self._member = member
        self._policy = policy
        self._slm = slm
        self._pause = pause
        self._clock = clock
        self._holdout = holdout
        self._backoff = backoff
        self._failures, self._twice = Repeats(clock), Repeats(clock)
        self._audit = AuditWatch(state.audit, status)
        self._manifest: Manifest | None = None
        self._declined = Declined(status.declined, clock=clock)
        self._asked: deque[Assignment | Summons] = deque(maxlen=ASKED_KEPT)
        held = state.settled()
        if held is not None:
            status.hold(held)

    async def run(self) -> None:
        """Take part until cancelled; an error of one step is shown and the next step tried after a pause."""
        wait_seconds = 0.0  # whoever waits for this agent to be healthy need not wait for a whole poll
        failures = 0
        while True:
            began = self._clock()
            try:
                with storing("the agent's state_dir"):
                    news = await self.step(wait_seconds=wait_seconds)
                if not news and wait_seconds and self._clock() - began < LEAST_POLL_SECONDS:
                    await self._pause(LEAST_POLL_SECONDS)
                wait_seconds, failures = LONGEST_POLL_SECONDS, 0
                self._failures.end()
            except (FedCoLLMError, OSError) as error:
                # A full disk is no reason to leave the federation: room may be made.
                code = error.code if isinstance(error, FedCoLLMError) else "machine"
                self._status.fail(code, str(error))
                if times := self._failures.due(code):
                    log.warning("agent.failed", code=code, detail=str(error), times=times)
                failures += 1
                await self._pause(self._backoff.seconds(failures))

    async def step(self, *, wait_seconds: float) -> bool:
        """Ask once what is wanted, and do it; return whether anything was that had not been asked before."""
        self._status.enter(Phase.WAITING)
        unbind_contextvars("run_id", "round")
        if self._holdout is not None:
            self._holdout.wait()
        # First, and whatever is wanted: no coordinator keeps this agent from it by asking, or by not answering.
        self._state.journal.forget_older(self._clock() - DAY_SECONDS)
        held = self._state.published
        digest = held.digest if held else None
        wanted = await self._coordinator.wanted(digest, self._declined.told, wait_seconds=wait_seconds)
        self._status.hear(wanted)
        self._say_second(wanted)
        self._audit.see(wanted.audit)
        unheld = None if wanted.published is None else await self._hold(wanted.published, held)
        if self._holdout is not None and wanted.published is not None and unheld is None:
            self._holdout.hold(wanted.published, wanted.aggregate)
        if wanted.summons is not None:
            place = wanted.summons.place
            bind_contextvars(run_id=place.run_id, round=place.round)
            await self._in_time(place.run_id, self._answer(wanted.summons))
        elif wanted.assignment is not None:
            bind_contextvars(run_id=wanted.assignment.run_id, round=wanted.assignment.round)
            await self._in_time(wanted.assignment.run_id, self._take_part(wanted.assignment))
        if unheld is not None:  # told last: no round waits for an adapter that cannot be held
            raise unheld
        self._status.succeed()
        asked = wanted.summons or wanted.assignment
        if asked is None or asked in self._asked:
            return False
        self._asked.append(asked)
        return True

    def _say_second(self, wanted: Wanted) -> None:
        """Log that another process has this agent's key, when that is seen and once an hour."""
        if wanted.second_at is not None and (times := self._twice.due("second")):
            at = datetime.fromtimestamp(wanted.second_at, UTC)
            detail = f"another process has asked with this agent's key, last at {at:%Y-%m-%d %H:%M:%S} UTC: stop it"
            log.warning("agent.runs_twice", detail=detail, times=times)

    async def _in_time(self, run_id: str, doing: Awaitable[None]) -> None:
        """Do something for a round, which may be over before it is done."""
        with self._declined.unless_done(run_id):
            try:
                await doing
            except RemoteProblem as problem:
                if problem.code not in TOO_LATE:
                    raise
                log.info("agent.too_late", run_id=run_id, code=problem.code)

    async def _answer(self, summons: Summons) -> None:
        """Answer a stage of an attempt."""
        place = summons.place
        self._status.enter(Phase.MASKING, run_id=place.run_id, round_number=place.round)
        await self._member.answer(summons)
        self._status.worked()

    async def _hold(self, published: PublishedAdapter, held: PublishedAdapter | None) -> FedCoLLMError | None:
        """Hold the adapter that agents are to hold, with its card; return why that is not possible, if it is not."""
        if published == held and self._state.has_card:
            return None
        bind_contextvars(run_id=published.run_id, round=published.round)
        try:
            with self._declined.unless_done(published.run_id, holding=True):
                await self._receive(published)
        except FedCoLLMError as error:
            return error
        return None

    async def _receive(self, published: PublishedAdapter) -> None:
        """Fetch theta^t, the adapter after co-tuning, and make it the one that this organisation uses."""
        self._status.enter(Phase.RECEIVING, run_id=published.run_id, round_number=published.round)
        manifest = await self._fetch_manifest(published.run_id)
        await self._fetch(published.digest, manifest)
        card = await self._coordinator.card(published)
        self._audit.see_of_card(card.card.head)
        # The manifest names the SLM as the coordinator knows it; whoever loads the adapter here needs this machine's.
        config = manifest.adapter_config | {"base_model_name_or_path": self._slm}
        self._state.keep_published(published, config, card_files(card, "slm-adapter"))
        self._status.hold(published)
        log.info("agent.holds", run_id=published.run_id, round=published.round, digest=published.digest)

    async def _take_part(self, assignment: Assignment) -> None:
        """Train (once) an update for a round; say that it is ready, or send it where the run reads updates."""
        run_id, number = assignment.run_id, assignment.round
        manifest = await self._manifest_of(assignment)
        self._policy.require_run(manifest)
        self._policy.require_rounds(self._state.taken_within_a_day(self._clock(), but=(run_id, number)))
        self._state.require_unspent(run_id, number)
        log.info("agent.takes_part", run_id=run_id, round=number)
        if manifest.aggregation == "PlaintextAggregation":
            log.warning("agent.plaintext", run_id=run_id, detail="the coordinator can read this agent's updates")
        self._state.take_part(run_id, number, self._clock())
        if self._holdout is not None:
            self._holdout.take_part(assignment, manifest)
        update = await asyncio.to_thread(self._state.trained_update, assignment)
        if update is None:
            update = await self._train(assignment, manifest)
        self._status.enter(Phase.SENDING, run_id=run_id, round_number=number)
        self._status.worked()
        if manifest.aggregation == "SecureAggregation":
            await self._coordinator.say_ready(run_id, number)
            log.info("agent.ready", run_id=run_id, round=number)
        else:
            file = self._state.update_file(run_id, number)
            examples = update.examples if update.weighted else None
            receipt = await self._coordinator.send_update(run_id, number, file, digest=update.digest, examples=examples)
            log.info("agent.sent", run_id=run_id, round=number, bytes=receipt.bytes)
        if assignment not in self._asked:  # an attempt that failed asks again
            self._status.rounds_taken_part += 1

    async def _train(self, assignment: Assignment, manifest: Manifest) -> StoredUpdate:
        self._status.enter(Phase.TRAINING, run_id=assignment.run_id, round_number=assignment.round)
        await self._fetch(assignment.adapter, manifest)
        self._state.forget_adapters_but(assignment.adapter)
        # By the signed manifest and not by what the coordinator says: no two rounds have the same update summed.
        seed = data_seed(manifest.run_id, manifest.seed, assignment.round, self._name)
        order = TrainingOrder(
            manifest=manifest,
            adapter=self._state.adapter(assignment.adapter),
            into=self._state.update_file(assignment.run_id, assignment.round),
            seed=seed,
        )
        began = self._clock()
        trained = await self._trainer.train(order, self._on_progress)
        seconds = self._clock() - began
        self._status.trained(steps=trained.steps, seconds=seconds, mean_loss=trained.mean_loss)
        log.info(
            "agent.trained",
            run_id=assignment.run_id,
            round=assignment.round,
            steps=trained.steps,
            seconds=round(seconds, 1),
        )
        update = StoredUpdate(
            run_id=assignment.run_id,
            round=assignment.round,
            manifest=assignment.manifest,
            base_model=manifest.slm_digest,
            adapter=assignment.adapter,
            layout=layout_digest(manifest.layout),
            clip_norm=manifest.masking.clip_norm,
            fewest_parties=fewest_parties(manifest.cohort),
            most_parties=manifest.cohort.group_size,
            weighted=manifest.weighting == "examples",
            seed=seed,
            digest=trained.digest,
            examples=trained.examples,
            blinded_count=trained.examples + secrets.randbelow(trained.examples + 1),
            evaluation=trained.evaluation,
        )
        return await asyncio.to_thread(self._keep, update, manifest)

    def _keep(self, update: StoredUpdate, manifest: Manifest) -> StoredUpdate:
        """Make an update durable, with what it has changed in the adapter of its round."""
        before = flat_numbers(self._state.adapter(update.adapter).read_bytes(), manifest.layout)
        after = flat_numbers(self._state.update_file(update.run_id, update.round).read_bytes(), manifest.layout)
        return self._state.keep_update(update, clipped(after - before, update.clip_norm))

    async def _fetch(self, digest: str, manifest: Manifest) -> None:
        """Have an adapter here, and see that it is one: its digest says only that it is what the coordinator named."""
        file = self._state.adapter(digest)
        if not await asyncio.to_thread(self._state.has_adapter, digest):
            size = blob_bytes(manifest.layout)
            self._policy.require_adapter(size, manifest)
            self._status.received_bytes += await self._coordinator.fetch_adapter(digest, file, size=size)
        await asyncio.to_thread(require_file, file, manifest.layout)

    async def _manifest_of(self, assignment: Assignment) -> Manifest:
        """Return the manifest that an assignment names by its digest."""
        if self._manifest is not None and manifest_digest(self._manifest) == assignment.manifest:
            return self._manifest
        manifest = await self._fetch_manifest(assignment.run_id)
        if manifest_digest(manifest) != assignment.manifest:
            raise DigestMismatch(f"the manifest of run {assignment.run_id} is not the one that its round was opened by")
        return manifest

    async def _fetch_manifest(self, run_id: str) -> Manifest:
        """Fetch a run's manifest; one at hand may be older than a coordinator that has started from nothing."""
        manifest = await self._coordinator.manifest(run_id)
        self._manifest = manifest
        return manifest

    def _on_progress(self, progress: Progress) -> None:
        self._status.advance(progress.step, progress.steps, progress.loss)
