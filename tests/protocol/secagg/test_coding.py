"""Updates become integers whose sums cannot overflow, and come back within the bound that a round publishes."""

import math
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import StatisticTooLarge
from shared.protocol.secagg.coding import (
    FIELDS,
    LARGEST,
    MOST_PARTIES,
    SLOTS,
    Coding,
    Statistics,
    clipped,
    decode_mean,
    decode_statistics,
    encode,
    encode_statistics,
    l2_norm,
    signed,
)
from shared.protocol.secagg.masks import Ring
from shared.protocol.tensors import SLICE, Array

CLIPS = st.floats(2**-10, 2**10, width=32)
SMALLEST_STATISTIC, LARGEST_STATISTIC = 0, 2**48 - 1


def total_of(vectors: list[Ring]) -> Ring:
    """Return the sum in the ring."""
    return np.sum(vectors, axis=0, dtype=np.uint32)


def deltas_of(parties: int, parameters: int, clip_norm: float, seed: int = 1) -> list[Array]:
    """Return clipped deltas, half of them at the clip and the first with all of its norm in one number."""
    random = np.random.default_rng(seed)
    deltas = [random.normal(0, 1 / np.sqrt(parameters), parameters).astype(np.float32) for _ in range(parties)]
    deltas[0] = np.zeros(parameters, dtype=np.float32)
    deltas[0][0] = -3
    return [clipped(delta * np.float32(clip_norm), clip_norm) for delta in deltas]


def shares_of(weights: list[int], seed: int = 1) -> list[float]:
    """Return what each party's update weighs, where the whole is a sum of counts blinded from [w, 2w]."""
    random = np.random.default_rng(seed)
    whole = sum(int(random.integers(weight, 2 * weight + 1)) for weight in weights)
    return [weight / whole for weight in weights]


def weights_of(parties: int, seed: int = 1) -> list[int]:
    """Return weights from 1 to a million, as many small ones as large ones."""
    drawn = np.random.default_rng(seed).uniform(0, 6, parties)
    return [1, 10**6, *(int(10**power) for power in drawn[2:])]


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=20), st.integers(3, 2000), st.integers(0, 2**63))
def test_no_number_is_wrong_by_more_than_a_level(numbers: list[float], most_parties: int, seed: int) -> None:
    """Rounding moves a number to one of its two neighbours."""
    coding = Coding(1.0, most_parties, weighted=False)
    delta = np.array(numbers, dtype=np.float32)
    mean = decode_mean(signed(encode(delta, coding, share=1, seed=seed)), coding, parties=1)
    float32 = 2.0**-24  # of numbers up to 1
    assert np.all(np.abs(mean.astype(np.float64) - delta) <= coding.error_bound(1) + float32)


@given(CLIPS, st.integers(3, 500), st.sampled_from([-1, 1]), st.integers(0, 2**32))
def test_sums_of_the_largest_numbers_do_not_overflow(clip_norm: float, most_parties: int, sign: int, seed: int) -> None:
    """All the parties there may be have all of their norm in the same number, and clipping has left it an ulp above."""
    coding = Coding(clip_norm, most_parties, weighted=False)
    extreme = np.nextafter(np.float32(clip_norm), np.float32(np.inf)) * sign
    coded = [
        encode(np.array([extreme], np.float32), coding, share=1, seed=seed + party).view(np.int32)
        for party in range(most_parties)
    ]
    total = sum(int(each[0]) for each in coded)
    assert -(2**31) <= total <= LARGEST
    assert abs(total) == most_parties * coding.largest


@given(CLIPS, st.lists(st.integers(1, 10**6), min_size=3, max_size=60), st.sampled_from([-1, 1]), st.integers(0, 2**32))
def test_weighted_sums_do_not_overflow_either(clip_norm: float, weights: list[int], sign: int, seed: int) -> None:
    """Even where no count was blinded upwards, so that the shares add up to all that they may."""
    coding = Coding(clip_norm, len(weights), weighted=True)
    extreme = np.nextafter(np.float32(clip_norm), np.float32(np.inf)) * sign
    coded = [
        encode(np.array([extreme], np.float32), coding, share=weight / sum(weights), seed=seed + party)
        for party, weight in enumerate(weights)
    ]
    assert -(2**31) <= sum(int(each.view(np.int32)[0]) for each in coded) <= LARGEST


def test_rounding_is_unbiased() -> None:
    """On the average of many seeds a number is what it was, between two levels and below zero too."""
    coding = Coding(1.0, 50, weighted=False)
    numbers = np.array([0.0, 0.3, -0.3, 0.999, -7.25, 1000.5]) / coding.levels
    count = 20_000
    delta = np.repeat(numbers.astype(np.float32), count)
    coded = encode(delta, coding, share=1, seed=3).view(np.int32).reshape(len(numbers), count)
    exact = numbers.astype(np.float32).astype(np.float64) * coding.levels
    assert np.all(np.abs(coded.mean(axis=1) - exact) < 5 * 0.5 / math.sqrt(count))
    assert np.all(np.abs(coded - exact[:, None]) <= 1)


