"""Masks are AES-256 in counter mode, added to vectors in place."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.protocol.secagg.masks import PIECE_BYTES, WORD_BYTES, Mask, Ring, add_masks

KEY = bytes(range(32))
PIECE = PIECE_BYTES // WORD_BYTES


def mask_of(key: bytes, words: int, *, start: int = 0) -> Ring:
    """Return a mask as a vector."""
    vector: Ring = np.zeros(words, dtype=np.uint32)
    add_masks(vector, [Mask(key)], start=start)
    return vector


def test_masks_are_the_key_stream_of_the_standard() -> None:
    """NIST SP 800-38A, F.5.5: CTR-AES256, its four blocks."""
    key = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    counter = int("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff", 16)
    plaintext = bytes.fromhex(
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
        "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
    )
    ciphertext = bytes.fromhex(
        "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"
        "2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6"
    )
    stream = bytes(a ^ b for a, b in zip(plaintext, ciphertext, strict=True))
    assert mask_of(key, 16, start=counter * 4).tobytes() == stream
    assert np.array_equal(mask_of(key, 16, start=counter * 4), np.frombuffer(stream, dtype="<u4"))


@pytest.mark.parametrize("negative", [False, True])
@given(words=st.integers(0, 400), blocks=st.integers(0, 100))
def test_a_range_of_a_vector_can_be_masked_apart(*, words: int, blocks: int, negative: bool) -> None:
    """A mask from a start on is that part of the whole mask."""
    whole: Ring = np.zeros(4 * blocks + words, dtype=np.uint32)
    add_masks(whole, [Mask(KEY, negative)])
    part: Ring = np.zeros(words, dtype=np.uint32)
    add_masks(part, [Mask(KEY, negative)], start=4 * blocks)
    assert np.array_equal(whole[4 * blocks :], part)


@pytest.mark.parametrize("words", [0, 1, 3, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + 5])
def test_minus_undoes_plus_at_every_length(words: int) -> None:
    """Whether or not a vector is a whole number of pieces or blocks."""
    vector = np.random.default_rng(1).integers(0, 2**32, words, dtype=np.uint32)
    masked = vector.copy()
    add_masks(masked, [Mask(KEY)])
    assert np.array_equal(masked, vector + mask_of(KEY, words))
    assert words == 0 or not np.array_equal(masked, vector)
    add_masks(masked, [Mask(KEY).opposite])
    assert np.array_equal(masked, vector)


@given(st.lists(st.builds(Mask, st.binary(min_size=32, max_size=32), st.booleans()), max_size=6))
def test_many_masks_are_the_sum_of_each(masks: list[Mask]) -> None:
    """Added to a vector at once, and taken away one by one in another order."""
    vector = np.arange(PIECE + 7, dtype=np.uint32)
    add_masks(vector, masks)
    for mask in reversed(masks):
        add_masks(vector, [mask.opposite])
    assert np.array_equal(vector, np.arange(PIECE + 7))


def test_pieces_are_one_stream() -> None:
    """No piece has the numbers of another, and the seams are where a start would begin."""
    whole = mask_of(KEY, 3 * PIECE)
    assert np.array_equal(whole[PIECE:], mask_of(KEY, 2 * PIECE, start=PIECE))
    assert not np.array_equal(whole[:PIECE], whole[PIECE : 2 * PIECE])


@pytest.mark.parametrize("bit", [0, 1, 100, 255])
def test_keys_that_differ_in_one_bit_give_unrelated_masks(bit: int) -> None:
    """Half of the bits differ in every place of a word, sums and products too are those of unrelated numbers."""
    other = (int.from_bytes(KEY, "big") ^ (1 << bit)).to_bytes(32, "big")
    words = 100_000
    one, two = mask_of(KEY, words), mask_of(other, words)
    sigma = 0.5 / np.sqrt(words)
    differing = ((one ^ two)[:, None] >> np.arange(32, dtype=np.uint32)) & 1
    assert np.all(np.abs(differing.mean(axis=0) - 0.5) < 5 * sigma)
    centred = [each / 2**32 - 0.5 for each in (one, two, one - two)]
    for values in centred:
        assert abs(values.mean()) < 5 * np.sqrt(1 / 12 / words)
        assert abs(values.var() - 1 / 12) < 5 * np.sqrt(1 / 180 / words)
    assert abs(np.corrcoef(centred[0], centred[1])[0, 1]) < 5 / np.sqrt(words)


def test_a_mask_hides_what_it_is_added_to() -> None:
    """A masked constant is spread over the whole ring: all 256 upper bytes are as frequent as chance has it."""
    vector: Ring = np.full(256_000, 7, dtype=np.uint32)
    add_masks(vector, [Mask(KEY)])
    counts = np.bincount(vector >> 24, minlength=256)
    chi_squared = float(np.sum((counts - 1000) ** 2 / 1000))
    assert abs(chi_squared - 255) < 5 * np.sqrt(2 * 255)
