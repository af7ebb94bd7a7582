"""Who was heard of: in memory alone, because whoever is there polls again within the minute.

Nothing is decided by it; people look at it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from services.coordinator.ports import Clock
from shared.protocol.federation import HEARD_WITHIN_SECONDS
from shared.protocol.membership import Heard, RoundPlace
from shared.protocol.messages import Wanted

HOUR_SECONDS, DAY_SECONDS = 3600.0, 86_400.0
MOST_WORKERS = 1000  # whoever has a worker's token chooses its names

UNKNOWN = "unknown"


@dataclass(frozen=True)
class HeardWorker:
    """A worker, by its own name and its principal's, and when it asked for work."""

    principal: str
    name: str
    version: str | None
    at: float


class Presence:
    """Agents and workers that have polled since this coordinator started."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._agents: dict[str, Heard] = {}
        self._workers: dict[tuple[str, str], HeardWorker] = {}

    def agent_asks(self, name: str, *, version: str | None, declines: Mapping[str, str]) -> None:
        """An agent asks what is wanted; ``declines`` are runs and the codes of its reasons."""
        before = self._agents.get(name)
        heard = Heard(at=self._clock(), version=version, declines=dict(declines))
        if before is not None:
            seen = before.second_at is not None and before.second_at > heard.at - HOUR_SECONDS
            heard = heard.model_copy(
                update={"assigned": before.assigned, "second_at": before.second_at if seen else None}
            )
        self._agents[name] = heard

    def agent_is_told(self, name: str, wanted: Wanted) -> None:
        """An agent is told what is wanted of it."""
        given = wanted.assignment
        place = None if given is None else RoundPlace(run_id=given.run_id, round=given.round)
        self._change(name, at=self._clock(), assigned=place)

    def agent_runs_twice(self, name: str) -> None:
        """An agent that takes part has asked from a second process too, which was refused."""
        self._change(name, second_at=self._clock())

    def agent_leaves(self, name: str) -> None:
        """An agent says that it stops."""
        self._change(name, assigned=None, left=True)

    def worker_asks(self, principal: str, name: str, *, version: str | None) -> None:
        """A worker asks for work."""
        now = self._clock()
        self._workers[principal, name] = HeardWorker(principal, name, version, now)
        if len(self._workers) > MOST_WORKERS:
            del self._workers[min(self._workers, key=lambda key: self._workers[key].at)]

    def _change(self, name: str, **changes: object) -> None:
        if (heard := self._agents.get(name)) is not None:
            self._agents[name] = heard.model_copy(update=changes)

    def agent(self, name: str) -> Heard | None:
        """Return what an agent has said last, or nothing."""
        return self._agents.get(name)

    def second_at(self, name: str) -> float | None:
        """Return when a second process of an agent's was refused last, if one was."""
        heard = self._agents.get(name)
        return None if heard is None else heard.second_at

    def heard(self, names: Iterable[str]) -> Counter[str]:
        """Return how many of these agents were heard of lately, by their software's version."""
        since = self._clock() - HEARD_WITHIN_SECONDS
        known = (self._agents.get(name) for name in names)
        return Counter(one.version or UNKNOWN for one in known if one is not None and one.at >= since)

    def workers(self) -> list[HeardWorker]:
        """Return the workers that were heard of within a day, by principal and name."""
        since = self._clock() - DAY_SECONDS
        return [self._workers[key] for key in sorted(self._workers) if self._workers[key].at >= since]
