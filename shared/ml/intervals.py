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

    Tokens of one example go right and wrong together, so that the examples are drawn and not the tokens: the variance
    is that of a ratio (linearised; Cochran, Sampling Techniques, 1977, section 2.11).
    """
    examples, tokens = len(counts), sum(counts)
    if examples < 2:  # noqa: PLR2004 - one example says nothing of how examples differ
        return None
    share = sum(right) / tokens
    squares = math.fsum((r - share * n) ** 2 for r, n in zip(right, counts, strict=True))
    half = Z * math.sqrt(squares * examples / (examples - 1)) / tokens
    return max(0.0, share - half), min(1.0, share + half)
