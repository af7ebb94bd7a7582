"""Measures, in spare time, what a run has brought this organisation: on examples that are not trained on.

Between rounds the trainer also goes on with an adapter of this organisation's data alone, round by round as often as
for the run, and measures it beside the base model, the published adapter and, where the run shares it, the aggregate.
No round waits for that, and nothing of it leaves: ``holdout_report.py`` makes a report of it.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

import structlog

from services.client_agent.coordinator_client import CoordinatorClient
from services.client_agent.holdout_folder import AGGREGATE, BASE, PUBLISHED, STANDALONE, HoldOutFolder, Model, RunNote
from services.client_agent.holdout_report import report_of
from services.client_agent.state import StateFolder
from services.client_agent.trainer import Measured, MeasureOrder, SpareTimeTrainer, StandaloneOrder, Trained
from shared.errors import FedCoLLMError
from shared.protocol.codec import blob_bytes, require_file
from shared.protocol.manifest import Manifest
from shared.protocol.membership import RoundPlace
from shared.protocol.messages import Assignment, PublishedAdapter
from shared.protocol.rounds import data_seed
from shared.storing import storing

log = structlog.get_logger()


class HoldOut:
    """One agent's hold-out."""

    def __init__(
        self,
        coordinator: CoordinatorClient,
        trainer: SpareTimeTrainer,
        state: StateFolder,
        folder: HoldOutFolder,
        *,
        name: str,
        clock: Callable[[], float],
    ) -> None:
        """``name`` is the agent's; ``clock`` gives the seconds since 1970."""
        self._coordinator = coordinator
        self._trainer = trainer
        self._state = state
        self._folder = folder
        self._name = name
        self._clock = clock
        self._run_id = folder.newest_run()
        self._held: tuple[PublishedAdapter, str | None] | None = None
        self._in_vain: set[RoundPlace] = set()
        self._has_told = False
        self._spare_time, self._news = asyncio.Event(), asyncio.Event()
        self._news.set()

    # --- what the agent tells -----------------------------------------------------------------------------------

    def take_part(self, assignment: Assignment, manifest: Manifest) -> None:
        """The agent begins a round: there is no spare time until it waits again."""
        self._spare_time.clear()
        self._folder.take_part(assignment, manifest)
        self._run_id = manifest.run_id
        self._news.set()

    def wait(self) -> None:
        """The agent waits, and its trainer does so too."""
        self._spare_time.set()

    def hold(self, published: PublishedAdapter, aggregate: str | None) -> None:
        """The agent holds an adapter, which was co-tuned from ``aggregate``, if that is shared."""
        if (published, aggregate) == self._held:
            return
        self._held = published, aggregate
        note = self._folder.note(published.run_id)
        if note is not None and note.trainings(published.round):
            self._folder.hold(published, self._state.adapter(published.digest))
            self._news.set()

    # --- what it does in spare time -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Do what is to be done until cancelled; what fails is in the report, and tried again after the next news."""
        while True:
            await self._news.wait()
            await self._spare_time.wait()
            self._news.clear()
            try:
                with storing("the agent's state_dir"):
                    if await self.step():
                        self._news.set()
            except (FedCoLLMError, OSError) as error:
                code = error.code if isinstance(error, FedCoLLMError) else "machine"
                log.warning("holdout.failed", run_id=self._run_id, code=code, detail=str(error))
                with suppress(OSError):  # a full disk: the log has said so
                    self._report(trouble=f"{code}: {error}")

    async def step(self) -> bool:
        """Do one thing that is to be done; return whether there was one."""
        run_id = self._run_id
        note = None if run_id is None else self._folder.note(run_id)
        if run_id is None or note is None:
            return False
        if not self._has_told:  # the agent may have been killed between a measurement and the report of it
            self._report()
            self._has_told = True
        aggregate = await self._fetched(run_id, note.manifest)
        published, standalone = (self._folder.newest(run_id, kind) for kind in (PUBLISHED, STANDALONE))
        for model in (BASE, published, aggregate, standalone):
            if model is not None and not self._folder.has(run_id, model):
                return await self._measure(note.manifest, model)
        trained = standalone.number if standalone else 0
        return trained < len(note.rounds) and await self._train(note, standalone, Model(STANDALONE, trained + 1))

    async def _fetched(self, run_id: str, manifest: Manifest) -> Model | None:
        """Return the aggregate of the round that has published last, fetched if it is shared and not here yet."""
        here = self._folder.newest(run_id, AGGREGATE)
        if here is not None or self._held is None or not manifest.share_aggregate:
            return here
        (published, digest), draft = self._held, self._folder.draft(run_id)
        place = RoundPlace(run_id=published.run_id, round=published.round)
        if digest is None or place.run_id != run_id or place in self._in_vain:
            return None
        try:
            size = blob_bytes(manifest.layout)
            await self._coordinator.fetch_aggregate(place, draft, digest=digest, size=size)
            await asyncio.to_thread(require_file, draft, manifest.layout)
        except FedCoLLMError as error:
            self._in_vain.add(place)  # the rest of the report does not need it
            log.warning("holdout.no_aggregate", run_id=run_id, round=place.round, code=error.code, detail=str(error))
            return None
        model = Model(AGGREGATE, place.round)
        return model if self._folder.keep(run_id, model, digest) else None

    async def _measure(self, manifest: Manifest, model: Model) -> bool:
        order = MeasureOrder(manifest=manifest, adapter=self._folder.adapter(manifest.run_id, model))
        measured = await self._trainer.between(order)
        if isinstance(measured, Measured):
            self._folder.keep_measured(manifest.run_id, model, measured)
            log.info("holdout.measured", run_id=manifest.run_id, what=model.file)
            self._report()
        return True

    async def _train(self, note: RunNote, before: Model | None, model: Model) -> bool:
        """Go on with the adapter of this organisation's data alone, as the run has by its training for this round."""
        manifest, number = note.manifest, note.rounds[model.number - 1].round
        order = StandaloneOrder(
            manifest=manifest,
            adapter=None if before is None else self._folder.adapter(manifest.run_id, before),
            into=self._folder.draft(manifest.run_id),
            seed=data_seed(manifest.run_id, manifest.seed, number, self._name),
        )
        trained = await self._trainer.between(order)
        if isinstance(trained, Trained):
            self._folder.keep(manifest.run_id, model, trained.digest)
            log.info("holdout.trained", run_id=manifest.run_id, round=number, steps=trained.steps)
        return True

    def _report(self, *, trouble: str | None = None) -> None:
        note = None if self._run_id is None else self._folder.note(self._run_id)
        if self._run_id is None or note is None:
            return
        at = datetime.fromtimestamp(self._clock(), UTC)
        report = report_of(note, self._folder.measured(self._run_id), trouble=trouble, at=at)
        self._folder.write_report(self._run_id, report)
