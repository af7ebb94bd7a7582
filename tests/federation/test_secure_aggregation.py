"""Whole rounds with secure aggregation, in memory: the coordinator learns sums, and nobody is lost for nothing."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from bench.federation import Federation, ManualClock, open_federation
from bench.no_op import InProcess, NoOpTrainer, evaluation_of, shift_of
from services.client_agent.state import StoredUpdate
from services.client_agent.trainer import LocalEvaluation, Progress, Trained, TrainingOrder
from services.coordinator.records import Round
from shared.errors import TooFewExamples
from shared.protocol.codec import decode
from shared.protocol.messages import AgentsEvaluation
from shared.protocol.rounds import RoundState, RunState, data_seed
from shared.protocol.secagg.coding import Coding
from shared.protocol.terms import CohortTerms, MaskingTerms
from tests.support.cotuners import AddingCoTuner
from tests.support.federations import LLM_LAYOUT, RUN, SLM_LAYOUT, federation, terms_of
from tests.support.players import FOUR, SECURE

pytestmark = pytest.mark.anyio


def aggregate_of(opened: Federation, number: int) -> np.ndarray:
    """Return the numbers of a round's aggregate."""
    current = round_of(opened, number)
    assert current.aggregate is not None
    blob = opened.context.blobs.path(current.aggregate).read_bytes()
    return np.concatenate([values.ravel() for values in decode(blob, SLM_LAYOUT).values()])


def round_of(opened: Federation, number: int = 1) -> Round:
    """Return a round as the store has it."""
    with opened.context.store.read() as tx:
        return tx.round(RUN, number)


async def test_a_run_ends_with_the_mean_of_updates_that_nobody_read(tmp_path: Path) -> None:
    """Two rounds of four agents are published; the first aggregate is the mean of what each has added to zero."""
    async with federation(tmp_path, ManualClock(), agents=FOUR) as opened:
        await opened.start(RUN, terms_of(rounds=2, **SECURE))
        assert (await opened.finish(RUN)).state is RunState.FINISHED
        mean = np.mean([shift_of(data_seed(RUN, 1, 1, name)) for name in FOUR], dtype=np.float64)
        bound = Coding(50.0, 4, weighted=False).error_bound(4)
        assert np.abs(aggregate_of(opened, 1) - mean).max() <= bound + 1e-6
        with opened.context.store.read() as tx:
            assert not tx.updates(RUN, 1)
            assert not tx.attempts.spent()


async def test_a_round_goes_on_without_an_agent_that_falls_silent(tmp_path: Path) -> None:
    """Whoever has said that it is ready and is gone at a stage costs that stage its time, and nothing else."""
    clock = ManualClock()
    async with federation(tmp_path, clock, agents=FOUR) as opened:
        await opened.start(RUN, terms_of(**SECURE))
        while round_of_or_none(opened) is not RoundState.MASKED:
            await opened.step()
        del opened.agents["bob"]
        for _ in range(20):
            await opened.step()
            clock.advance(3)
        assert (await opened.run(RUN)).state is RunState.FINISHED
        rest = [shift_of(data_seed(RUN, 1, 1, name)) for name in FOUR if name != "bob"]
        assert np.allclose(aggregate_of(opened, 1), np.mean(rest), atol=1e-6)
        assert round_of(opened).accepted == 3


def round_of_or_none(opened: Federation) -> RoundState | None:
    """Return where round 1 is, once there is one."""
    with opened.context.store.read() as tx:
        live = tx.live_round(tx.run(RUN))
        return None if live is None else live.state


async def test_weights_are_in_the_mean_and_in_no_message(tmp_path: Path) -> None:
    """Counts are summed first, blinded, and the updates weighted by them."""
    async with federation(tmp_path, ManualClock(), agents=FOUR) as opened:
        await opened.start(RUN, terms_of(weighting="examples", **SECURE))
        assert (await opened.finish(RUN)).state is RunState.FINISHED
        seeds = [data_seed(RUN, 1, 1, name) for name in FOUR]
        weights = [1 + seed % 100 for seed in seeds]
        mean = np.average([shift_of(seed) for seed in seeds], weights=weights)
        assert np.allclose(aggregate_of(opened, 1), mean, atol=1e-6)
        assert round_of(opened).attempt == 2


