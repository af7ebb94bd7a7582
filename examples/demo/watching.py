"""Watch a run as anybody can: its events and rounds from the public API, the agents from their own status pages."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from examples.demo.processes import Address, LocalFederation
from services.client_agent.status import StatusView
from shared.errors import TransportError
from shared.protocol.messages import Event, EventList, RoundList, RoundView, RunView
from shared.protocol.rounds import ENDED_RUNS
from shared.transport import NO_PATIENCE, BearerToken, TrafficCount, Transport, open_transport

GLANCE_SECONDS = 0.5
LAST_ADAPTER_SECONDS = 10.0
NO_TOKEN = BearerToken("")


@dataclass
class Watched:
    """What is known of the run at the moment."""

    started: float = field(default_factory=time.monotonic)
    run: RunView | None = None
    rounds: tuple[RoundView, ...] = ()
    events: list[Event] = field(default_factory=list)
    agents: dict[str, StatusView] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Return how long this has been watched."""
        return time.monotonic() - self.started


async def watch(
    federation: LocalFederation, operator: Transport, run_id: str, watched: Watched, on_change: Callable[[], None]
) -> None:
    """Keep ``watched`` up to date until the run has ended and every agent holds what it published last."""
    ended = time.monotonic()
    async with _status_pages(federation.agents) as pages:
        while True:
            federation.processes.require_alive("coordinator", "worker")  # an agent may disappear
            await _glance(pages, watched)
            await _follow(operator, run_id, watched)
            on_change()
            if watched.run is None or watched.run.state not in ENDED_RUNS:
                ended = time.monotonic()
            elif _everybody_has_it(watched) or time.monotonic() > ended + LAST_ADAPTER_SECONDS:
                return


async def _follow(operator: Transport, run_id: str, watched: Watched) -> None:
    after = watched.events[-1].seq if watched.events else 0
    params = {"after": after, "wait_seconds": GLANCE_SECONDS}
    page = await operator.call("GET", f"/v1/runs/{run_id}/events", EventList, params=params)
    watched.events += page.events
    if page.events or watched.run is None:
        watched.rounds = (await operator.call("GET", f"/v1/runs/{run_id}/rounds", RoundList)).rounds
        watched.run = await operator.call("GET", f"/v1/runs/{run_id}", RunView)


async def _glance(pages: Mapping[str, Transport], watched: Watched) -> None:
    async def ask(name: str, page: Transport) -> None:
        try:
            watched.agents[name] = await page.call("GET", "/status", StatusView)
        except TransportError:
            watched.agents.pop(name, None)  # it is still starting, or has gone: the table shows that

    await asyncio.gather(*(ask(name, page) for name, page in pages.items()))


def _everybody_has_it(watched: Watched) -> bool:
    published = watched.run.published if watched.run else None
    return published is None or all(status.holding == published for status in watched.agents.values())


@asynccontextmanager
async def _status_pages(agents: Mapping[str, Address]) -> AsyncIterator[dict[str, Transport]]:
    async with AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(
                open_transport(address.url, NO_TOKEN, TrafficCount(), patience_seconds=NO_PATIENCE)
            )
            for name, address in agents.items()
        }


def write_events(file: Path, events: list[Event]) -> None:
    """Write the event log as JSON lines."""
    file.write_text("".join(f"{event.model_dump_json()}\n" for event in events))
