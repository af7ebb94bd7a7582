"""Pages in a browser."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.support.browsers import SCREENS, Screen, open_chromium


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
