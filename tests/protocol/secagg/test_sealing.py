"""What is derived from a member's secrets, and shares that one other member can read."""

from secrets import token_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from shared.errors import KeyInvalid, ShareInvalid
from shared.protocol.identity import from_text, to_text
from shared.protocol.secagg.sealing import (
    HASH_BYTES,
    KEY_BYTES,
    SEALED_BYTES,
    AttemptSecrets,
    Kind,
    Sealed,
    Share,
    Shares,
    commitment_to,
    is_dealt,
    own_mask_key,
    pair_mask_key,
    private_key,
    public_of,
    require_agreeable,
    seal,
    unseal,
)
from shared.protocol.secagg.shamir import SHARE_BYTES

CONTEXT = bytes(range(32))
DEALER, HOLDER = bytes([1] * 32), bytes([2] * 32)
SHARES = Shares(mask_secret=bytes([3] * SHARE_BYTES), own_mask=bytes([4] * SHARE_BYTES))
# Points that every secret agrees with on zero: of order 1, 2, 4 and 8, and one of them as a number above the prime.
POINTS_OF_SMALL_ORDER = (
    0,
    1,
    2**255 - 20,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    2**255 - 19,
)


def sealed(shares: Shares = SHARES) -> str:
    """Return shares that the dealer has sealed for the holder."""
    return seal(shares, private_key(DEALER), public_of(HOLDER), CONTEXT, dealer="agent-1", holder="agent-2")


def opened(text: str, context: bytes = CONTEXT, *, dealer: str = "agent-1", holder: str = "agent-2") -> Shares:
    """Return what the holder reads."""
    return unseal(text, private_key(HOLDER), public_of(DEALER), context, dealer=dealer, holder=holder)


def test_the_holder_reads_what_was_sealed_for_it() -> None:
    """And the text has the form that messages give it."""
    assert opened(sealed()) == SHARES
    assert TypeAdapter(Sealed).validate_python(sealed()) == sealed()
    assert TypeAdapter(Share).validate_python(to_text(SHARES.own_mask)) == to_text(SHARES.own_mask)
    assert len(from_text(sealed())) == SEALED_BYTES


def test_nobody_else_reads_it() -> None:
    """Not with another secret, in another attempt, or as what it is not."""
    with pytest.raises(ShareInvalid, match="agent-2 cannot read what agent-1 has sealed"):
        unseal(sealed(), private_key(token_bytes(32)), public_of(DEALER), CONTEXT, dealer="agent-1", holder="agent-2")
    with pytest.raises(ShareInvalid):
        opened(sealed(), bytes(32))
    with pytest.raises(ShareInvalid):
        opened(sealed(), dealer="agent-3")
    with pytest.raises(ShareInvalid):
        opened(sealed(), holder="agent-3")


@given(st.integers(0, 8 * SEALED_BYTES - 1))
def test_each_bit_of_sealed_shares_counts(bit: int) -> None:
    """Whatever is changed on the way, in the hashes or behind them, is seen."""
    content = int.from_bytes(from_text(sealed()), "big") ^ (1 << bit)
    with pytest.raises(ShareInvalid):
        opened(to_text(content.to_bytes(SEALED_BYTES, "big")))


@given(st.text(max_size=300) | st.binary(max_size=300).map(to_text))
def test_garbage_is_refused(text: str) -> None:
    """Whatever its form."""
    with pytest.raises(ShareInvalid):
        opened(text)
    assert not is_dealt(SHARES.own_mask, "own_mask", text, CONTEXT, dealer="agent-1", holder="agent-2")


def test_a_holder_refuses_shares_that_are_not_those_of_the_hashes() -> None:
    """The coordinator would call them wrong when the holder releases them."""
    other = Shares(mask_secret=SHARES.mask_secret, own_mask=bytes(SHARE_BYTES))
    mixed = from_text(sealed())[: 2 * HASH_BYTES] + from_text(sealed(other))[2 * HASH_BYTES :]
    with pytest.raises(ShareInvalid, match="agent-1 has sealed other shares"):
        opened(to_text(mixed))


