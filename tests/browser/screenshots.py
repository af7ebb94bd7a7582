"""Pictures of every page of the dashboard and of an agent (`make screenshots`), all of them or those that are named.

A small federation and agents whose clocks stand still: the same pages give the same pictures.
"""

import io
import sys
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

import structlog
from PIL import Image
from playwright.sync_api import Browser

from bench.federation import ManualClock, key_of
from services.client_agent.status import Status
from services.client_agent.status_page import create_status_page
from services.coordinator.app import create_app
from services.coordinator.context import Context
from shared.key_file import keep_key
from shared.protocol.questions import ModelName
from shared.protocol.work import QuestionAnswered
from tests.support.agents import ADA, NOON, declining, failing, training, waiting
from tests.support.browsers import Screen, open_chromium
from tests.support.dashboard import Looking, looking, region
from tests.support.holdouts import measuring
from tests.support.seeded import MORNING, opened, small
from tests.support.served import served

FOLDER = Path("docs/screenshots")
ADDRESS = "https://coordinator.example:8440"
SCREENS = {"light": Screen("light", 1280), "dark": Screen("dark", 1280), "phone": Screen("light", 390)}
TALLEST = {1280: 1500, 390: 1700}
COLOURS = 256

Act: TypeAlias = Callable[[Looking, Context], None]


def as_it_is(_one: Looking, _context: Context) -> None:
    """Do nothing."""


def read(one: Looking, _: Context) -> None:
    """Wait for the log."""
    region(one.page, "Log").get_by_role("cell").first.wait_for()


def drawn(one: Looking, context: Context) -> None:
    """Wait for the charts too."""
    read(one, context)
    one.drawn()


def refused(one: Looking, _: Context) -> None:
    """Make a run of terms that cannot be."""
    one.page.get_by_label("Run id").fill("triage-3")
    region(one.page, "The run").get_by_label("Rounds").fill("none")
    region(one.page, "Cohort").get_by_label("Min count").fill("9")
    one.page.get_by_role("button", name="Make the draft").click()
    one.page.get_by_role("heading", name="things are to be put right").wait_for()


def drafted(one: Looking, _: Context) -> None:
    """Make a run."""
    one.page.get_by_label("Run id").fill("triage-3")
    one.page.get_by_role("button", name="Make the draft").click()
    one.arrive("draft")


def inviting(one: Looking, _: Context) -> None:
    """Say who is invited, and where; the page itself is at another port each time."""
    one.page.get_by_label("Agent", exact=True).fill("turku")
    one.page.get_by_label("Address for the agent").fill(ADDRESS)


def invited(one: Looking, context: Context) -> None:
    """Invite an agent."""
    inviting(one, context)
    one.page.get_by_label("I have compared it, and it is mine").check()
    one.page.get_by_role("button", name="Make the invitation").click()
    one.arrive("invited")


def asked(one: Looking, context: Context) -> None:
    """Ask the models, and answer as a worker does."""
    one.page.get_by_label("Prompt").fill("Referral: chest pain for two hours, cold sweat. Urgency:")
    one.page.get_by_label("Tokens").fill("8")
    one.page.get_by_role("button", name="Ask", exact=True).click()
    one.page.get_by_text("Waits for a worker").wait_for()
    question = context.questions.next()
    assert question is not None
    answers = {
        ModelName.LLM_BASE: " the patient should be seen by a",
        ModelName.LLM: " immediate",
        ModelName.SLM_BASE: " 2 hours, 2 hours,",
        ModelName.SLM: " immediate",
    }
    context.questions.answer(question.id, QuestionAnswered(answers=answers))
    one.arrive("answered")


# What is looked at: the picture's name, who looks, the page's address, and what is done there first.
VIEWS: Mapping[str, tuple[str | None, str, Act]] = {
    "sign-in": (None, "federation", as_it_is),
    "federation": ("operator", "federation", as_it_is),
    "runs": ("operator", "runs", as_it_is),
    "run-live": ("operator", "runs/triage-2", drawn),
    "run-finished": ("operator", "runs/triage-1", drawn),
    "run-to-sign": ("operator", "runs/letters-1", read),
    "new-run": ("operator", "new-run", as_it_is),
    "new-run-refused": ("operator", "new-run", refused),
    "new-run-made": ("operator", "new-run", drafted),
    "agents": ("operator", "agents", as_it_is),
    "invite": ("operator", "agents/invite", inviting),
    "invited": ("operator", "agents/invite", invited),
    "adapters": ("operator", "adapters", as_it_is),
    "card": ("operator", "adapters/triage-1/9", as_it_is),
    "ask": ("operator", "ask", asked),
    "audit": ("operator", "audit", as_it_is),
}


def take(browser: Browser, name: str, screen: Screen) -> bytes:
    """Return a picture of a page, as PNG; each is taken of a federation of its own."""
    who, address, act = VIEWS[name]
    clock = ManualClock(MORNING)
    with tempfile.TemporaryDirectory() as folder:
        keep_key(Path(folder) / "coordinator.key", key_of("coordinator"))
        with opened(Path(folder), clock) as context:
            small(context, clock)
            with served(create_app(context)) as port, looking(browser, port, who, screen) as one:
                one.page.clock.set_fixed_time(datetime.fromtimestamp(clock(), UTC))
                one.open(address)
                act(one, context)
                content = one.page.screenshot(full_page=True, animations="disabled", caret="hide")
                context.changes.stop()
    return content


# Pages of an agent: its state, and the address.
AGENTS_VIEWS: Mapping[str, tuple[Callable[[Path], Status], str]] = {
    "agent-waiting": (waiting, ""),
    "agent-training": (training, ""),
    "agent-declining": (declining, ""),
    "agent-failing": (failing, ""),
    "agent-policy": (waiting, "policy"),
    "agent-ledger": (waiting, "ledger"),
    "agent-report": (measuring, "report"),
}


def take_agents(browser: Browser, name: str, screen: Screen) -> bytes:
    """Return a picture of an agent's page, as PNG."""
    make, address = AGENTS_VIEWS[name]
    with tempfile.TemporaryDirectory() as folder:
        status = make(Path(folder))
        app = create_status_page(status, ADA, lambda: NOON)
        status.state_dir = Path("/var/lib/fedcollm/ada")  # the ledger is found where it was; pages name this
        with served(app) as port:
            page = browser.new_page(color_scheme=screen.scheme, viewport={"width": screen.width, "height": 800})
            page.goto(f"http://127.0.0.1:{port}/{address}")
            content = page.screenshot(full_page=True, animations="disabled", caret="hide")
            page.close()
    return content


def reduced(content: bytes) -> bytes:
    """Return a picture in its most frequent colours, and no taller than people look at."""
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    picture = picture.crop((0, 0, picture.width, min(picture.height, TALLEST[picture.width])))
    into = io.BytesIO()
    ranked = sorted(picture.getcolors(picture.width * picture.height) or [], reverse=True)[:COLOURS]
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for _, colour in ranked for part in colour])
    picture.quantize(palette=palette, dither=Image.Dither.NONE).save(into, "PNG", optimize=True)
    return into.getvalue()


def main(*names: str) -> None:
    """Take pictures of these views, or of all."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory(), processors=[lambda _log, _name, event: event])
    FOLDER.mkdir(exist_ok=True)
    with open_chromium() as browser:
        for name in names or (*VIEWS, *AGENTS_VIEWS):
            picture = take if name in VIEWS else take_agents
            for which, screen in SCREENS.items():
                (FOLDER / f"{name}-{which}.png").write_bytes(reduced(picture(browser, name, screen)))


if __name__ == "__main__":
    main(*sys.argv[1:])
