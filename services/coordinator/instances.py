"""Which process of an agent takes part: one at a time, because two that share a key would answer for each other.

In memory alone: after a restart of the coordinator the one that asks first is the one (docs/adr/0026).
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NoReturn, TypeAlias

import structlog

from services.coordinator.ports import Clock, Store
from services.coordinator.presence import Presence
from services.coordinator.rounds import RoundEngine
from shared.errors import AgentRunsTwice
from shared.logs import Repeats

# An agent that waits asks every 25 seconds, and one that was away at the latest a minute after it is back.
GONE_SECONDS = 120.0

# Of one agent's processes that were refused, so many are known again.
MOST_REFUSED = 8

Gone: TypeAlias = Callable[[], Awaitable[bool]]

log = structlog.get_logger()


@dataclass
class Instance:
    """The process that takes part for an agent with this key.

    ``at`` is when it was there last, and ``signs`` how often it was seen to be; ``before`` is whose place it took by
    following it. ``refused`` are others that were refused meanwhile, each with how many signs there were by then.
    """

    id: str
    key: str | None
    at: float
    before: str | None = None
    signs: int = 1
    refused: dict[str, int] = field(default_factory=dict)

    def live(self, now: float) -> None:
        """Note that it is there."""
        self.at, self.signs = now, self.signs + 1

    def refuse(self, other: str) -> None:
        """Note another one that was refused; of too many the oldest is forgotten."""
        self.refused.setdefault(other, self.signs)
        if len(self.refused) > MOST_REFUSED:
            del self.refused[next(iter(self.refused))]

    def ended_before(self, other: str) -> bool:
        """Return whether another one may say that it follows this one: not if this one was there after it."""
        return self.refused.get(other, self.signs) >= self.signs


class Instances:
    """The processes of all agents of one coordinator; for one event loop."""

    def __init__(self, presence: Presence, rounds: RoundEngine, store: Store, clock: Clock) -> None:
        self._presence = presence
        self._rounds = rounds
        self._store = store
        self._clock = clock
        self._known: dict[str, Instance] = {}
        self._polls: dict[str, Gone] = {}
        self._repeats = Repeats(clock)

    @asynccontextmanager
    async def taking_part(
        self, agent: str, instance: str | None, follows: Collection[str], *, gone: Gone
    ) -> AsyncIterator[None]:
        """Let a process take part for an agent that has signed for it, and know that it waits while the block runs.

        Args:
            agent: its name.
            instance: the process; None where it does not say, and so cannot be told from another.
            follows: the processes before it on the same state folder, which end before another begins there.
            gone: tells whether it has closed its connection.

        Raises:
            AgentRunsTwice: another one takes part.
        """
        if instance is None:
            yield
            return
        waits = agent in self._polls and not await self._polls[agent]()
        self._admit(agent, instance, () if waits else follows)
        self._polls[agent] = gone
        try:
            yield
            known = self._known.get(agent)
            if known is not None and known.id == instance and not await gone():
                known.live(self._clock())  # so that what was refused meanwhile has not followed it
        finally:
            if self._polls.get(agent) is gone:
                del self._polls[agent]

    def _admit(self, agent: str, instance: str, follows: Collection[str]) -> None:
        known, now = self._known.get(agent), self._clock()
        if known is not None and known.id == instance:
            known.live(now)
            return
        with self._store.read() as tx:
            key = tx.members.get(agent).key
        taking = Instance(instance, key, now)
        if known is None or known.key != key or self._is_gone(agent, known, now):
            pass
        elif known.id in follows and known.ended_before(instance):
            taking.before = known.id
        elif known.before == instance:
            taking.refused = {known.id: 0}  # it has not ended: what took its place has a copy of its folder
        else:
            known.refuse(instance)
            self._refuse(agent, known)
        self._known[agent] = taking

    def leave(self, agent: str, instance: str) -> bool:
        """Forget a process that stops; return whether it is, as far as is known, the one that takes part."""
        known = self._known.get(agent)
        if known is not None and known.id != instance:
            return False
        self._known.pop(agent, None)
        return True

    def _is_gone(self, agent: str, known: Instance, now: float) -> bool:
        """Return whether a process is given up; one that trains is silent for as long as its round waits for it."""
        if now - known.at <= GONE_SECONDS:
            return False
        heard = self._presence.agent(agent)
        return heard is None or heard.assigned is None or not self._rounds.awaits(agent, heard.assigned)

    def _refuse(self, agent: str, known: Instance) -> NoReturn:
        self._presence.agent_runs_twice(agent)
        at = datetime.fromtimestamp(known.at, UTC)
        detail = (
            f"another process takes part as {agent}, with its key, and asked last at {at:%Y-%m-%d %H:%M:%S} UTC: an "
            "agent runs once, so stop one of the two. If the other has ended for good, this one is let in "
            f"{GONE_SECONDS:.0f} seconds after that, or when the round has closed that the other was given to train for"
        )
        if times := self._repeats.due(agent):
            log.warning("agent.runs_twice", agent=agent, detail=detail, times=times)
        raise AgentRunsTwice(detail)
