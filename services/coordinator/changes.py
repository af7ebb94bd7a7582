"""Wakes whoever waits for the store to change: long polls and the reconciler."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar

Answer = TypeVar("Answer")

# Of one principal at once. An agent has one, or two after its connection broke; workers may share a name.
MOST_WAITING = 64


class ClientGone(Exception):
    """The client of a long poll has closed its connection."""


class Changes:
    """One bell for one event loop; rung from any thread, after every commit."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._bell = asyncio.Event()
        self._stopped = False
        self._waiting: Counter[str] = Counter()  # by principals, of whom there are not many

    @property
    def waiting(self) -> int:
        """How many polls wait now."""
        return self._waiting.total()

    def ring(self) -> None:
        """Wake everybody who waits now."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._swap)

    def stop(self) -> None:
        """End every poll, from now on, with what there is: whoever waits asks again, and finds the next server."""
        self._stopped = True
        self.ring()

    async def wait(self, seconds: float) -> None:
        """Return at the next ring, or after ``seconds``."""
        await self._wait(self._current(), seconds)

    async def poll(
        self,
        ask: Callable[[], Answer],
        *,
        who: str,
        ready: Callable[[Answer], bool],
        wait_seconds: float,
        gone: Callable[[], Awaitable[bool]],
    ) -> Answer:
        """Ask, in a thread, until the answer is ready, ``wait_seconds`` have passed or it is told to stop.

        Each change wakes everybody. Of the polls of ``who`` no more than ``MOST_WAITING`` wait at once, and the others
        are answered with what there is.

        Returns:
            The last answer.

        Raises:
            ClientGone: whoever waits has ``gone``; asking on their behalf could hand them something, and nobody else.
        """
        deadline = asyncio.get_running_loop().time() + wait_seconds
        while True:
            bell = self._current()  # taken before asking, so that no ring in between is missed
            if await gone():
                raise ClientGone
            answer = await asyncio.to_thread(ask)
            remaining = deadline - asyncio.get_running_loop().time()
            if ready(answer) or remaining <= 0 or self._stopped or self._waiting[who] >= MOST_WAITING:
                return answer
            self._waiting[who] += 1
            try:
                await self._wait(bell, remaining)
            finally:
                self._waiting[who] -= 1

    def _current(self) -> asyncio.Event:
        self._loop = asyncio.get_running_loop()
        return self._bell

    @staticmethod
    async def _wait(bell: asyncio.Event, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await bell.wait()
        except TimeoutError:
            pass

    def _swap(self) -> None:
        rung, self._bell = self._bell, asyncio.Event()
        rung.set()
