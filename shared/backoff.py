"""How long to wait before something is tried again.

Full jitter: any time up to a bound that doubles with every failure, and never grows beyond ``most_seconds``. So
whoever waits for one and the same coordinator does not come back at one and the same moment.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

# 2 to this power is longer than anybody is away, and still a float.
MOST_DOUBLINGS = 64


@dataclass(frozen=True)
class Backoff:
    """The rule of one client; ``draw`` gives numbers from 0 to 1, of which 1 is none."""

    first_seconds: float = 0.25
    most_seconds: float = 5.0
    draw: Callable[[], float] = random.random

    def seconds(self, failures: int) -> float:
        """Return how long to wait after so many failures in a row."""
        bound = self.first_seconds * 2.0 ** min(failures - 1, MOST_DOUBLINGS)
        return self.draw() * min(self.most_seconds, bound)


# Where somebody waits for it: a person at a terminal, a worker whose lease runs out.
SOON = Backoff()
