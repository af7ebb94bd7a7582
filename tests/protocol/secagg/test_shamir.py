"""Shares of secrets, with the package ``shamirs`` as an independent oracle."""

from itertools import combinations

import pytest
import shamirs
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import ShareInvalid
from shared.protocol.secagg.shamir import PRIME, SHARE_BYTES, coefficients_at, combine, decode, split

SECRET = bytes(range(32))
SECRETS = st.binary(min_size=32, max_size=32)


@st.composite
def sizes(draw: st.DrawFn) -> tuple[int, int]:
    """Return a threshold and a number of shares."""
    count = draw(st.integers(2, 12))  # the oracle deals no single share
    return draw(st.integers(1, count)), count


def numbered(shares: list[bytes], holders: tuple[int, ...]) -> dict[int, bytes]:
    """Return the shares of some holders by their numbers."""
    return {holder: shares[holder - 1] for holder in holders}


@given(SECRETS, sizes(), st.data())
def test_any_t_shares_give_the_secret(secret: bytes, size: tuple[int, int], data: st.DataObject) -> None:
    """Whoever is lost, as long as t are left."""
    threshold, count = size
    holders = data.draw(st.permutations(range(1, count + 1)))[:threshold]
    assert combine(numbered(split(secret, threshold=threshold, count=count), tuple(holders))) == secret


@given(SECRETS, sizes(), st.data())
def test_the_oracle_reads_our_shares(secret: bytes, size: tuple[int, int], data: st.DataObject) -> None:
    """Ours are points of a polynomial of degree t - 1 modulo the same prime."""
    threshold, count = size
    holders = data.draw(st.permutations(range(1, count + 1)))[:threshold]
    shares = numbered(split(secret, threshold=threshold, count=count), tuple(holders))
    theirs = [shamirs.share(holder, decode(share), PRIME) for holder, share in shares.items()]
    assert shamirs.interpolate(theirs).to_bytes(32, "big") == secret


@given(SECRETS, sizes(), st.data())
def test_we_read_the_shares_of_the_oracle(secret: bytes, size: tuple[int, int], data: st.DataObject) -> None:
    """And the other way round."""
    threshold, count = size
    theirs = shamirs.shares(int.from_bytes(secret, "big"), quantity=count, modulus=PRIME, threshold=threshold)
    some = data.draw(st.permutations(theirs))[:threshold]
    assert combine({share.index: share.value.to_bytes(SHARE_BYTES, "big") for share in some}) == secret


@given(SECRETS, SECRETS, sizes(), st.data())
def test_fewer_shares_are_consistent_with_every_secret(
    secret: bytes, other: bytes, size: tuple[int, int], data: st.DataObject
) -> None:
    """To t - 1 shares and any other secret there is a polynomial, so they say nothing."""
    threshold, count = size
    holders = data.draw(st.permutations(range(1, count + 1)))[:threshold]
    shares = numbered(split(secret, threshold=threshold, count=count), tuple(holders))
    missing = holders[-1]
    # The share that would make the others those of the other secret: f(missing) of the polynomial through them and it.
    known = {holder: decode(shares[holder]) for holder in holders[:-1]} | {0: int.from_bytes(other, "big")}
    places = tuple(known)
    value = sum(c * y for c, y in zip(coefficients_at(missing, places), known.values(), strict=True)) % PRIME
    assert combine({**shares, missing: value.to_bytes(SHARE_BYTES, "big")}) == other


def test_shares_are_random() -> None:
    """The same secret has other shares each time, and no share of a threshold above one is the secret."""
    one, two = (split(SECRET, threshold=2, count=3) for _ in range(2))
    assert not set(one) & set(two)
    assert bytes(1) + SECRET not in one


@pytest.mark.parametrize("share", [b"", bytes(32), bytes(34), PRIME.to_bytes(33, "big"), b"\xff" * 33])
def test_what_is_no_share_is_refused(share: bytes) -> None:
    """Its length and its range are checked before anything is done with it."""
    with pytest.raises(ShareInvalid):
        decode(share)
    with pytest.raises(ShareInvalid):
        combine({1: share})


def test_a_secret_of_more_than_32_bytes_is_refused() -> None:
    """The prime is a little above 2^256, and what is between is no secret."""
    with pytest.raises(ShareInvalid, match="32 bytes"):
        combine({1: (2**256).to_bytes(SHARE_BYTES, "big")})


def test_coefficients_are_kept() -> None:
    """The same holders release shares of many secrets, and what depends on the holders alone is computed once."""
    coefficients_at.cache_clear()
    for holders in combinations(range(1, 5), 3):
        for secret in (SECRET, bytes(32)):
            assert combine(numbered(split(secret, threshold=3, count=4), holders)) == secret
    assert coefficients_at.cache_info().misses == 4
