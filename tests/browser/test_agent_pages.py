"""The agent's own pages in a real browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from services.client_agent.status import Status
from services.client_agent.status_page import create_status_page
from tests.support.agents import ADA, declining, failing, training, waiting
from tests.support.browsers import barriers
from tests.support.holdouts import measuring
from tests.support.served import served

pytestmark = pytest.mark.slow

PAGES = ("", "policy", "ledger", "ledger?kind=update", "report")


@pytest.fixture(
    params=[waiting, training, declining, failing, measuring, Status], ids=lambda make: make.__name__.lower()
)
def served_at(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where an agent serves its pages; the last one has just been started."""
    with served(create_status_page(request.param(tmp_path), ADA)) as port:
        yield f"http://127.0.0.1:{port}"


def test_every_page_is_for_everybody(page: Page, served_at: str):
    """Axe finds nothing, no page is wider than its screen, and the browser complains of nothing."""
    found = {}
    for name in PAGES:
        page.goto(f"{served_at}/{name}")
        found[name] = barriers(page)
    assert found == {name: [] for name in PAGES}


def test_a_keyboard_skips_to_the_content(chromium: Browser, tmp_path: Path):
    """The first stop is the way past the navigation."""
    with served(create_status_page(Status(tmp_path), ADA)) as port:
        page = chromium.new_page()
        page.goto(f"http://127.0.0.1:{port}")
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("main")).to_be_focused()
        page.close()


def test_the_status_keeps_up_and_says_when_it_cannot(chromium: Browser, tmp_path: Path):
    """A step of the training shows by itself; an agent that is gone is said to be, until it is back."""
    status = training(tmp_path)
    page = chromium.new_page()
    with served(create_status_page(status, ADA)) as port:
        page.goto(f"http://127.0.0.1:{port}")
        expect(page.get_by_text("Step 3 of 40")).to_be_visible()
        status.advance(4, 40, 1.5)
        expect(page.get_by_text("Step 4 of 40; the loss of that step is 1.500")).to_be_visible(timeout=10_000)
    gone = page.get_by_role("alert").filter(has_text="The agent does not answer any more")
    expect(gone).to_be_visible(timeout=10_000)
    expect(page.get_by_text("Step 4 of 40")).to_be_visible()
    with served(create_status_page(status, ADA), port):
        expect(gone).to_be_hidden(timeout=10_000)
    page.close()


def test_everything_is_there_without_scripts(chromium: Browser, tmp_path: Path):
    """From the status to one request of one day, by links alone."""
    with served(create_status_page(waiting(tmp_path), ADA)) as port:
        context = chromium.new_context(java_script_enabled=False)
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{port}")
        expect(page.get_by_text("It waits until something is wanted of it")).to_be_visible()
        page.get_by_role("navigation", name="Pages").get_by_role("link", name="What left this machine").click()
        page.get_by_role("link", name="update", exact=True).click()
        page.get_by_role("link", name="2026-11-20", exact=True).click()
        rows = page.get_by_role("region", name="Request by request").get_by_role("row")
        expect(rows.filter(has_text="readable")).to_have_count(4)
        expect(rows).to_have_count(5)
        context.close()
