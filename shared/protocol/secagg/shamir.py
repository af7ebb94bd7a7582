"""Shamir's secret sharing: any t of n shares give a secret back, and fewer say nothing about it.

Secrets of 32 bytes are numbers below p = 2^256 + 297, a prime. A share is a point of a random polynomial of degree
t - 1 whose value at 0 is the secret: holder i of 1 to n has f(i) mod p, as 33 bytes.
"""

import secrets
from collections.abc import Callable, Mapping
from functools import lru_cache

from shared.errors import ShareInvalid

PRIME = 2**256 + 297
SECRET_BYTES = 32
SHARE_BYTES = 33


def split(
    secret: bytes, *, threshold: int, count: int, random_below: Callable[[int], int] = secrets.randbelow
) -> list[bytes]:
    """Return ``count`` shares of a secret of 32 bytes, of which any ``threshold`` give it back; the first is f(1)."""
    coefficients = [*(random_below(PRIME) for _ in range(threshold - 1)), int.from_bytes(secret, "big")]
    return [_value(coefficients, holder).to_bytes(SHARE_BYTES, "big") for holder in range(1, count + 1)]


def combine(shares: Mapping[int, bytes]) -> bytes:
    """Return the secret that ``shares``, by the numbers of their holders, are of; as many as the threshold.

    Raises:
        ShareInvalid: they are no shares of one secret of 32 bytes.
    """
    holders = tuple(sorted(shares))
    pairs = zip(coefficients_at(0, holders), holders, strict=True)
    secret = sum(coefficient * decode(shares[holder]) for coefficient, holder in pairs) % PRIME
    if secret >> (8 * SECRET_BYTES):
        raise ShareInvalid("the shares are not of one secret of 32 bytes")
    return secret.to_bytes(SECRET_BYTES, "big")


def decode(share: bytes) -> int:
    """Return the number that a share is.

    Raises:
        ShareInvalid: it is none below the prime, in 33 bytes.
    """
    number = int.from_bytes(share, "big")
    if len(share) != SHARE_BYTES or number >= PRIME:
        raise ShareInvalid(f"a share is a number below the prime in {SHARE_BYTES} bytes, and this is none")
    return number


@lru_cache(maxsize=1024)
def coefficients_at(place: int, holders: tuple[int, ...]) -> tuple[int, ...]:
    """Return Lagrange's coefficients: f(place) is the sum of coefficient times share over ``holders``."""
    coefficients = []
    for holder in holders:
        above, below = 1, 1
        for other in holders:
            if other != holder:
                above = above * (place - other) % PRIME
                below = below * (holder - other) % PRIME
        coefficients.append(above * pow(below, -1, PRIME) % PRIME)
    return tuple(coefficients)


def _value(coefficients: list[int], place: int) -> int:
    """Return a polynomial's value by Horner's rule; the coefficient of the highest power is first."""
    value = 0
    for coefficient in coefficients:
        value = (value * place + coefficient) % PRIME
    return value
