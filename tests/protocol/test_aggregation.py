from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from shared.errors import ValuesNotFinite
from shared.protocol.aggregation import RunningMean

values = st.floats(-1e3, 1e3, width=32)
updates = st.integers(1, 8).flatmap(
    lambda size: st.lists(hnp.arrays(np.float32, size, elements=values), min_size=1, max_size=8)
)
weights = st.integers(1, 1_000_000)


def mean_of(adapters: list[np.ndarray], by: list[int]) -> np.ndarray:
    """Return the protocol's mean."""
    mean = RunningMean(adapters[0].size)
    for adapter, weight in zip(adapters, by, strict=True):
        mean.add(adapter, weight)
    return mean.result()


def assert_close(actual: np.ndarray, adapters: list[np.ndarray], by: list[int]) -> None:
    """Compare with the mean in float64, to one part in a million of what was added."""
    wide = np.array(adapters, dtype=np.float64)
    expected = np.average(wide, axis=0, weights=by)
    size = np.average(np.abs(wide), axis=0, weights=by)
    assert np.all(np.abs(actual - expected) <= 1e-6 * size + 1e-37)


@given(updates)
def test_the_unweighted_mean_is_the_mean(adapters: list[np.ndarray]) -> None:
    """Every agent counts the same, to 1e-6 of the float64 mean."""
    ones = [1] * len(adapters)
    assert_close(mean_of(adapters, ones), adapters, ones)


@given(updates, st.data())
def test_the_weighted_mean_weights_by_examples(adapters: list[np.ndarray], data: st.DataObject) -> None:
    """An agent with twice the examples counts twice, to 1e-6 of the float64 mean."""
    by = [data.draw(weights) for _ in adapters]
    assert_close(mean_of(adapters, by), adapters, by)


def test_a_weight_of_three_is_three_agents() -> None:
    """Weighting by examples and repeating an agent are the same mean."""
    one, other = np.float32([1, 2]), np.float32([5, 10])
    np.testing.assert_allclose(mean_of([one, other], [3, 1]), mean_of([one, one, one, other], [1, 1, 1, 1]), rtol=1e-6)


def test_the_same_order_gives_the_same_bytes() -> None:
    """The last bits depend on the order, which is why callers must fix it."""
    random = np.random.default_rng(0)
    adapters = [random.normal(size=1000).astype(np.float32) for _ in range(4)]
    results = {mean_of(list(order), [1] * 4).tobytes() for order in permutations(adapters)}
    assert len(results) > 1
    assert mean_of(adapters, [1] * 4).tobytes() == mean_of(adapters, [1] * 4).tobytes()


def test_the_mean_of_one_update_is_that_update() -> None:
    """With one agent nothing is lost to rounding."""
    adapter = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    assert mean_of([adapter], [1]).tobytes() == adapter.tobytes()


@pytest.mark.parametrize("by", [[1, 1], [1_000_000, 1]])
def test_a_sum_that_overflows_is_refused(by: list[int]) -> None:
    """Finite updates whose sum is not finite do not become an adapter full of infinities."""
    huge = np.full(3, 3e38, dtype=np.float32)
    with pytest.raises(ValuesNotFinite, match="aggregate"):
        mean_of([huge, huge], by)


def test_opposite_overflows_are_refused() -> None:
    """Infinity minus infinity is no number, and no adapter either."""
    huge = np.full(3, 3e38, dtype=np.float32)
    with pytest.raises(ValuesNotFinite):
        mean_of([huge, -huge], [1000, 1000])
