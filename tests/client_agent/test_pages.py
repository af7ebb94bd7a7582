"""The agent's pages, and how they are served; in a real browser, tests/browser/test_agent_pages.py looks at them."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from fastapi.routing import APIRoute

from bench.federation import ManualClock
from services.client_agent import pages as pages_of_the_agent
from services.client_agent.egress_ledger import stored
from services.client_agent.pages import policy_html, status_html
from services.client_agent.policy import Policy
from services.client_agent.status import IN_WORDS, Phase, Status
from services.client_agent.status_page import create_status_page
from shared.errors import Unreachable
from shared.errors.advice import advice_on
from shared.protocol.digests import digest_of
from shared.protocol.messages import PublishedAdapter, Wanted
from shared.web import HEADERS, STYLE
from tests.support.agents import ADA, declining

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


def page_of(status: Status) -> str:
    """Return the status page at noon."""
    return status_html(status.view(), ADA, NOON)


@pytest.mark.parametrize("phase", Phase)
def test_every_phase_is_said_in_words(phase: Phase):
    """With the run and the round that it is for."""
    status = Status(answered_at=NOON.timestamp())
    status.enter(phase, run_id="clinics", round_number=7)
    assert f"{IN_WORDS[phase]}.".replace("'", "&#39;") in page_of(status)
    assert "round 7 of run <code>clinics</code>" in page_of(status)


def test_the_status_says_which_agent_this_is_and_what_it_has_done(tmp_path: Path):
    """Name, federation, coordinator; training, totals and times with units; what it holds, and where."""
    status = Status(
        tmp_path,
        started_at=NOON.timestamp(),
        answered_at=NOON.timestamp(),
        received_bytes=6_000_000,
        rounds_taken_part=3,
    )
    status.sent.requests, status.sent.bytes = 1234, 2_500
    status.enter(Phase.TRAINING, run_id="clinics", round_number=4)
    status.advance(3, 40, 1.25)
    status.hold(PublishedAdapter(run_id="clinics", round=3, digest=digest_of(b"")))
    page = page_of(status)
    for said in (
        *(ADA.name, ADA.federation, ADA.coordinator_url),
        "Step 3 of 40; the loss of that step is 1.250 nats a token",
        "Sent, in 1,234 requests",
        "2.5 kB",
        'title="6,000,000 bytes"',
        "2026-11-25 12:00:00 UTC",
        digest_of(b""),
        f"{tmp_path}/slm-adapter",
    ):
        assert said in page


def test_trouble_is_said_with_its_code_and_cannot_act():
    """What another machine has said is text, whatever it says."""
    status = Status(answered_at=NOON.timestamp())
    assert "Trouble" not in page_of(status)
    status.fail("not_a_member", "<script>alert(1)</script>")
    page = page_of(status)
    assert "<code>not_a_member</code>" in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in page
    assert "No answer yet" in page_of(Status())


def test_trouble_is_said_with_its_beginning_and_what_was_heard_last():
    """Since when, however often it fails meanwhile; once all is well nothing is said of it."""
    clock = ManualClock(NOON.timestamp())
    status = Status(clock=clock)
    status.retrying(None)
    status.hear(Wanted(assignment=None, published=None))
    clock.advance(3600)
    status.retrying(Unreachable("nobody answers"))
    clock.advance(3600)
    status.fail("not_a_member", "it is over")
    page = page_of(status)
    assert "Since <time" in page
    assert "2026-11-25 13:00:00 UTC" in page
    assert "nothing is wanted of it" in page
    assert "2026-11-25 12:00:00 UTC" in page
    status.retrying(None)
    status.succeed()
    assert "Since <time" not in page_of(status)


def test_a_second_process_is_said_on_the_pages_of_both():
    """The one that goes on says when it was refused, and the one that was refused what to do."""
    first, second = Status(), Status()
    first.hear(Wanted(assignment=None, published=None, second_at=NOON.timestamp()))
    second.fail("agent_runs_twice", "another process takes part as ada")
    assert "Another process has this agent" in page_of(first)
    assert "2026-11-25 12:00:00 UTC" in page_of(first)
    assert "one of the two" in page_of(second)
    assert "Another process has this agent" not in page_of(second)


def test_a_run_that_is_declined_is_said_with_its_reason(tmp_path: Path):
    """The rule in words, what to do, and when, in UTC; where none is declined nothing is said of it."""
    page = page_of(declining(tmp_path))
    section = page.split("Runs that it declines")[1].split("</section>")[0]
    for said in ("policy.smallest_cohort is 5", str(advice_on("policy_refused")).split()[0], "2026-11-25 12:00:00 UTC"):
        assert said in section
    assert "Runs that it declines" not in page_of(Status())


def test_a_broken_audit_log_comes_before_all_else():
    """Also before trouble."""
    status = Status(answered_at=NOON.timestamp(), audit_broken="it was cut")
    status.fail("data_empty", "there is no example")
    page = page_of(status)
    assert page.index("it was cut") < page.index("data_empty") < page.index("What it is doing")


def test_the_policy_page_has_every_rule():
    """Its value, its meaning, and whether somebody has set it."""
    policy = Policy(smallest_cohort=5, allow_plaintext=True)
    page = policy_html(replace(ADA, policy=policy))
    rows = [" ".join(re.sub(r"<.*?>", " ", row).split()) for row in re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)[1:]]
    assert [row.split()[0] for row in rows] == list(Policy.model_fields)
    assert rows[0].startswith("smallest_cohort 5 This agent&#39;s update goes into sums of at least so many")
    assert rows[0].endswith("Allows: masked set here")
    assert [row.endswith("default") for row in rows] == [
        name not in policy.model_fields_set for name in Policy.model_fields
    ]
    assert "Updates may leave readable" in page
    assert "Updates may leave readable" not in policy_html(ADA)


def test_every_class_of_a_page_has_its_look():
    """A name with a slip would be seen by nobody."""
    pages = " ".join(file.read_text() for file in Path(pages_of_the_agent.__file__).parent.glob("templates/*.html"))
    used = {name for names in re.findall(r'class="([^"{]*)', pages) for name in names.split()}
    assert "figures" in used
    assert used <= set(re.findall(r"\.([a-z]+)", STYLE.read_text()))


def test_nothing_can_be_changed_by_a_page():
    """Whoever can reach them may look."""
    routes = [route for route in create_status_page(Status(), ADA).routes if isinstance(route, APIRoute)]
    assert {method for route in routes for method in route.methods} == {"GET"}


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/", "/policy", "/ledger", "/status.json", "/style.css", "/refresh.js", "/nowhere"])
async def test_a_browser_is_told_to_run_and_load_nothing_from_elsewhere(path: str):
    """Every answer has the headers, and no page asks for what they refuse."""
    app = httpx.ASGITransport(app=create_status_page(Status(), ADA))
    async with httpx.AsyncClient(transport=app, base_url="http://page") as http:
        answer = await http.get(path)
    assert HEADERS.items() <= {name: answer.headers.get(name) for name in HEADERS}.items()
    assert answer.headers["Cache-Control"] == "no-store"
    if answer.headers["Content-Type"].startswith("text/html"):
        assert not re.search(
            r"<style|\sstyle=|<script(?! type=\"module\" src=\"/)|\son\w+=|https?://(?!www.w3.org|coord)", answer.text
        )


def test_a_file_that_grows_is_sent_as_far_as_it_was(tmp_path: Path):
    """What is appended while somebody fetches it is of the next answer."""
    file = tmp_path / "2026-11.jsonl"
    file.write_bytes(b"x" * 100_000)
    pieces = stored(file)
    sent = next(pieces)
    with file.open("ab") as opened:
        opened.write(b"y" * 100_000)
    assert sent + b"".join(pieces) == b"x" * 100_000


def test_trouble_comes_with_what_to_do():
    """As the guides say it; of a code of another release nobody here knows that."""
    status = Status(answered_at=NOON.timestamp())
    status.fail("ledger_unwritable", "the disk is full")
    assert str(advice_on("ledger_unwritable")).split()[0] in page_of(status).split("What to do:")[1]
    status.fail("of_another_release", "something")
    assert "What to do:" not in page_of(status)
