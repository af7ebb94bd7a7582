"""The dashboard of a federation of 1,000 agents with a run of 200 rounds."""

import statistics
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from bench.federation import ManualClock
from services.coordinator.app import create_app
from tests.support.browsers import Screen, barriers
from tests.support.dashboard import Looking, looking
from tests.support.seeded import MORNING, large, opened
from tests.support.served import served

pytestmark = pytest.mark.slow

PAGES = (
    "federation",
    "runs",
    "runs/long",
    "new-run",
    "agents",
    "agents?after=agent-0499",
    "agents/invite",
    "adapters",
    "adapters/long/199",
    "ask",
    "audit",
)
LOADS = 5


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Where its coordinator serves."""
    clock = ManualClock(MORNING)
    with opened(tmp_path_factory.mktemp("large"), clock) as context:
        large(context, clock)
        with served(create_app(context)) as port:
            yield port
            context.changes.stop()


@pytest.mark.parametrize("address", PAGES)
def test_every_page_is_there_in_a_second(chromium: Browser, port: int, address: str) -> None:
    """From the address to the data on the screen, scripts and session included, as the median of five loads."""
    with looking(chromium, port) as one:
        seconds = statistics.median(seconds_of(one, address) for _ in range(LOADS))
    assert seconds < 1


def seconds_of(one: Looking, address: str) -> float:
    """Return how long a page takes."""
    began = time.perf_counter()
    one.open(address)
    return time.perf_counter() - began


def test_no_page_is_wider_than_a_phone(chromium: Browser, port: int) -> None:
    """Neither long lists nor large numbers go over the edge, and axe finds nothing in them."""
    found = {}
    with looking(chromium, port, screen=Screen("light", 360)) as one:
        for address in PAGES:
            one.open(address)
            one.drawn()
            found[address] = barriers(one.page)
    assert found == {address: [] for address in PAGES}
