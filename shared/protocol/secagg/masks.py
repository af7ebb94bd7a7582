"""Masks: streams of random numbers that two parties can both make, and that are gone once both are added up.

A mask is AES-256 in counter mode under a key of its own, read as little-endian uint32. The counter's first 96 bits are
the number of the stretch of the vector, and the others begin at 2: this is the key stream of AES-256-GCM, which
processors make more than twice as fast as that of plain counter mode; nobody needs its tag.

A vector is added to in place, all masks to one piece after the other, so that the piece stays in the processor's cache:
no mask is ever in memory as a whole. Two threads share the stretches: the cipher and numpy let others run meanwhile.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

# In the ring Z_2^32: sums wrap around, which is what makes a masked number say nothing.
Ring: TypeAlias = npt.NDArray[np.uint32]

WORD_BYTES = 4
BLOCK_BYTES = 16
NONCE_BYTES = 12
STRETCH_WORDS = 1 << 18
THREADS = 2
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

    ``start`` is a multiple of ``STRETCH_WORDS``, so that stretches of a vector can be worked on apart.
    """
    masks = tuple(masks)

    def add(begin: int) -> None:
        _add(vector[begin : begin + STRETCH_WORDS], masks, stretch=(start + begin) // STRETCH_WORDS)

    if vector.size <= STRETCH_WORDS:
        add(0)
        return
    with ThreadPoolExecutor(THREADS) as threads:
        for done in [threads.submit(add, begin) for begin in range(0, vector.size, STRETCH_WORDS)]:
            done.result()


def _add(vector: Ring, masks: Iterable[Mask], *, stretch: int) -> None:
    nonce = stretch.to_bytes(NONCE_BYTES, "big")
    streams = [
        (Cipher(algorithms.AES256(mask.key), modes.GCM(nonce)).encryptor(), np.subtract if mask.negative else np.add)
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
