"""Updates as integers of the ring Z_2^32, and sums of them back as a mean.

An agent sends its *delta*, what its training has changed in the adapter of the round, theta_k - theta^t. It is clipped
to an L2 norm of at most C, so that no number of it is above C either, and coded as

    x -> floor(s x + u)    s levels a unit, u uniform in [0, 1), so that the mean over u is s x

in two's complement. Sums cannot overflow, whoever takes part:

    unweighted   s = M / C, M = floor((2^31 - 1) / n_max): each number is at most M, and there are at most n_max
    weighted     s = (2^31 - 1 - n_max) / C, of share_k x: the shares add up to at most 1, and rounding adds 1 a party

The rounding error of a number is below 1/s, once an agent: of the unweighted mean it is below C / M, of the weighted
one below n / s over the sum of the shares. Statistics follow the numbers, each in words of 16 bits whose sums cannot
overflow either, so that they are exact.
"""

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from shared.errors import StatisticTooLarge
from shared.protocol.secagg.masks import Ring
from shared.protocol.tensors import SLICE, Array

Sum: TypeAlias = npt.NDArray[np.int64]

LARGEST = 2**31 - 1
MICRO = 1_000_000
WORD_BITS = 16
WORDS_A_STATISTIC = 3

# So many parties can add up words of 16 bits in 31; a cohort is below that by far.
MOST_PARTIES = LARGEST // (2**WORD_BITS - 1)


@dataclass(frozen=True)
class Coding:
    """How an attempt's updates become integers: C, n_max, and whether they are weighted."""

    clip_norm: float
    most_parties: int
    weighted: bool

    @property
    def largest(self) -> int:
        """The integer that C becomes, where the party's share is 1."""
        return LARGEST - self.most_parties if self.weighted else LARGEST // self.most_parties

    @property
    def levels(self) -> float:
        """The number s of levels a unit."""
        return self.largest / self.clip_norm

    def error_bound(self, parties: int, total_share: float = 1.0) -> float:
        """Return what no number of the mean of ``parties`` is wrong by, beside the clipping.

        ``total_share`` is the sum of the shares of those whose updates are in the sum; unweighted it is 1.
        """
        return (parties if self.weighted else 1) / self.levels / total_share


@dataclass(frozen=True)
class Statistics:
    """What travels in masked slots beside an update: sums over parties are exact.

    ``loss`` is the summed loss of a party's own evaluation in millionths of a nat, ``correct`` of ``total`` its count
    of right answers, and ``weight`` what the update weighs; 0 where there is nothing to tell.
    """

    loss: int = 0
    correct: int = 0
    total: int = 0
    weight: int = 0


FIELDS = ("loss", "correct", "total", "weight")
SLOTS = WORDS_A_STATISTIC * len(FIELDS)


def clipped(delta: Array, clip_norm: float) -> Array:
    """Return ``delta``, shape [parameters], scaled down to an L2 norm of ``clip_norm`` where it has more."""
    norm = l2_norm(delta)
    return delta if norm <= clip_norm else delta * np.float32(clip_norm / norm)


def l2_norm(values: npt.NDArray[np.floating]) -> float:
    """Return the L2 norm of a vector, added up in double precision."""
    slices = (values[start : start + SLICE].astype(np.float64) for start in range(0, values.size, SLICE))
    # Not by BLAS, whose threads spin where there are few cores for many processes.
    return math.sqrt(math.fsum(np.square(piece, out=piece).sum() for piece in slices))


def encode(delta: Array, coding: Coding, *, share: float, seed: int) -> Ring:
    """Return a clipped delta, shape [parameters], as integers of the ring; the same seed rounds in the same way.

    ``share`` is the party's part of the mean where it is weighted, and else 1.
    """
    uniform = np.random.default_rng(seed)
    levels, most = coding.levels * share, math.ceil(coding.largest * share)
    coded = np.empty(delta.size, dtype=np.int32)
    scaled, noise = np.empty((2, min(SLICE, delta.size)))  # made once: new memory costs as much as filling it
    for start in range(0, delta.size, SLICE):
        some = delta[start : start + SLICE]
        piece = np.multiply(some, levels, out=scaled[: some.size], dtype=np.float64)
        piece += uniform.random(out=noise[: some.size])
        np.floor(piece, out=piece)
        # A clipped delta may be above C in its last bit.
        coded[start : start + SLICE] = np.clip(piece, -most, most, out=piece)
    return coded.view(np.uint32)


def signed(total: Ring) -> Sum:
    """Return a sum in the ring as the numbers that it stands for, which sums of several groups can be added as."""
    return total.view(np.int32).astype(np.int64)


def decode_mean(total: Sum, coding: Coding, *, parties: int, total_share: float = 1.0) -> Array:
    """Return the mean delta, shape [parameters], of ``parties`` whose coded deltas add up to ``total``."""
    divisor = coding.levels * (total_share if coding.weighted else parties)
    mean = np.empty(total.size, dtype=np.float32)
    for start in range(0, total.size, SLICE):
        mean[start : start + SLICE] = total[start : start + SLICE] / divisor
    return mean


def encode_statistics(statistics: Statistics) -> Ring:
    """Return statistics as ``SLOTS`` words of 16 bits, lowest first.

    Raises:
        StatisticTooLarge: one is below 0 or does not fit into 48 bits.
    """
    words = []
    for field in FIELDS:
        value = getattr(statistics, field)
        if value < 0 or value >> (WORD_BITS * WORDS_A_STATISTIC):
            raise StatisticTooLarge(f"the {field} of an evaluation is {value}, and must be 0 or more and below 2^48")
        words += [value >> (WORD_BITS * place) & (2**WORD_BITS - 1) for place in range(WORDS_A_STATISTIC)]
    return np.array(words, dtype=np.uint32)


def decode_statistics(total: Sum) -> Statistics:
    """Return the sums of statistics from the sums of their slots."""
    words = total.reshape(len(FIELDS), WORDS_A_STATISTIC).tolist()
    sums = (sum(word << (WORD_BITS * place) for place, word in enumerate(row)) for row in words)
    return Statistics(**dict(zip(FIELDS, sums, strict=True)))
