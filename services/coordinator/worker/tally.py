"""What a worker has done since it started, for the eyes of whoever operates it: the loop writes, metrics read."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Tally:
    """Counts by kind of work; ``working`` is the kind that is computed now. Steps and losses are the last co-tuning's.

    Losses are means in nats. ``questions`` are counted by whether they were answered or failed.
    """

    working: str | None = None
    done: Counter[str] = field(default_factory=Counter)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    failed: Counter[tuple[str, str]] = field(default_factory=Counter)
    leases_lost: int = 0
    heartbeats_failed: int = 0
    questions: Counter[str] = field(default_factory=Counter)
    steps: int = 0
    losses: Mapping[str, float] = field(default_factory=dict)

    def finish(self, kind: str, seconds: float) -> None:
        """Count work whose result was taken."""
        self.done[kind] += 1
        self.seconds[kind] += seconds

    def fail(self, kind: str, code: str) -> None:
        """Count work that could not be done here."""
        self.failed[kind, code] += 1
