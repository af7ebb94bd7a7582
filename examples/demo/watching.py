"""Watch a run as anybody can: its events and rounds from the public API, the agents from their own status pages."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from examples.demo.processes import Address, LocalFederation
from services.client_agent.status import StatusView
from services.coordinator.cli.following import Followed, catch_up
from shared.credentials import BearerToken
from shared.egress import TrafficCount
from shared.errors import TransportError
from shared.protocol.messages import Event
from shared.protocol.terms import RunTerms
from shared.transport import NO_PATIENCE, Transport, open_transport

GLANCE_SECONDS = 0.5
LAST_ADAPTER_SECONDS = 10.0
NO_TOKEN = BearerToken("")


@dataclass
class Watched:
    """What is known of the run at the moment."""

    started: float = field(default_factory=time.monotonic)
    followed: Followed = field(default_factory=Followed)
    agents: dict[str, StatusView] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Return how long this has been watched."""
        return time.monotonic() - self.started


async def watch(
    federation: LocalFederation,
    operator: Transport,
    run_id: str,
    watched: Watched,
    on_change: Callable[[], None],
    *,
    terms: RunTerms,
) -> None:
    """Sign what a run is, and keep ``watched`` up to date until it has ended and every agent holds its adapter."""
    ended = time.monotonic()
    watched.followed.sign = lambda transport: federation.signer.sign_run(transport, run_id, terms)
    async with _status_pages(federation.agents) as pages:
        while True:
            federation.processes.require_alive("coordinator", "worker")  # an agent may disappear
            await _glance(pages, watched)
            await catch_up(operator, run_id, watched.followed, wait_seconds=GLANCE_SECONDS)
            on_change()
            if not watched.followed.ended:
                ended = time.monotonic()
            elif _everybody_has_it(watched) or time.monotonic() > ended + LAST_ADAPTER_SECONDS:
                return


async def _glance(pages: Mapping[str, Transport], watched: Watched) -> None:
    async def ask(name: str, page: Transport) -> None:
        try:
            watched.agents[name] = await page.call("GET", "/status.json", StatusView)
        except TransportError:
            watched.agents.pop(name, None)  # it is still starting, or has gone: the table shows that

    await asyncio.gather(*(ask(name, page) for name, page in pages.items()))


def _everybody_has_it(watched: Watched) -> bool:
    run = watched.followed.run
    published = run.published if run else None
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
