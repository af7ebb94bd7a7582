"""Crash points: each side of every durable step that a process takes in a story, and the list of them.

``points.txt`` has a line for each kind of step, with how often a process takes it; it is written by
``python -m tests.crash.record``, from what the processes of a whole run have passed, and by nobody else.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, TypeAlias

LIST = Path(__file__).with_name("points.txt")

# A point in so many is in the sample of the fast suite, chosen by its hash: fixed, and spread over all that there are.
SAMPLED = 160

Side: TypeAlias = Literal["before", "after"]
SIDES: tuple[Side, ...] = ("before", "after")


@dataclass(frozen=True, order=True)
class Step:
    """A kind of durable step: the process, the seam that it goes through, and the code by which it does."""

    process: str
    seam: str
    by: str

    def __str__(self) -> str:
        """Return it as it is listed."""
        return f"{self.process} {self.seam} {self.by}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read it from a list."""
        return cls(*text.split(" ", 2))


@dataclass(frozen=True)
class Point:
    """A side of the n-th time that a process takes a step."""

    step: Step
    number: int
    side: Side

    def __str__(self) -> str:
        """Return it as the processes note that they have passed it."""
        return f"{self.side} {self.number} {self.step}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read it from what was noted."""
        side, number, step = text.split(" ", 2)
        return cls(Step.parse(step), int(number), "before" if side == "before" else "after")

    def name(self, story: str) -> str:
        """Return a short name that is its own, and stays when others come or go."""
        return f"{story}-{self.step.process}-{self._hash(story):08x}"

    def is_sampled(self, story: str) -> bool:
        """Return whether the fast suite has it."""
        return self._hash(story) % SAMPLED == 0

    def _hash(self, story: str) -> int:
        return int.from_bytes(hashlib.sha256(f"{story} {self}".encode()).digest()[:4], "big")


def listed(story: str) -> Iterator[Point]:
    """Yield the points of a story, as the list has them."""
    for line in LIST.read_text(encoding="utf-8").splitlines():
        of_story, times, step = line.split(" ", 2)
        if of_story == story:
            for number in range(1, int(times) + 1):
                for side in SIDES:
                    yield Point(Step.parse(step), number, side)


def as_list(story: str, passed: Iterable[Point]) -> list[str]:
    """Return the lines of a story whose processes have passed these points."""
    times = Counter(point.step for point in passed if point.side == "after")
    return [f"{story} {count} {step}" for step, count in sorted(times.items())]
