"""Debian's Chromium, for tests of pages."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.support.browsers import SCREENS, Screen

CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")  # its event loop would be in the way of other modules' own
def chromium() -> Iterator[Browser]:
    """A browser without a window."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium on the PATH: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


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
