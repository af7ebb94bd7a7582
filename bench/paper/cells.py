"""One run of one method: a federation in memory, the product's own engine and agents, and then the judge.

A run that was stopped goes on where it was: its coordinator's store lies in the cell's folder, like any other's.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from pydantic import BaseModel, TypeAdapter

from bench.federation import ManualClock, open_federation
from bench.no_op import InProcess
from bench.paper.config import Experiment
from bench.paper.judge import Judge, Measured
from bench.paper.methods import ROLES, Cell, methods_of, terms_of
from bench.paper.parties import AUXILIARY, VALIDATION, Parties
from services.client_agent.lora_trainer import LoraTrainer
from services.client_agent.status import Status
from services.client_agent.trainer import Progress, Trained, Trainer, TrainingOrder
from services.coordinator.records import Round
from services.coordinator.worker.model_pair import ModelPair
from shared.folders import write_whole
from shared.protocol.codec import blob_bytes
from shared.protocol.messages import RoundScores, RunView
from shared.protocol.rounds import RoundState, RunState
from shared.protocol.tensors import parameter_count
from shared.protocol.terms import FROZEN, RunTerms

RUN_ID = "paper"
STEPS_A_ROUND = 60  # of everybody in turn; a round of secure aggregation takes some ten


class Sent(BaseModel):
    """What one agent has sent in a whole run, and fetched: bytes of requests, heads too, and of adapters."""

    sent_bytes: int
    fetched_bytes: int
    model_config = FROZEN


_BY_AGENT = TypeAdapter(dict[str, Sent])


class Adapter(BaseModel):
    """How large what travels is."""

    parameters: int
    bytes: int
    model_config = FROZEN


class Made(BaseModel):
    """When a cell was run, and by what; ``jobs`` at a time. What a report of it says is of this."""

    date: str
    machine: str
    jobs: int
    versions: str
    code: str
    model_config = FROZEN


class Outcome(BaseModel):
    """What came of a cell.

    measured: by model: ``slm_aggregated`` (the last round's mean), ``slm`` and ``llm`` (after co-tuning), as far as the
        method has them.
    curve: of every round, on the validation set.
    steps: optimiser steps of each agent on its own examples, over all rounds, refused ones too.
    ended: why the run ended before its last round, if it did: what is measured was published until then.
    """

    method: str
    agents: tuple[str, ...]
    seed: int
    rounds: int
    measured: Mapping[str, Measured] = {}
    curve: tuple[RoundScores, ...] = ()
    steps: Mapping[str, int] = {}
    traffic: Mapping[str, Sent] = {}
    adapter: Adapter | None = None
    seconds: float = 0.0
    ended: str | None = None
    made: Made | None = None
    model_config = FROZEN


@dataclass(frozen=True)
class Place:
    """Where a cell finds what it needs: models, everybody's examples, and a folder that is its own."""

    llm: Path
    slm: Path
    parties: Parties
    folder: Path
    digest_cache: Path


class _Counted:
    """Notes down how many optimiser steps each training takes: a run that is stopped and goes on has them all."""

    def __init__(self, name: str, trainer: Trainer, notes: Path, say: Callable[[str], None]) -> None:
        self._name = name
        self._trainer = trainer
        self._notes = notes
        self._say = say

    async def train(self, order: TrainingOrder, on_progress: Callable[[Progress], None]) -> Trained:
        """Train, and write the steps down under the round's seed: one that is done again counts once."""
        self._say(f"{self._name} trains")
        trained = await self._trainer.train(order, on_progress)
        with self._notes.open("a") as notes:
            notes.write(json.dumps([self._name, order.seed, trained.steps]) + "\n")
        return trained


class _Traffic:
    """Notes down what agents send and fetch, so that a run that is stopped and goes on has all of it.

    Only a kill loses something: what was sent since the last step.
    """

    def __init__(self, statuses: Mapping[str, Status], notes: Path) -> None:
        self._statuses = statuses
        self._notes = notes
        self._before = _BY_AGENT.validate_json(notes.read_bytes()) if notes.exists() else {}

    def note(self) -> Mapping[str, Sent]:
        """Return what each agent has sent and fetched so far, and write it down."""
        found = {}
        for name, status in self._statuses.items():
            before = self._before.get(name, Sent(sent_bytes=0, fetched_bytes=0))
            found[name] = Sent(
                sent_bytes=before.sent_bytes + status.sent.bytes,
                fetched_bytes=before.fetched_bytes + status.received_bytes,
            )
        write_whole(self._notes, _BY_AGENT.dump_json(found))
        return found


async def run_cell(experiment: Experiment, cell: Cell, place: Place, say: Callable[[str], None]) -> Outcome:
    """Run a cell to its end.

    Args:
        experiment: what it is a part of.
        cell: what to run; one without agents is of the models as they came.
        place: where.
        say: is told what is being done, in a few words.

    Raises:
        RuntimeError: the run has not finished; the message has its reason.
    """
    started = perf_counter()
    terms = terms_of(experiment, cell, llm=place.llm, slm=place.slm)
    place.folder.mkdir(parents=True, exist_ok=True)
    if not cell.agents:
        found = Outcome(method=cell.method, agents=(), seed=cell.seed, rounds=0)
        files: Mapping[str, Path | None] = {"slm": None, "llm": None}
    else:
        found, files = await _federate(experiment, cell, terms, place, say)
    measured = _judge(experiment, terms, place, files, say)
    if methods_of(experiment)[cell.method].trains == "llm":
        measured = {"llm": measured["slm"]}
    return found.model_copy(update={"measured": measured, "seconds": round(perf_counter() - started, 1)})


async def _federate(
    experiment: Experiment, cell: Cell, terms: RunTerms, place: Place, say: Callable[[str], None]
) -> tuple[Outcome, Mapping[str, Path]]:
    """Run the federation; what is measured is left to the judge, and so are the adapters' files."""
    notes = place.folder / "steps.jsonl"
    agents = {name: _Counted(name, _trainer(experiment, name, terms, place), notes, say) for name in cell.agents}
    pair = ModelPair(
        auxiliary=place.parties.source(AUXILIARY),
        validation=place.parties.source(VALIDATION),
        device=experiment.device,
        dtype=experiment.dtype,
        digest_cache=place.digest_cache,
    )
    async with open_federation(place.folder, agents, pair, ManualClock()) as federation:
        traffic = _Traffic(federation.statuses, place.folder / "traffic.json")

        def on_step(view: RunView) -> None:
            traffic.note()
            federation.clock.advance(1)  # or the lease of a worker that was killed would last for ever
            say(f"round {view.round} of {terms.rounds}")

        try:
            await federation.start(RUN_ID, terms)
            view = await federation.finish(RUN_ID, most_steps=STEPS_A_ROUND * (terms.rounds + 1), on_step=on_step)
        finally:
            sent = traffic.note()
        with federation.context.store.read() as tx:
            every_round = tx.rounds(RUN_ID)
        rounds = [one for one in every_round if one.state is RoundState.PUBLISHED]
        finished = view.state is RunState.FINISHED
        # A gate that refuses round after round ends a run too: that is its result.
        if not rounds or not (finished or every_round[-1].state is RoundState.REFUSED):
            shutil.rmtree(place.folder)  # a run that has failed cannot go on
            raise RuntimeError(f"{cell.name}: the run is {view.state}, {view.reason or 'and nothing was published'}")
        layout = federation.context.lifecycle.manifest(RUN_ID).manifest.layout
        found = Outcome(
            method=cell.method,
            agents=cell.agents,
            seed=cell.seed,
            rounds=len(rounds),
            curve=tuple(one.scores for one in rounds if one.scores is not None),
            steps=steps_of(notes),
            traffic=sent,
            adapter=Adapter(parameters=parameter_count(layout), bytes=blob_bytes(layout)),
            ended=None if finished else view.reason,
        )
        last = _adapters(rounds[-1], cotuned=terms.cotuning.passes > 0)
        return found, {name: federation.context.blobs.path(digest) for name, digest in last.items()}


def _trainer(experiment: Experiment, name: str, terms: RunTerms, place: Place) -> Trainer:
    return InProcess(
        LoraTrainer(
            slm=terms.slm,
            data=place.parties.source(name),
            device=experiment.device,
            dtype=experiment.dtype,
            digest_cache=place.digest_cache,
        )
    )


def _adapters(last: Round, *, cotuned: bool) -> dict[str, str]:
    """Return the digests of what is measured: without co-tuning, the aggregate is what is published."""
    named = {"slm_aggregated": last.aggregate, "slm": last.slm_candidate, "llm": last.llm_candidate}
    return {name: digest for name, digest in named.items() if digest and (cotuned or name == "slm")}


def steps_of(notes: Path) -> dict[str, int]:
    """Return each agent's steps; a training that was done twice, because the run was stopped in it, counts once."""
    by_training = {(name, seed): steps for name, seed, steps in map(json.loads, notes.read_text().splitlines())}
    total: Counter[str] = Counter()
    for (name, _), steps in by_training.items():
        total[name] += steps
    return dict(total)


def _judge(
    experiment: Experiment,
    terms: RunTerms,
    place: Place,
    files: Mapping[str, Path | None],
    say: Callable[[str], None],
) -> dict[str, Measured]:
    """Measure each adapter, one base model after the other."""
    source = place.parties.source(place.parties.measured_on)
    measured = {}
    for role in ROLES:
        names = [name for name in files if name.startswith(role)]
        if not names:
            continue
        judge = Judge(terms, role, source, device=experiment.device, dtype=experiment.dtype)
        for name in names:
            say(f"{name} is measured")
            measured[name] = judge.measure(files[name])
    return measured
