"""Whole rounds with secure aggregation, in memory: the coordinator learns sums, and nobody is lost for nothing."""

from pathlib import Path

import numpy as np
import pytest

from bench.federation import Federation, ManualClock
from bench.no_op import shift_of
from services.coordinator.records import Round
from shared.protocol.codec import decode
from shared.protocol.rounds import RoundState, RunState, data_seed
from shared.protocol.secagg.coding import Coding
from shared.protocol.terms import CohortTerms, MaskingTerms
from tests.support.federations import RUN, SLM_LAYOUT, federation, terms_of

pytestmark = pytest.mark.anyio

FOUR = ("ada", "bob", "cleo", "dan")
COHORT = CohortTerms(min_count=3, max_count=4, min_seconds=10, max_seconds=60)
SECURE = {
    "aggregation": "SecureAggregation",
    "cohort": COHORT,
    "masking": MaskingTerms(clip_norm=50.0, stage_seconds=5),
}


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
        mean = np.mean([shift_of(data_seed(1, 1, name)) for name in FOUR], dtype=np.float64)
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
        rest = [shift_of(data_seed(1, 1, name)) for name in FOUR if name != "bob"]
        assert np.allclose(aggregate_of(opened, 1), np.mean(rest), atol=1e-6)


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
        seeds = [data_seed(1, 1, name) for name in FOUR]
        weights = [1 + seed % 100 for seed in seeds]
        mean = np.average([shift_of(seed) for seed in seeds], weights=weights)
        assert np.allclose(aggregate_of(opened, 1), mean, atol=1e-6)
        assert round_of(opened).attempt == 2
