"""How exact a secure sum is: against sums of integers without masks, and against the mean in double precision."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from bench.exchange import Lost, exchange
from shared.protocol.secagg.coding import (
    SLOTS,
    Coding,
    Statistics,
    Sum,
    clipped,
    decode_mean,
    decode_statistics,
    encode,
    encode_statistics,
    signed,
)
from shared.protocol.secagg.masks import Ring
from shared.protocol.tensors import Array

CLIP_NORM = 0.5
PARAMETERS = 100_000
LARGEST_WEIGHT = 10**6


@dataclass(frozen=True)
class Exactness:
    """How exact a sum of masked integers is, and the mean that it becomes; errors are multiples of the clip."""

    bit_exact: bool
    error: float
    bound: float


def exactness(parties: int, *, weights: Sequence[int] | None = None, lost: Collection[int] = ()) -> Exactness:
    """Measure the mean of those who are not lost with their masked vectors; without ``weights`` all count the same."""
    coding = Coding(CLIP_NORM, parties, weighted=weights is not None)
    whole, counts_exact = (parties, True) if weights is None else _whole(weights)
    weight_of = [1] * parties if weights is None else weights
    deltas = deltas_of(parties)
    vectors = [
        np.concatenate(
            [
                encode(delta, coding, share=1 if weights is None else weight / whole, seed=seed),
                encode_statistics(Statistics(weight=weight)),
            ]
        )
        for seed, (delta, weight) in enumerate(zip(deltas, weight_of, strict=True))
    ]
    total, bit_exact = _summed(vectors, lost)
    there = [place for place in range(parties) if place not in lost]
    share = 1.0 if weights is None else decode_statistics(total[-SLOTS:]).weight / whole
    mean = decode_mean(total[:-SLOTS], coding, parties=len(there), total_share=share)
    wide = np.array([deltas[place] for place in there], dtype=np.float64)
    error = np.abs(mean - np.average(wide, axis=0, weights=[weight_of[place] for place in there]))
    bound = coding.error_bound(len(there), share)
    return Exactness(bit_exact and counts_exact, float(error.max()) / CLIP_NORM, bound / CLIP_NORM)


def weights_of(parties: int) -> list[int]:
    """Return weights from 1 to a million, as many of each size, the lightest first and the heaviest last."""
    return [round(LARGEST_WEIGHT ** (place / (parties - 1))) for place in range(parties)]


def deltas_of(parties: int) -> list[Array]:
    """Return clipped deltas; the first has all of its norm in one number."""
    random = np.random.default_rng(parties)
    deltas = [random.standard_normal(PARAMETERS, dtype=np.float32) for _ in range(parties)]
    deltas[0] = np.zeros(PARAMETERS, dtype=np.float32)
    deltas[0][0] = -1
    return [clipped(delta, CLIP_NORM) for delta in deltas]


def _whole(weights: Sequence[int]) -> tuple[int, bool]:
    """Return what the blinded counts add up to, each drawn from a weight to its double, and whether that is exact."""
    random = np.random.default_rng(len(weights))
    blinded = [int(random.integers(weight, 2 * weight + 1)) for weight in weights]
    total, bit_exact = _summed([encode_statistics(Statistics(weight=count)) for count in blinded], ())
    whole = decode_statistics(total).weight
    return whole, bit_exact and whole == sum(blinded)


def _summed(vectors: Sequence[Ring], lost: Collection[int]) -> tuple[Sum, bool]:
    """Return the sum of the survivors' masked vectors, and whether it is that of their integers to the last bit."""
    named = {f"agent-{place:02}": vector for place, vector in enumerate(vectors)}
    outcome = exchange(named, Lost(masked=[f"agent-{place:02}" for place in lost]))
    oracle = np.sum([signed(vector) for place, vector in enumerate(vectors) if place not in lost], axis=0)
    total = signed(outcome.total)
    return total, np.array_equal(total, oracle)