@pytest.mark.parametrize(("kind", "other"), [("mask_secret", "own_mask"), ("own_mask", "mask_secret")])
def test_who_hands_sealed_shares_on_knows_a_released_one(kind: Kind, other: Kind) -> None:
    """By its kind, its dealer, its holder and its attempt; and learns nothing of it before."""
    share, text = getattr(SHARES, kind), sealed()
    assert is_dealt(share, kind, text, CONTEXT, dealer="agent-1", holder="agent-2")
    assert not is_dealt(share, other, text, CONTEXT, dealer="agent-1", holder="agent-2")
    assert not is_dealt(share, kind, text, bytes(32), dealer="agent-1", holder="agent-2")
    assert not is_dealt(share, kind, text, CONTEXT, dealer="agent-3", holder="agent-2")
    assert not is_dealt(share, kind, text, CONTEXT, dealer="agent-1", holder="agent-3")
    assert not is_dealt(bytes(SHARE_BYTES), kind, text, CONTEXT, dealer="agent-1", holder="agent-2")
    assert share not in from_text(text)


def test_two_members_have_the_same_mask_and_nobody_else_has_it() -> None:
    """Whichever of them derives it; other names and another attempt give another mask."""
    key = pair_mask_key(private_key(DEALER), public_of(HOLDER), CONTEXT, "agent-1", "agent-2")
    assert len(key) == KEY_BYTES
    assert key == pair_mask_key(private_key(HOLDER), public_of(DEALER), CONTEXT, "agent-2", "agent-1")
    others = {
        pair_mask_key(private_key(DEALER), public_of(HOLDER), CONTEXT, "agent-1", "agent-3"),
        pair_mask_key(private_key(DEALER), public_of(HOLDER), bytes(32), "agent-1", "agent-2"),
        pair_mask_key(private_key(DEALER), public_of(token_bytes(32)), CONTEXT, "agent-1", "agent-2"),
        own_mask_key(DEALER, CONTEXT, "agent-1"),
        own_mask_key(DEALER, CONTEXT, "agent-2"),
        own_mask_key(DEALER, bytes(32), "agent-1"),
    }
    assert len(others) == 6
    assert key not in others


@pytest.mark.parametrize("point", POINTS_OF_SMALL_ORDER)
def test_a_key_with_which_everybody_agrees_on_the_same_is_refused(point: int) -> None:
    """Its holder would share its masks with everybody."""
    public = to_text(point.to_bytes(32, "little"))
    with pytest.raises(KeyInvalid):
        require_agreeable(public)
    with pytest.raises(KeyInvalid):
        pair_mask_key(private_key(DEALER), public, CONTEXT, "agent-1", "agent-2")


@pytest.mark.parametrize("public", ["", "garbage", to_text(bytes([9] * 31)), "B" + "A" * 41 + "B"])
def test_what_is_no_key_is_refused(public: str) -> None:
    """Its length, its letters and its unused bits."""
    with pytest.raises(KeyInvalid):
        require_agreeable(public)
    with pytest.raises(KeyInvalid):
        seal(SHARES, private_key(DEALER), public, CONTEXT, dealer="agent-1", holder="agent-2")


def test_secrets_are_fresh() -> None:
    """No two are the same, of one attempt or of two."""
    drawn = [AttemptSecrets.generate() for _ in range(3)]
    assert len({secret for each in drawn for secret in (each.encryption, each.mask, each.own_mask)}) == 9
    assert all(require_agreeable(public_of(each.mask)) is None for each in drawn)


def test_a_commitment_is_to_one_mask() -> None:
    """Another mask has another one, and it does not show the mask."""
    assert commitment_to(DEALER) == commitment_to(DEALER)
    assert commitment_to(DEALER) != commitment_to(HOLDER)
    assert commitment_to(DEALER) != to_text(DEALER)