async def test_counts_are_blinded_before_they_are_masked(tmp_path: Path) -> None:
    """Of their sum the coordinator learns what agents have drawn between their counts and twice these, and no more."""
    cohort = CohortTerms(min_count=4, max_count=4, min_seconds=10, max_seconds=60)
    async with federation(tmp_path, ManualClock(), agents=FOUR) as opened:
        await opened.start(RUN, terms_of(weighting="examples", **{**SECURE, "cohort": cohort}))
        assert (await opened.finish(RUN)).state is RunState.FINISHED
        total = round_of(opened).total_count
    notes = [tmp_path / name / "updates" / f"{RUN}-1.json" for name in FOUR]
    updates = [StoredUpdate.model_validate_json(note.read_bytes()) for note in notes]
    weights = [1 + data_seed(RUN, 1, 1, name) % 100 for name in FOUR]
    assert [update.examples for update in updates] == weights
    assert all(weight <= update.blinded_count <= 2 * weight for weight, update in zip(weights, updates, strict=True))
    assert total == sum(update.blinded_count for update in updates)
    assert total != sum(weights)  # all four draw nothing once in as many times as the product of their counts


async def test_an_agent_clips_what_it_has_changed(tmp_path: Path) -> None:
    """Each is scaled down to the norm that the run says, before it is masked: the mean is one of clipped updates."""
    masking = MaskingTerms(clip_norm=0.5, stage_seconds=5)
    async with federation(tmp_path, ManualClock(), agents=FOUR) as opened:
        await opened.start(RUN, terms_of(**{**SECURE, "masking": masking}))
        assert (await opened.finish(RUN)).state is RunState.FINISHED
        aggregate = aggregate_of(opened, 1)
    shifts = np.array([shift_of(data_seed(RUN, 1, 1, name)) for name in FOUR], dtype=np.float64)
    most = 0.5 / np.sqrt(aggregate.size)
    assert (np.abs(shifts) > most).any()
    assert np.allclose(aggregate, np.clip(shifts, -most, most).mean(), atol=1e-6)


async def test_the_coordinator_learns_what_all_evaluations_add_up_to(tmp_path: Path) -> None:
    """Exactly, under either weighting; each agent's part has travelled beneath a mask, and as often as its update."""
    told = [evaluation_of(data_seed(RUN, 1, 1, name), 10) for name in FOUR]
    for weighting in ("unweighted", "examples"):
        async with federation(tmp_path / weighting, ManualClock(), agents=FOUR) as opened:
            await opened.start(RUN, terms_of(weighting=weighting, evaluation_examples=10, **SECURE))
            assert (await opened.finish(RUN)).state is RunState.FINISHED
            found = (await opened.rounds(RUN)).rounds[0].evaluation
        assert found == AgentsEvaluation(
            examples=40,
            accuracy=sum(each.correct for each in told if each) / 40,
            loss=sum(each.loss for each in told if each) / 40,
        )


async def test_nothing_is_told_of_an_evaluation_that_the_run_does_not_ask_for(tmp_path: Path) -> None:
    """The slots hold zeros, and a round has no evaluation."""
    async with federation(tmp_path, ManualClock(), agents=FOUR) as opened:
        await opened.start(RUN, terms_of(**SECURE))
        await opened.finish(RUN)
        assert (await opened.rounds(RUN)).rounds[0].evaluation is None


class Lying(NoOpTrainer):
    """Tells of another evaluation than the run asks for."""

    def __init__(self, told: LocalEvaluation | None) -> None:
        super().__init__()
        self._told = told

    def train(self, order: TrainingOrder, on_progress: Callable[[Progress], None]) -> Trained:
        """Train as the others do."""
        return super().train(order, on_progress).model_copy(update={"evaluation": self._told})


