from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from bench.federation import FEDERATION, ManualClock
from services.coordinator.aggregating import PlaintextAggregation
from services.coordinator.blobs import FileBlobs
from services.coordinator.context import Context
from services.coordinator.records import Blob
from services.coordinator.rounds import RoundEngine
from shared.errors import ValuesNotFinite, VersionConflict
from shared.protocol.codec import decode, encode
from shared.protocol.digests import digest_of
from shared.protocol.rounds import RoundState
from shared.protocol.tensors import Layout
from tests.support.federations import RUN, SLM_LAYOUT, adapter, begin, coordinator, submit, terms_of


class Meanwhile:
    """Takes the mean, and lets something happen once before it is handed in."""

    def __init__(self, context: Context, act: Callable[[], object]) -> None:
        self._honest = PlaintextAggregation(context.blobs)
        self._acts = [act]

    def aggregate(self, updates: Sequence[tuple[Blob, int]], layout: Layout) -> Blob:
        """Take the mean, then act."""
        mean = self._honest.aggregate(updates, layout)
        while self._acts:
            self._acts.pop()()
        return mean


def stored(context: Context, digest: str) -> dict[str, np.ndarray]:
    """Return the tensors of a stored blob."""
    return decode(context.blobs.path(digest).read_bytes(), SLM_LAYOUT)


def aggregate_of(context: Context, number: int = 1) -> dict[str, np.ndarray]:
    """Return the tensors of a round's aggregate."""
    with context.store.read() as tx:
        digest = tx.round(RUN, number).aggregate
    assert digest is not None
    return stored(context, digest)


def test_the_aggregate_is_the_mean_of_the_accepted_updates(context: Context) -> None:
    """Every agent counts the same by default."""
    begin(context)
    submit(context, "ada", 1.0)
    submit(context, "bob", 4.0)
    context.rounds.reconcile()
    for values in aggregate_of(context).values():
        np.testing.assert_array_equal(values, np.float32(2.5))


def test_the_weighted_mean_counts_examples(context: Context) -> None:
    """In a weighted run three examples count three times."""
    begin(context, terms_of(weighting="examples"))
    submit(context, "ada", 1.0, examples=3)
    submit(context, "bob", 5.0, examples=1)
    context.rounds.reconcile()
    for values in aggregate_of(context).values():
        np.testing.assert_array_equal(values, np.float32(2.0))


def test_the_order_of_arrival_does_not_change_a_byte(tmp_path: Path, clock: ManualClock) -> None:
    """Updates are added in the order of the agents' names, whoever was first."""
    digests = set()
    for order in (("ada", "bob", "cleo"), ("cleo", "bob", "ada"), ("bob", "cleo", "ada")):
        with coordinator(tmp_path / "-".join(order), clock) as context:
            cohort = terms_of().cohort.model_copy(update={"max_count": 3})
            begin(context, terms_of(cohort=cohort))
            for agent in order:
                submit(context, agent, {"ada": 0.1, "bob": 1e7, "cleo": -1e7}[agent])
            context.rounds.reconcile()
            with context.store.read() as tx:
                digests.add(tx.round(RUN, 1).aggregate)
    assert len(digests) == 1


def damage_bytes(path: Path) -> None:
    """Flip a bit."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(("damage", "code"), [(damage_bytes, "blob_corrupt"), (Path.unlink, "blob_missing")])
def test_an_update_that_rotted_aborts_the_round(damage: Callable[[Path], None], code: str, context: Context) -> None:
    """A wrong byte is noticed before it is averaged: the round is aborted with the reason, and the next one opens."""
    begin(context)
    submit(context, "ada", 1.0)
    submit(context, "bob", 2.0)
    damage(context.blobs.path(digest_of(adapter(2.0))))
    context.rounds.reconcile()
    aborted, following = context.lifecycle.rounds(RUN).rounds
    assert aborted.state is RoundState.ABORTED
    assert aborted.reason.startswith(code)
    assert following.state is RoundState.OPEN


def test_updates_that_overflow_abort_the_round(context: Context) -> None:
    """A mean that is no number never becomes an adapter."""
    begin(context)
    submit(context, "ada", 3e38)
    submit(context, "bob", 3e38)
    context.rounds.reconcile()
    assert context.lifecycle.rounds(RUN).rounds[0].state is RoundState.ABORTED
    assert context.lifecycle.rounds(RUN).rounds[0].reason.startswith(ValuesNotFinite.code)


def test_an_update_that_comes_while_others_are_averaged_is_not_lost(context: Context, clock: ManualClock) -> None:
    """It is either in the aggregate or it has no receipt: here the pass that missed it is thrown away."""
    begin(context)
    submit(context, "ada", 1.0)
    clock.advance(10)
    bob_comes = Meanwhile(context, lambda: submit(context, "bob", 3.0))
    rounds = RoundEngine(context.store, context.blobs, bob_comes, context.rounds._sums, clock, federation=FEDERATION)
    rounds.reconcile()
    assert context.lifecycle.rounds(RUN).rounds[0].state is RoundState.OPEN
    rounds.reconcile()
    for values in aggregate_of(context).values():
        np.testing.assert_array_equal(values, np.float32(2.0))


def test_many_updates_are_added_in_the_order_given(tmp_path: Path) -> None:
    """One buffer serves them all, and the mean is to the bit the one that is taken by hand in that order."""
    blobs = FileBlobs(tmp_path)
    random = np.random.default_rng(3)
    updates = [
        {name: random.normal(size=shape).astype(np.float32) for name, shape in SLM_LAYOUT.items()} for _ in range(17)
    ]
    stored_blobs = [(blobs.put([encode(update)], size=len(encode(update))), 1) for update in updates]
    aggregate = PlaintextAggregation(blobs).aggregate(stored_blobs, SLM_LAYOUT)
    mean = decode(blobs.path(aggregate.digest).read_bytes(), SLM_LAYOUT)
    for name, values in mean.items():
        total = np.zeros_like(values)
        for update in updates:
            total = total + update[name]
        np.testing.assert_array_equal(values, total / np.float32(17))


def test_a_conflict_in_one_run_does_not_stop_the_others(context: Context, clock: ManualClock) -> None:
    """The reconciler goes on to the next run when one of them was changed under its hands."""
    begin(context)
    begin(context, run_id="second")
    for run_id in (RUN, "second"):
        submit(context, "ada", run_id=run_id)
        submit(context, "bob", run_id=run_id)

    def conflict() -> None:
        raise VersionConflict("changed")

    meanwhile, sums = Meanwhile(context, conflict), context.rounds._sums
    rounds = RoundEngine(context.store, context.blobs, meanwhile, sums, clock, federation=FEDERATION)
    rounds.reconcile()
    states = {run_id: context.lifecycle.rounds(run_id).rounds[0].state for run_id in (RUN, "second")}
    assert sorted(states.values()) == [RoundState.AGGREGATED, RoundState.OPEN]
    context.rounds.reconcile()
    assert all(context.lifecycle.rounds(run_id).rounds[0].state is RoundState.AGGREGATED for run_id in states)
