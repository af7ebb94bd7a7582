"""Every page of the dashboard, on every screen, for operators and viewers."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from bench.federation import ManualClock
from services.coordinator.app import create_app
from tests.support.browsers import SCREENS, Screen, barriers
from tests.support.dashboard import PAGES, looking
from tests.support.seeded import MORNING, opened, small
from tests.support.served import served

# What pages are called that could not be shown.
FAILED = {"This is not for you", "There is nothing here", "This did not work"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Where the coordinator of a small federation serves."""
    clock = ManualClock(MORNING)
    with opened(tmp_path_factory.mktemp("small"), clock) as context:
        small(context, clock)
        with served(create_app(context)) as port:
            yield port
            context.changes.stop()


@pytest.mark.parametrize(
    ("who", "screen"), [("operator", each) for each in SCREENS] + [("viewer", each) for each in SCREENS[:1]], ids=str
)
def test_every_page_is_for_everybody(chromium: Browser, port: int, who: str, screen: Screen) -> None:
    """Axe finds nothing, no page is wider than its screen, and the browser complains of nothing and asks no other."""
    found = {}
    with looking(chromium, port, who, screen) as one:
        for address in PAGES:
            one.open(address)
            one.drawn()
            found[address] = barriers(one.page)
            heading = one.page.get_by_role("heading", level=1)
            assert heading.all_inner_texts()[1:] == [], address
            assert heading.inner_text() not in FAILED, address
    assert found == {address: [] for address in PAGES}
    assert (one.complaints, one.hosts) == ([], {f"127.0.0.1:{port}"})


@pytest.mark.parametrize("screen", SCREENS, ids=str)
def test_signing_in_is_for_everybody(chromium: Browser, port: int, screen: Screen) -> None:
    """The same holds for the page that is shown to whoever is not known yet."""
    with looking(chromium, port, None, screen) as one:
        one.open("federation")
        assert barriers(one.page) == []
    assert one.complaints == []


def test_a_keyboard_is_enough(chromium: Browser, port: int) -> None:
    """The first stop is the way past the navigation, and a page that comes is begun at its heading."""
    with looking(chromium, port) as one:
        one.open("federation")
        one.page.keyboard.press("Tab")
        expect(one.page.get_by_role("link", name="Skip to the content")).to_be_focused()
        one.page.get_by_role("link", name="Audit log").focus()
        one.page.keyboard.press("Enter")
        one.arrive("audit")
        expect(one.page.get_by_role("heading", name="Audit log", level=1)).to_be_focused()
        expect(one.page).to_have_title("Audit log · northern-clinics · FedCoLLM")


def test_a_viewer_is_shown_no_command_that_would_refuse_them(chromium: Browser, port: int) -> None:
    """Fetching a run's adapter is for operators; checking one that somebody has fetched is for everybody."""
    with looking(chromium, port, "viewer") as one:
        for address in ("adapters", "adapters/triage-1/9"):
            one.open(address)
            expect(one.page.locator("main")).not_to_contain_text("adapters pull")
        expect(one.page.locator("main")).to_contain_text("fedcollm adapters verify DIR")