def test_the_same_seed_rounds_in_the_same_way() -> None:
    """Another attempt masks the same integers; another update is rounded in another way."""
    coding = Coding(1.0, 4, weighted=False)
    delta = np.random.default_rng(1).normal(0, 1e-9, 100).astype(np.float32)
    one, again, other = (encode(delta, coding, share=1, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_coding_goes_on_over_slices() -> None:
    """A vector above a slice is coded and decoded as a whole, each slice rounded in its own way."""
    coding = Coding(1.0, 3, weighted=False)
    delta = np.full(SLICE + 10, 0.4 / coding.levels, dtype=np.float32)
    coded = encode(delta, coding, share=1, seed=1)
    assert set(np.unique(coded)) == {0, 1}
    assert not np.array_equal(coded[:10], coded[-10:])
    mean = decode_mean(signed(coded), coding, parties=1)
    assert mean.shape == delta.shape
    assert np.array_equal(mean[-10:] > 0, coded[-10:] == 1)


@pytest.mark.parametrize("clip_norm", [0.37, 1.0, 25.0])
@pytest.mark.parametrize("parties", [4, 10, 50])
def test_the_mean_is_within_a_millionth_of_the_clip(parties: int, clip_norm: float) -> None:
    """Unweighted, against the mean in double precision."""
    coding = Coding(clip_norm, parties, weighted=False)
    deltas = deltas_of(parties, 5_000, clip_norm)
    coded = [encode(delta, coding, share=1, seed=seed) for seed, delta in enumerate(deltas)]
    error = np.abs(
        decode_mean(signed(total_of(coded)), coding, parties=parties) - np.mean(deltas, axis=0, dtype=np.float64)
    )
    assert error.max() <= 1e-6 * clip_norm
    assert error.max() <= coding.error_bound(parties) + clip_norm * 2.0**-24


@pytest.mark.parametrize("clip_norm", [0.37, 1.0, 25.0])
@pytest.mark.parametrize("parties", [4, 10, 50])
def test_the_weighted_mean_is_within_a_millionth_of_the_clip(parties: int, clip_norm: float) -> None:
    """With weights from 1 to a million."""
    coding = Coding(clip_norm, parties, weighted=True)
    deltas, weights = deltas_of(parties, 5_000, clip_norm), weights_of(parties)
    shares = shares_of(weights)
    coded = [
        encode(delta, coding, share=share, seed=seed)
        for seed, (delta, share) in enumerate(zip(deltas, shares, strict=True))
    ]
    mean = decode_mean(signed(total_of(coded)), coding, parties=parties, total_share=sum(shares))
    error = np.abs(mean - np.average(np.array(deltas, dtype=np.float64), axis=0, weights=weights))
    assert error.max() <= 1e-6 * clip_norm
    assert error.max() <= coding.error_bound(parties, sum(shares)) + clip_norm * 2.0**-24


@pytest.mark.parametrize("lost", [{0}, {1}, set(range(1, 17))])
def test_the_weighted_mean_of_survivors_is_within_the_published_bound(lost: set[int]) -> None:
    """Who falls silent leaves the others' shares of the whole as they were; a heavy one costs precision, as is said."""
    coding, parties = Coding(1.0, 50, weighted=True), 50
    deltas, weights = deltas_of(parties, 1_000, 1.0), weights_of(parties)
    shares = shares_of(weights)
    there = [party for party in range(parties) if party not in lost]
    coded = [encode(deltas[party], coding, share=shares[party], seed=party) for party in there]
    total_share = sum(shares[party] for party in there)
    mean = decode_mean(signed(total_of(coded)), coding, parties=len(there), total_share=total_share)
    exact = np.average(
        np.array([deltas[party] for party in there], np.float64), axis=0, weights=[weights[party] for party in there]
    )
    assert np.abs(mean - exact).max() <= coding.error_bound(len(there), total_share) + 2.0**-24


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=50), CLIPS)
def test_clipping_keeps_the_direction_and_bounds_the_norm(numbers: list[float], clip_norm: float) -> None:
    """What is short enough stays as it is."""
    delta = np.array(numbers, dtype=np.float32)
    short = clipped(delta, clip_norm)
    assert l2_norm(short) <= clip_norm * (1 + 1e-6)
    if l2_norm(delta) <= clip_norm:
        assert short is delta
    else:
        assert l2_norm(short) >= clip_norm * (1 - 1e-6)
        np.testing.assert_allclose(short, delta * (clip_norm / l2_norm(delta)), rtol=1e-6, atol=1e-37)


def test_a_norm_is_added_up_in_double_precision_over_slices() -> None:
    """In single precision the small numbers would be lost."""
    values = np.full(SLICE + 1, 1e-4, dtype=np.float32)
    values[0] = 1
    assert l2_norm(values) == pytest.approx(math.sqrt(1 + SLICE * float(np.float32(1e-4)) ** 2), rel=1e-12)


statistics_ = st.builds(
    Statistics, **dict.fromkeys(FIELDS, st.integers(SMALLEST_STATISTIC, LARGEST_STATISTIC) | st.just(LARGEST_STATISTIC))
)


@given(st.lists(statistics_, min_size=1, max_size=20))
def test_sums_of_statistics_are_exact(parties: list[Statistics]) -> None:
    """Nothing of them is rounded, and nothing of one runs over into another."""
    total = total_of([encode_statistics(each) for each in parties])
    assert total.shape == (SLOTS,)
    assert astuple(decode_statistics(signed(total))) == tuple(map(sum, zip(*map(astuple, parties), strict=True)))


def test_the_statistics_of_all_parties_there_may_be_do_not_overflow() -> None:
    """Words of 16 bits leave room for so many."""
    largest = Statistics(*[LARGEST_STATISTIC] * len(FIELDS))
    words = encode_statistics(largest).astype(np.uint64) * MOST_PARTIES
    assert words.max() <= LARGEST
    assert decode_statistics(signed(words.astype(np.uint32))).loss == MOST_PARTIES * LARGEST_STATISTIC


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", [-1, 2**48])
def test_a_statistic_that_does_not_fit_is_refused(field: str, value: int) -> None:
    """It would run over into the next one."""
    with pytest.raises(StatisticTooLarge, match=field):
        encode_statistics(Statistics(**{field: value}))
