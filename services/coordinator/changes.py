"""Wakes whoever waits for the store to change: long polls and the reconciler.

Agents have a bell of their own, because they may be a thousand, and most changes (another agent is ready, a worker has
renewed its lease) are nothing to them. Where it rings, they are let ask a few at a time, so that whoever has sent a
request meanwhile is not behind all of them.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from services.coordinator.rates import Allowance

Answer = TypeVar("Answer")

# Of one principal at once. An agent has one, or two after its connection broke; workers may share a name.
MOST_WAITING = 64

# So many agents are told at once, and in so many seconds: what one costs, with the request that follows, and room for
# others. A small federation never waits for it.
AT_ONCE = 16
AT_ONCE_SECONDS = 0.16

# An agent that was woken asks when fewer requests than this are being served, or after so long, whatever is.
MOST_SERVED = 4
LOOK_SECONDS = 0.002
LONGEST_TURN_SECONDS = 0.25


class ClientGone(Exception):
    """The client of a long poll has closed its connection."""


class Bell:
    """Rung for whoever has taken it before."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def take(self) -> asyncio.Event:
        """Return what the next ring sets."""
        return self._next

    def ring(self) -> None:
        """Wake everybody who waits now."""
        rung, self._next = self._next, asyncio.Event()
        rung.set()


class Changes:
    """The bells of one event loop; rung from any thread, after every commit."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._all = Bell()
        self._agents = Bell()
        self._turn = asyncio.Lock()
        self._pace = Allowance(AT_ONCE, seconds=AT_ONCE_SECONDS, clock=time.monotonic)
        self._stopped = False
        self._waiting: Counter[str] = Counter()  # by principals, of whom there are not many
        self._requests = 0

    @property
    def waiting(self) -> int:
        """How many polls wait now."""
        return self._waiting.total()

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Count a request while it is served."""
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1

    def ring(self, *, for_agents: bool = False) -> None:
        """Wake everybody who waits now, agents only where it is for them."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._ring_all if for_agents else self._all.ring)

    def stop(self) -> None:
        """End every poll, from now on, with what there is: whoever waits asks again, and finds the next server."""
        self._stopped = True
        self.ring(for_agents=True)

    async def wait(self, seconds: float) -> None:
        """Return at the next ring, or after ``seconds``."""
        await _wait(self._take(self._all), seconds)

    async def poll(
        self,
        ask: Callable[[], Answer],
        *,
        who: str,
        ready: Callable[[Answer], bool],
        wait_seconds: float,
        gone: Callable[[], Awaitable[bool]],
        agent: bool = False,
    ) -> Answer:
        """Ask, in a thread, until the answer is ready, ``wait_seconds`` have passed or it is told to stop.

        Each change wakes everybody, but an ``agent`` where it is for agents. Of the polls of ``who`` no more than
        ``MOST_WAITING`` wait at once, and the others are answered with what there is.

        Returns:
            The last answer.

        Raises:
            ClientGone: whoever waits has ``gone``; asking on their behalf could hand them something, and nobody else.
        """
        deadline = asyncio.get_running_loop().time() + wait_seconds
        while True:
            rung = self._take(self._agents if agent else self._all)  # before asking, so that no ring is missed
            if await gone():
                raise ClientGone
            answer = await asyncio.to_thread(ask)
            remaining = deadline - asyncio.get_running_loop().time()
            if ready(answer) or remaining <= 0 or self._stopped or self._waiting[who] >= MOST_WAITING:
                return answer
            self._waiting[who] += 1
            try:
                await _wait(rung, remaining)
                if agent:
                    await self._have_turn()
            finally:
                self._waiting[who] -= 1

    async def _have_turn(self) -> None:
        """Return once few were told lately and little else is served; in the order of asking."""
        loop = asyncio.get_running_loop()
        async with self._turn:
            while not self._stopped and (wait := self._pace.take("agents")):  # noqa: ASYNC110 - until a time
                await asyncio.sleep(wait)
            latest = loop.time() + LONGEST_TURN_SECONDS
            while self._is_busy() and loop.time() < latest:  # noqa: ASYNC110 - a bell for each costs more
                await asyncio.sleep(LOOK_SECONDS)

    def _is_busy(self) -> bool:
        return self._requests - self.waiting >= MOST_SERVED and not self._stopped

    def _take(self, bell: Bell) -> asyncio.Event:
        self._loop = asyncio.get_running_loop()
        return bell.take()

    def _ring_all(self) -> None:
        self._all.ring()
        self._agents.ring()


async def _wait(rung: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await rung.wait()
    except TimeoutError:
        pass
