"""Sums of masked vectors without their masks, worked out in processes of their own where there is much to do.

The vectors stay on the disk: each piece of a sum is added up from all of them, freed of its masks and handed back, so
that memory does not grow with the number of agents, and nothing is lost by a process that is killed on the way.
"""

import multiprocessing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shared.protocol.secagg.attempt import Roster
from shared.protocol.secagg.coding import SLOTS, Sum, signed
from shared.protocol.secagg.masks import STRETCH_WORDS, WORD_BYTES, Mask, Ring
from shared.protocol.secagg.unmasking import Released, masks_left, remove

# Words that are read or unmasked; below it, in a tenth of a second, a process costs more than it saves.
WORTH_A_PROCESS = 1 << 26


@dataclass(frozen=True)
class MaskedGroup:
    """The vectors of one attempt's survivors, as files, and the shares that its members have dealt and released."""

    roster: Roster
    dealt: Mapping[str, Mapping[str, str]]
    survivors: tuple[str, ...]
    vectors: tuple[Path, ...]
    released: Mapping[str, Released]

    @property
    def words(self) -> int:
        """How long each vector is."""
        return self.roster.terms.parameters + SLOTS


@dataclass(frozen=True)
class Unmasked:
    """The sum of all groups' vectors, shape [parameters + slots], and the members who have released wrong shares."""

    total: Sum
    wrong: frozenset[str]


class Unmasking:
    """Adds up groups of masked vectors; ``make_executor`` is asked for processes when they are first needed."""

    def __init__(self, make_executor: Callable[[], Executor]) -> None:
        self._make_executor = make_executor
        self._executor: Executor | None = None

    def total(self, groups: Iterable[MaskedGroup]) -> Unmasked:
        """Return the sum of the survivors' vectors of all groups, which are asked for one after the other.

        Raises:
            ShareInvalid: a mask cannot be taken out; the message says whose.
            BrokenExecutor: a process was killed on the way; the next call has new ones.
        """
        try:
            return self._total(groups)
        except BrokenExecutor:
            self.close()
            raise

    def _total(self, groups: Iterable[MaskedGroup]) -> Unmasked:
        total: Sum | None = None
        wrong: set[str] = set()
        for group in groups:
            total = np.zeros(group.words, dtype=np.int64) if total is None else total
            masks, liars = self._masks(group)
            wrong |= liars
            starts = range(0, group.words, STRETCH_WORDS)
            jobs = [(group.vectors, masks, start, min(STRETCH_WORDS, group.words - start)) for start in starts]
            much = (len(group.vectors) + len(masks)) * group.words > WORTH_A_PROCESS
            pieces = (
                self._processes().map(sum_piece, *zip(*jobs, strict=True))
                if much
                else (sum_piece(*job) for job in jobs)
            )
            for start, piece in zip(starts, pieces, strict=True):
                total[start : start + STRETCH_WORDS] += signed(np.frombuffer(piece, dtype=np.uint32))
        assert total is not None  # noqa: S101 - our own invariant: an attempt has a group
        return Unmasked(total, frozenset(wrong))

    def close(self) -> None:
        """End the processes."""
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)
            self._executor = None

    def _masks(self, group: MaskedGroup) -> tuple[tuple[Mask, ...], frozenset[str]]:
        work = (group.roster, group.dealt, group.survivors, group.released)
        lost = len(group.dealt) - len(group.survivors)
        # Each mask takes an agreement of keys or a product of hundreds of numbers, a tenth of a millisecond.
        much = len(group.survivors) * (1 + lost) > WORTH_A_PROCESS >> 18
        return self._processes().submit(find_masks, *work).result() if much else find_masks(*work)

    def _processes(self) -> Executor:
        if self._executor is None:
            self._executor = self._make_executor()
        return self._executor


def find_masks(
    roster: Roster, dealt: Mapping[str, Mapping[str, str]], survivors: Collection[str], released: Mapping[str, Released]
) -> tuple[tuple[Mask, ...], frozenset[str]]:
    """Return the masks that are left in a group's sum, and who has released wrong shares."""
    left = masks_left(roster, dealt=dealt, survivors=survivors, released=released)
    return left.masks, left.wrong


def sum_piece(vectors: Sequence[Path], masks: Sequence[Mask], start: int, count: int) -> bytes:
    """Return the words ``start`` to ``start + count`` of the sum of the vectors in files, without its masks."""
    total: Ring = np.zeros(count, dtype=np.uint32)
    words = np.empty(count, dtype="<u4")
    for path in vectors:
        with path.open("rb", buffering=0) as file:
            file.seek(start * WORD_BYTES)
            file.readinto(words.data.cast("B"))
        total += words
    remove(tuple(masks), total, start=start)
    return total.tobytes()


def processes() -> Executor:
    """Return an executor with two processes, which import nothing of the coordinator's but this file."""
    return ProcessPoolExecutor(max_workers=2, mp_context=multiprocessing.get_context("spawn"))
