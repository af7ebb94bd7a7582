"""How sure an accuracy is: its 95 % interval over examples, which are taken for independent draws."""

import math
from collections.abc import Sequence

Z = 1.959963984540054  # of the normal distribution, 2.5 % are above it


def share_interval(right: int, count: int) -> tuple[float, float]:
    """Return the interval of a share of ``count`` examples, at least one, of which ``right`` were (Wilson, 1927).

    It stays inside 0 and 1, and is an interval for 0 and for ``count`` too.
    """
    share, z2 = right / count, Z * Z
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z * math.sqrt(share * (1 - share) / count + z2 / (4 * count * count)) / (1 + z2 / count)
    return max(0.0, middle - half), min(1.0, middle + half)


def ratio_interval(right: Sequence[int], counts: Sequence[int]) -> tuple[float, float] | None:
    """Return the interval of a share of tokens, of which each example has its own number; None for one example.

    Tokens of one example go right and wrong together, so that the examples are drawn and not the tokens.
    """
    found = mean_interval(right, counts)
    return None if found is None else (max(0.0, found[0]), min(1.0, found[1]))


def mean_interval(sums: Sequence[float], counts: Sequence[int]) -> tuple[float, float] | None:
    """Return the interval of a mean over tokens, of which each example brings its sum and their number; None for one.

    The variance is that of a ratio (linearised; Cochran, Sampling Techniques, 1977, section 2.11). Of differences
    between two models on the same examples it is a paired interval.
    """
    examples, tokens = len(counts), sum(counts)
    if examples < 2:  # noqa: PLR2004 - one example says nothing of how examples differ
        return None
    mean = math.fsum(sums) / tokens
    squares = math.fsum((total - mean * count) ** 2 for total, count in zip(sums, counts, strict=True))
    half = Z * math.sqrt(squares * examples / (examples - 1)) / tokens
    return mean - half, mean + half


def paired_interval(gained: int, lost: int, count: int) -> tuple[float, float]:
    """Return the interval of the difference between two shares of the same ``count`` examples, at least one.

    ``gained`` were right in the first alone, and ``lost`` in the second alone; what both say alike tells nothing of
    the difference. One is added to each and two to the count (adjusted Wald; Bonett and Price, Journal of Educational
    and Behavioral Statistics 37, 2012), so that it is an interval for 0 and for few examples too.
    """
    first, second = (gained + 1) / (count + 2), (lost + 1) / (count + 2)
    half = Z * math.sqrt((first + second - (first - second) ** 2) / (count + 2))
    return max(-1.0, first - second - half), min(1.0, first - second + half)
