"""Differences of methods on the same items: their intervals and tests."""

import math

import numpy as np
import pytest

from bench.paper.statistics import difference, mcnemar, paired_bootstrap


def answers(*rows: str) -> np.ndarray:
    return np.array([[int(right) for right in row] for row in rows], dtype=np.int8)


def test_mcnemar_is_the_binomial_of_the_unequal_answers():
    """Of 10 items that they answer differently 9 speak for the first: two-sided p is 2 (1 + 10) / 2^10."""
    ours, other = answers("1" * 9 + "0" + "1" * 30)[0], answers("0" * 9 + "1" + "1" * 30)[0]
    assert mcnemar(ours, other) == pytest.approx(2 * 11 / 2**10)
    assert mcnemar(other, ours) == pytest.approx(2 * 11 / 2**10)


def test_models_that_answer_alike_are_not_told_apart():
    """The p is 1, and the interval is 0 to 0."""
    same = answers("0110" * 10)
    found = difference(same, same)
    assert (found.points, found.over_items, found.median_p) == (0, (0, 0), 1)
    assert not found.is_clear


def test_the_interval_of_a_difference_is_that_of_a_mean_of_items():
    """For many items it is the normal one: 1.96 standard errors of the items' differences to either side."""
    generator = np.random.default_rng(5)
    ours = (generator.random((1, 2000)) < 0.6).astype(np.int8)
    other = (generator.random((1, 2000)) < 0.5).astype(np.int8)
    each = 100.0 * (ours - other)[0]
    half = 1.96 * each.std() / math.sqrt(2000)
    low, high = paired_bootstrap(ours, other, seed=1)
    assert low == pytest.approx(each.mean() - half, abs=0.15)
    assert high == pytest.approx(each.mean() + half, abs=0.15)


@pytest.mark.parametrize("seed", range(3))
def test_pairing_narrows_the_interval(seed: int):
    """Two models that err on the same hard items are compared more surely than two that err anywhere."""
    generator = np.random.default_rng(seed)
    hard = generator.random(400) < 0.4
    ours, alike = ~hard, ~hard.copy()
    alike[:8] = ~alike[:8]
    apart = generator.permutation(alike)
    as_rows = [one.astype(np.int8)[None, :] for one in (ours, alike, apart)]
    low, high = paired_bootstrap(as_rows[0], as_rows[1], seed=0)
    wide_low, wide_high = paired_bootstrap(as_rows[0], as_rows[2], seed=0)
    assert high - low < wide_high - wide_low


def test_a_model_is_compared_with_each_clients_own_of_its_seed():
    """The p that is told is the median of all these pairs, and one odd pair does not decide it."""
    ours = answers("1" * 20, "1" * 10 + "0" * 10)
    near, far = "1" * 18 + "00", "0" * 20
    found = difference(ours, answers(near, near, near, far))
    assert found.median_p == pytest.approx((0.5 + 2 / 2**8) / 2)
    assert found.points == pytest.approx(75 - 100 * 54 / 80)


def test_one_model_stands_for_every_seed():
    """The models as they came have no seed, and are compared with each seed's."""
    found = difference(answers("1" * 10, "1" * 9 + "0"), answers("0" * 10))
    assert found.median_p == pytest.approx((2 / 2**10 + 2 / 2**9) / 2)


def test_the_interval_over_seeds_is_students():
    """Of the seeds' own differences, with as few degrees of freedom as seeds leave; one seed has none."""
    ours, other = answers("1111111000", "1111110000", "1111111100"), answers("1111100000", "1111110000", "1111000000")
    found = difference(ours, other)
    half = 4.302653 * 20 / math.sqrt(3)  # differences 20, 0 and 40 points
    assert found.over_seeds == pytest.approx((20 - half, 20 + half), abs=1e-3)
    assert not found.is_clear
    assert difference(ours[:1], other[:1]).over_seeds is None


def test_a_difference_is_clear_if_other_items_and_other_seeds_would_show_it():
    """Each client's own model counts in its seed's mean."""
    ours, clients = answers(*["1" * 95 + "0" * 5] * 3), answers(*["1" * 40 + "0" * 60, "1" * 44 + "0" * 56] * 3)
    clients[0, :2] = 0
    found = difference(ours, clients)
    assert found.is_clear
    assert found.points == pytest.approx(95 - 42 + 1 / 3)
    assert found.over_seeds == pytest.approx((53 + 1 / 3 - 1.434, 53 + 1 / 3 + 1.434), abs=1e-3)
