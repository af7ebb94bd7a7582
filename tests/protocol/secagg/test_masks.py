"""Masks are AES-256 in counter mode, added to vectors in place."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from shared.protocol.secagg.masks import PIECE_BYTES, STRETCH_WORDS, WORD_BYTES, Mask, Ring, add_masks

KEY = bytes(range(32))
PIECE = PIECE_BYTES // WORD_BYTES


def mask_of(key: bytes, words: int, *, start: int = 0) -> Ring:
    """Return a mask as a vector."""
    vector: Ring = np.zeros(words, dtype=np.uint32)
    add_masks(vector, [Mask(key)], start=start)
    return vector


def test_masks_are_the_key_stream_of_the_standard() -> None:
    """McGrew and Viega, "The Galois/Counter Mode of Operation", test case 14: a block of zeros under a key of zeros."""
    assert mask_of(bytes(32), 4).tobytes().hex() == "cea7403d4d606b6e074ec5d3baf39d18"


@pytest.mark.parametrize("stretch", [0, 1, 5])
def test_masks_are_counter_mode(stretch: int) -> None:
    """Stretch by stretch, each from its own counter on, whatever mode makes them."""
    words = STRETCH_WORDS + 9
    mask = mask_of(KEY, words, start=stretch * STRETCH_WORDS)
    parts = []
    for number, length in ((stretch, STRETCH_WORDS), (stretch + 1, 9)):
        counter = number.to_bytes(12, "big") + (2).to_bytes(4, "big")
        plain = Cipher(algorithms.AES256(KEY), modes.CTR(counter)).encryptor()
        parts.append(np.frombuffer(plain.update(bytes(WORD_BYTES * length)), dtype="<u4"))
    assert np.array_equal(mask, np.concatenate(parts))


@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("words", [0, 1, 4, 1001])
def test_a_stretch_of_a_vector_can_be_masked_apart(*, words: int, negative: bool) -> None:
    """A mask from a start on is that part of the whole mask."""
    whole: Ring = np.zeros(2 * STRETCH_WORDS + words, dtype=np.uint32)
    add_masks(whole, [Mask(KEY, negative)])
    part: Ring = np.zeros(words, dtype=np.uint32)
    add_masks(part, [Mask(KEY, negative)], start=2 * STRETCH_WORDS)
    assert np.array_equal(whole[2 * STRETCH_WORDS :], part)


@pytest.mark.parametrize("words", [0, 1, 3, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + 5, STRETCH_WORDS + 3])
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


def test_no_piece_and_no_stretch_has_the_numbers_of_another() -> None:
    """A mask never repeats itself."""
    mask = mask_of(KEY, 2 * STRETCH_WORDS)
    pieces = {mask[begin : begin + 8].tobytes() for begin in range(0, mask.size, PIECE)}
    assert len(pieces) == mask.size // PIECE
    assert len(set(mask.reshape(-1, 4).view("V16").ravel().tolist())) == mask.size // 4


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
