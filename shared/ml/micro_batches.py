"""Batches in pieces: one for each process, and smaller ones where memory does not suffice for more.

The gradient of a step is the sum over all pieces of all processes, each weighted by its share of the batch's answer
tokens: up to rounding, that of the whole batch at once.
"""

from collections.abc import Callable, Sequence
from math import fsum

import torch

from shared.ml.encoding import Encoded
from shared.ml.out_of_memory import halved, memory_suffices
from shared.ml.process_group import ProcessGroup, share_of
from shared.ml.seeding import random_state, restore_random_state


class MicroBatches:
    """Cuts batches into micro-batches, which become smaller each time that memory runs out in any process."""

    def __init__(self, batch_size: int, *, group: ProcessGroup, devices: Sequence[torch.device]) -> None:
        """``devices`` are those whose random state a step draws from."""
        self._group = group
        self._devices = devices
        self._size = share_of(batch_size, group)
        self.micro_batch: int | None = None
        """How many examples go through the models at once, once memory has run out; before, it is a batch's share."""

    def gradient(
        self,
        chosen: Sequence[Encoded],
        make: Callable[[Sequence[Encoded], float], Sequence[float]],
        *,
        discard: Callable[[], None],
    ) -> list[float]:
        """Make the gradient of a batch, and return the means over its answer tokens of what ``make`` returns.

        Where memory runs out, everything is as it was before, dropout's random numbers included, and it is made again
        with smaller micro-batches. Each process makes as many of them, because sharded models compute in step.

        Args:
            chosen: the batch, of all processes.
            make: adds the gradient of a micro-batch times its share of the batch, and returns means over its tokens.
            discard: forgets what ``make`` has added.

        Raises:
            MemoryTooSmall: it runs out with one example at once.
        """
        while True:
            before = random_state(self._devices)
            found: list[list[float]] = []

            def add(found: list[list[float]] = found) -> None:
                for piece, share in self.cut(chosen):
                    found.append([share * value for value in make(piece, share)])

            if self._group.sharded:
                add()  # nobody can go back alone: if memory runs out, all start anew from the last checkpoint
                suffices = True
            else:
                suffices = not any(self._group.sums([not memory_suffices(add)]))
            if suffices:
                return self._group.sums([fsum(column) for column in zip(*found, strict=True)])
            discard()
            restore_random_state(before, self._devices)
            self.reduce_to(halved(min(self._size, share_of(len(chosen), self._group))))

    def cut(self, chosen: Sequence[Encoded]) -> list[tuple[Sequence[Encoded], float]]:
        """Return the micro-batches of this process, and of each its share of the batch's answer tokens."""
        own = chosen[self._group.rank :: self._group.size]
        tokens = _answer_tokens(chosen)
        pieces = [own[start : start + self._size] for start in range(0, share_of(len(chosen), self._group), self._size)]
        # Who has none left takes part with one that counts nothing.
        return [(piece, _answer_tokens(piece) / tokens) if piece else (chosen[:1], 0.0) for piece in pieces]

    def reduce_to(self, examples: int) -> None:
        """Take no more examples at once."""
        self._size = self.micro_batch = examples


def _answer_tokens(encoded: Sequence[Encoded]) -> int:
    return sum(len(one.token_ids) - one.answer_start for one in encoded)