@pytest.mark.parametrize("asked", [0, 10])
@pytest.mark.parametrize(
    "told",
    [
        LocalEvaluation(loss=1.0, correct=1, total=11),  # more examples than the others
        LocalEvaluation(loss=1.0, correct=50, total=10),  # more right answers than all have examples
        LocalEvaluation(loss=1.0, correct=0, total=0),  # none, and yet a loss
    ],
)
async def test_a_round_whose_evaluations_cannot_be_is_refused(
    tmp_path: Path, asked: int, told: LocalEvaluation
) -> None:
    """At least one agent does not keep the protocol, and then its update is not to be trusted either."""
    trainers = {name: InProcess(NoOpTrainer()) for name in FOUR} | {"bob": InProcess(Lying(told))}
    cotuner = AddingCoTuner(SLM_LAYOUT, LLM_LAYOUT)
    async with open_federation(tmp_path, trainers, cotuner, ManualClock()) as opened:
        await opened.start(RUN, terms_of(evaluation_examples=asked, **SECURE))
        while not (rounds := (await opened.rounds(RUN)).rounds) or rounds[0].ended_at is None:
            await opened.step()
    assert rounds[0].state is RoundState.REFUSED
    assert "sum_implausible: the agents' evaluations add up to" in str(rounds[0].reason)


class Unable(NoOpTrainer):
    """Has nothing to evaluate on."""

    def train(self, order: TrainingOrder, on_progress: Callable[[Progress], None]) -> Trained:
        """Train where no evaluation is asked for."""
        if order.manifest.evaluation_examples:
            raise TooFewExamples("there are none")
        return super().train(order, on_progress)


async def test_an_agent_that_cannot_evaluate_takes_no_part(tmp_path: Path) -> None:
    """The sums are those of the three others, in equal parts."""
    unable, clock = Unable(), ManualClock()
    trainers = {name: InProcess(NoOpTrainer()) for name in FOUR} | {"dan": InProcess(unable)}
    async with open_federation(tmp_path, trainers, AddingCoTuner(SLM_LAYOUT, LLM_LAYOUT), clock) as opened:
        await opened.start(RUN, terms_of(evaluation_examples=10, **SECURE))
        for _ in range(20):
            with suppress(TooFewExamples):
                await opened.step()
            clock.advance(3)
        found = (await opened.rounds(RUN)).rounds[0]
        assert found.state is RoundState.PUBLISHED
        assert (found.accepted, found.evaluation and found.evaluation.examples) == (3, 30)
        assert unable.trainings == 0


async def test_an_agent_that_cannot_evaluate_is_there_for_the_next_run(tmp_path: Path) -> None:
    """Its coordinator is told that it declines the one, and wants it for the other."""
    unable = Unable()
    trainers = {"bob": InProcess(unable)}
    async with open_federation(tmp_path, trainers, AddingCoTuner(SLM_LAYOUT, LLM_LAYOUT), ManualClock()) as opened:
        await opened.start(RUN, terms_of(evaluation_examples=10, **SECURE))
        with pytest.raises(TooFewExamples):
            for _ in range(3):
                await opened.step()
        await opened.start("other", terms_of(**SECURE))
        for _ in range(3):
            with suppress(TooFewExamples):
                await opened.step()
        assert unable.trainings == 1


async def test_two_runs_at_once_lose_nobody(tmp_path: Path) -> None:
    """Between two stages nobody trains for the other run, and what was trained for one outlives what is for the other.

    Both take one attempt a round, and every agent trains once for each.
    """
    trainers = {name: NoOpTrainer() for name in FOUR}
    agents = {name: InProcess(trainer) for name, trainer in trainers.items()}
    cotuner = AddingCoTuner(SLM_LAYOUT, LLM_LAYOUT)
    async with open_federation(tmp_path, agents, cotuner, ManualClock()) as opened:
        for run_id in (RUN, "other"):
            await opened.start(run_id, terms_of(**SECURE))
        assert (await opened.finish(RUN)).state is RunState.FINISHED
        assert (await opened.finish("other")).state is RunState.FINISHED
        with opened.context.store.read() as tx:
            assert [tx.round(run_id, 1).attempt for run_id in (RUN, "other")] == [1, 1]
    assert [trainer.trainings for trainer in trainers.values()] == [2] * 4
