"""Masks: streams of random numbers that two parties can both make, and that are gone once both are added up.

A mask is AES-256 in counter mode under a key of its own, read as little-endian uint32. Vectors are added to in place,
in pieces that stay in the processor's cache: a mask is never in memory as a whole.
"""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

# In the ring Z_2^32: sums wrap around, which is what makes a masked number say nothing.
Ring: TypeAlias = npt.NDArray[np.uint32]

WORD_BYTES = 4
BLOCK_BYTES = 16
PIECE_BYTES = 1 << 18
_ZEROS = bytes(PIECE_BYTES)


def add_mask(vector: Ring, key: bytes, *, negative: bool = False, start: int = 0) -> None:
    """Add a mask to ``vector``, shape [length], or take it away; the vector begins at word ``start`` of the whole.

    ``start`` is a multiple of four words, a block of the cipher, so that ranges of a vector can be worked on apart.
    """
    counter = (start * WORD_BYTES // BLOCK_BYTES).to_bytes(BLOCK_BYTES, "big")
    stream = Cipher(algorithms.AES256(key), modes.CTR(counter)).encryptor()
    buffer = bytearray(PIECE_BYTES + BLOCK_BYTES - 1)  # the cipher may want one block less one byte of room
    words = np.frombuffer(buffer, dtype="<u4", count=PIECE_BYTES // WORD_BYTES)
    operation = np.subtract if negative else np.add
    for begin in range(0, vector.size, words.size):
        piece = vector[begin : begin + words.size]
        stream.update_into(_ZEROS[: piece.size * WORD_BYTES] if piece.size < words.size else _ZEROS, buffer)
        operation(piece, words[: piece.size], out=piece)
