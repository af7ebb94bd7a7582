"""The dashboard in a browser: its pages, and a browser in which somebody looks at them."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Locator, Page
from typer.testing import CliRunner

from bench.federation import token_of
from services.coordinator.cli.app import app
from tests.support.browsers import Screen

# Every page that there is, by its address.
PAGES = (
    "federation",
    "runs",
    "runs/triage-2",
    "runs/triage-1",
    "runs/letters-1",
    "runs/letters-2",
    "runs/triage-night",
    "runs/coding-1",
    "runs/coding-2",
    "new-run",
    "agents",
    "agents/invite",
    "adapters",
    "adapters/triage-1/9",
    "ask",
    "audit",
)
DESK = Screen("light", 1280)


@dataclass
class Looking:
    """Somebody who looks at a dashboard: what the browser has complained of, and which hosts it has asked."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def open(self, address: str) -> None:
        """Open a page as if by its link in a new tab, and wait until it is there."""
        self.page.goto("about:blank")
        self.page.goto(f"{self.url}/dashboard/#/{address}")
        self.arrive()

    def arrive(self, ready: str = "") -> None:
        """Wait until the page (called ``ready``) has its data on the screen."""
        self.page.wait_for_selector(f'html[data-ready="{ready}"]' if ready else "html[data-ready]", state="attached")

    def drawn(self) -> None:
        """Wait until the page's charts are drawn, which come after its data."""
        self.page.wait_for_selector(".plot[aria-busy]", state="detached")


@contextmanager
def looking(browser: Browser, port: int, who: str | None = "operator", screen: Screen = DESK) -> Iterator[Looking]:
    """Look at the dashboard that is served at a port; whoever is named is signed in already."""
    context: BrowserContext = browser.new_context(
        color_scheme=screen.scheme, viewport={"width": screen.width, "height": 800}
    )
    context.set_default_timeout(20_000)
    if who is not None:
        keep = f"sessionStorage.setItem('fedcollm-token', '{token_of(who)}')"
        context.add_init_script(f"if (location.protocol !== 'about:') {keep}")
    one = Looking(context.new_page(), f"http://127.0.0.1:{port}")
    context.on("weberror", lambda error: one.complaints.append(str(error.error)))
    context.on("console", lambda message: one.complaints.append(message.text))
    context.on("request", lambda request: one.hosts.add(urlsplit(request.url).netloc))
    try:
        yield one
    finally:
        context.close()


def region(page: Page, name: str) -> Locator:
    """Return a part of a page."""
    return page.get_by_role("region", name=name, exact=True)


def elsewhere(act: Callable[[], Any]) -> Any:  # noqa: ANN401 - what it returns
    """Act in another thread: the browser's event loop is in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(act).result()


def fedcollm(*arguments: str) -> str:
    """Give a command of an operator's, which must go well, and return what it has said."""
    answer = elsewhere(lambda: CliRunner().invoke(app, arguments))
    assert answer.exit_code == 0, answer.output
    return str(answer.output)
