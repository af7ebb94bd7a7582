"""Masks: streams of random numbers that two parties can both make, and that are gone once both are added up.

A mask is AES-256 in counter mode under a key of its own, read as little-endian uint32. A vector is added to in place,
all masks to one piece after the other, so that the piece stays in the processor's cache: no mask is ever in memory as a
whole.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

# In the ring Z_2^32: sums wrap around, which is what makes a masked number say nothing.
Ring: TypeAlias = npt.NDArray[np.uint32]

WORD_BYTES = 4
BLOCK_BYTES = 16
PIECE_BYTES = 1 << 17
_ZEROS = bytes(PIECE_BYTES)


@dataclass(frozen=True)
class Mask:
    """A stream under a key of 32 bytes, that is added, or with ``negative`` taken away."""

    key: bytes
    negative: bool = False

    @property
    def opposite(self) -> "Mask":
        """The mask that undoes this one."""
        return Mask(self.key, not self.negative)


def add_masks(vector: Ring, masks: Iterable[Mask], *, start: int = 0) -> None:
    """Add masks to ``vector``, shape [length], in place; the vector begins at word ``start`` of the whole.

    ``start`` is a multiple of four words, a block of the cipher, so that ranges of a vector can be worked on apart.
    """
    counter = (start * WORD_BYTES // BLOCK_BYTES).to_bytes(BLOCK_BYTES, "big")
    streams = [
        (Cipher(algorithms.AES256(mask.key), modes.CTR(counter)).encryptor(), np.subtract if mask.negative else np.add)
        for mask in masks
    ]
    buffer = bytearray(PIECE_BYTES + BLOCK_BYTES - 1)  # the cipher may want one block less one byte of room
    words = np.frombuffer(buffer, dtype="<u4", count=PIECE_BYTES // WORD_BYTES)
    for begin in range(0, vector.size, words.size):
        piece = vector[begin : begin + words.size]
        zeros, some = memoryview(_ZEROS)[: piece.size * WORD_BYTES], words[: piece.size]
        for stream, operation in streams:
            stream.update_into(zeros, buffer)
            operation(piece, some, out=piece)
