"""A network that can be cut, and sleep that lasts as long as a clock says which the test moves."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import httpx
import numpy as np
import pytest
import stamina

from bench.federation import FEDERATION, Federation, ManualClock, key_of
from services.client_agent.service import AWAY
from services.client_agent.status import Status
from services.coordinator.app import create_app
from shared.backoff import Backoff
from shared.credentials import SignedRequests
from shared.transport import OnRetry, Transport, WithoutSocket

_sleep = asyncio.sleep


class Cable(httpx.AsyncBaseTransport):
    """Passes requests on, unless it is cut."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self.is_cut = False
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Pass a request on."""
        if self.is_cut:
            raise httpx.ConnectError("no network")
        return await self._inner.handle_async_request(request)


class Sleepers:
    """Those who sleep until the clock says that it is time."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._wakes: list[tuple[float, asyncio.Event]] = []

    async def sleep(self, seconds: float) -> None:
        """Sleep as ``asyncio.sleep`` does, by the clock."""
        wake = asyncio.Event()
        if seconds > 0:
            self._wakes.append((self._clock() + seconds, wake))
            await wake.wait()
        await _sleep(0)

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, and everybody act who wakes meanwhile, one after the other."""
        until = self._clock() + seconds
        while due := sorted(self._wakes, key=lambda each: each[0])[:1]:
            (at, wake), *_ = due
            if at > until:
                break
            self._wakes.remove(due[0])
            self._clock.seconds = max(at, self._clock())
            wake.set()
            for _ in range(20):  # a try that fails waits for nothing but its turn
                await _sleep(0)
        self._clock.seconds = until


@contextmanager
def sleeping(clock: ManualClock) -> Iterator[Sleepers]:
    """Let all sleep of the block be by the clock, between retries too."""
    sleepers = Sleepers(clock)
    with pytest.MonkeyPatch.context() as patch, stamina.set_testing(False):
        patch.setattr(asyncio, "sleep", sleepers.sleep)
        yield sleepers


@asynccontextmanager
async def cabled(
    opened: Federation, name: str, status: Status, on_retry: OnRetry
) -> AsyncIterator[tuple[Transport, Cable]]:
    """Open a transport of an agent's that asks until it is answered, and the cable that it goes by."""
    cable = Cable(WithoutSocket(httpx.ASGITransport(app=create_app(opened.context))))
    backoff = Backoff(AWAY.first_seconds, AWAY.most_seconds, np.random.default_rng(7).random)
    signing = SignedRequests(name, key_of(name), FEDERATION, opened.clock)
    async with httpx.AsyncClient(transport=cable, base_url="http://coordinator") as client:
        yield (
            Transport(client, signing, status.sent, patience_seconds=None, on_retry=on_retry, backoff=backoff),
            cable,
        )
