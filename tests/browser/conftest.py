"""Pages in a browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from bench.federation import ManualClock
from services.coordinator.app import create_app
from services.coordinator.context import Context
from tests.support.browsers import SCREENS, Screen, open_chromium
from tests.support.seeded import MORNING, opened, small
from tests.support.served import served


@pytest.fixture(scope="module")  # its event loop would be in the way of other modules' own
def chromium() -> Iterator[Browser]:
    """A browser without a window."""
    with open_chromium() as browser:
        yield browser


@pytest.fixture(params=SCREENS, ids=str)
def page(chromium: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page on each screen, whose console stays empty: what a Content-Security-Policy refuses is said there."""
    screen: Screen = request.param
    context = chromium.new_context(color_scheme=screen.scheme, viewport={"width": screen.width, "height": 800})
    complaints: list[str] = []
    context.on("weberror", lambda error: complaints.append(str(error.error)))
    context.on("console", lambda message: complaints.append(message.text))
    yield context.new_page()
    context.close()
    assert complaints == []


@pytest.fixture
def clock() -> ManualClock:
    """The coordinator's."""
    return ManualClock(MORNING)


@pytest.fixture
def context(tmp_path: Path, clock: ManualClock) -> Iterator[Context]:
    """The coordinator of a small federation."""
    with opened(tmp_path / "coordinator", clock) as made:
        small(made, clock)
        yield made
        made.changes.stop()


@pytest.fixture
def port(context: Context) -> Iterator[int]:
    """Where it serves."""
    with served(create_app(context)) as at:
        yield at
