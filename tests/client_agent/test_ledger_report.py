import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from services.client_agent.egress_ledger import EgressLedger, Entry, ledger_folder, months
from services.client_agent.ledger_report import NO_RULE, PAGE_ROWS, Page, Tally, folded, page_of, selected
from services.client_agent.pages import ledger_file, ledger_html
from services.client_agent.status import Status
from services.client_agent.status_page import create_status_page
from shared.egress import NO_BODY, Egress, TrafficCount
from shared.protocol.digests import digest_of
from shared.web import STYLE
from tests.support.agents import ADA

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
TO = "https://coordinator:443"
QUESTION = Egress("GET", "/v1/wanted?wait_seconds=25.0", 0, NO_BODY)


def update(run: str, number: int) -> Egress:
    """Return a request with an update."""
    content = f"{run} {number}".encode()
    return Egress("PUT", f"/v1/runs/{run}/rounds/{number}/update", 1000, digest_of(content))


def write(folder: Path, *requests: Egress, began: datetime = NOON, to: str = TO) -> None:
    """Write entries, a minute apart."""
    for minute, request in enumerate(requests):
        time = began + timedelta(minutes=minute)
        EgressLedger(folder, TrafficCount(), lambda time=time: time).record(request, to=to, head_bytes=400)


def tallied(folder: Path, **options: object) -> tuple[Tally, list[Entry]]:
    """Read entries, and what they come to."""
    tally = Tally()
    return tally, list(selected(ledger_folder(folder), tally, **options))


def test_requests_are_added_up_by_kind(tmp_path: Path):
    """How many, how large, by which rule, to whom, from when to when; what carries most comes first."""
    write(tmp_path, QUESTION, QUESTION, update("demo", 1))
    write(tmp_path, QUESTION, to="https://another:443", began=NOON + timedelta(hours=1))
    summary = tallied(tmp_path)[0].summary()
    assert (summary.first, summary.last) == (NOON, NOON + timedelta(hours=1))
    assert (summary.requests, summary.head_bytes, summary.body_bytes) == (4, 1600, 1000)
    assert [(kind.kind, kind.requests, kind.body_bytes) for kind in summary.kinds] == [
        ("update", 1, 1000),
        ("question", 3, 0),
    ]
    assert [kind.rule for kind in summary.kinds] == ["policy.allow_plaintext", NO_RULE]
    assert summary.to == {TO: 3, "https://another:443": 1}
    assert (summary.whole, summary.faults) == (True, ())


def test_nothing_is_a_report_too(tmp_path: Path):
    """An agent that never asked anybody."""
    summary = tallied(tmp_path)[0].summary()
    assert (summary.requests, summary.first, summary.kinds) == (0, None, ())
    empty = page_of(ledger_folder(tmp_path))
    assert empty.rows == ()
    for page in ("".join(ledger_file(summary, [], ADA)), ledger_html(empty, ADA)):
        assert "The ledger is empty: nothing has left this machine" in page


def test_entries_are_chosen_by_time_and_by_run(tmp_path: Path):
    """Of older months no line is read, and the summary is of what was chosen."""
    write(tmp_path, update("a", 1), update("b", 1))
    write(tmp_path, update("a", 2), QUESTION, update("b", 2), began=NOON + timedelta(days=10))
    tally, entries = tallied(tmp_path, since=NOON + timedelta(days=10, minutes=1))
    assert [entry.target for entry in entries] == [QUESTION.target, update("b", 2).target]
    assert tally.summary().requests == 2
    assert [entry.target for entry in tallied(tmp_path, run="a")[1]] == [update("a", 1).target, update("a", 2).target]
    months(ledger_folder(tmp_path))[0].write_text("not read\n")
    tally, _ = tallied(tmp_path, since=NOON + timedelta(days=10))
    assert tally.faults == [
        "2026-12.jsonl, line 1 does not follow the line before it: that was changed, or lines taken out"
    ]


def test_months_that_were_put_away_are_no_fault(tmp_path: Path):
    """An organisation may keep as much as its rules say: that there was more is told."""
    write(tmp_path, QUESTION)
    write(tmp_path, QUESTION, began=NOON + timedelta(days=10))
    months(ledger_folder(tmp_path))[0].unlink()
    tally, entries = tallied(tmp_path)
    assert (len(entries), tally.faults, tally.whole) == (1, [], False)
    assert "earlier months are not here" in "".join(ledger_file(tally.summary(), [], ADA))


def test_requests_that_repeat_the_one_before_are_one_row(tmp_path: Path):
    """A night of questions is a line; what differs in anything but its time is a row of its own."""
    write(tmp_path, *[QUESTION] * 5, update("demo", 1), QUESTION, QUESTION)
    rows = list(folded(tallied(tmp_path)[1]))
    assert [row.times for row in rows] == [5, 1, 2]
    assert (rows[0].entry.at, rows[0].until) == (NOON, NOON + timedelta(minutes=4))
    assert "(run demo, round 1)" in rows[1].what


def test_a_report_has_the_seal_of_the_ledger(tmp_path: Path):
    """What was printed once says later whether the ledger still has all of it, up to its last line."""
    write(tmp_path, QUESTION, update("demo", 1))
    before = tallied(tmp_path)[0].summary()
    assert before.seal in "".join(ledger_file(before, [], ADA))
    write(tmp_path, QUESTION, began=NOON + timedelta(days=10))
    tally, entries = tallied(tmp_path)
    assert entries[2].previous == before.seal != tally.summary().seal


def test_a_kind_of_another_release_is_told_by_its_name(tmp_path: Path):
    """A ledger outlives releases."""
    write(tmp_path, QUESTION)
    (file,) = months(ledger_folder(tmp_path))
    file.write_text(file.read_text().replace('"question"', '"telegram"'))
    tally, entries = tallied(tmp_path, run=None)
    assert [kind.what for kind in tally.summary().kinds] == [row.what for row in folded(entries)] == ["telegram"]
    assert tallied(tmp_path, run="demo")[1] == []


# --- pages --------------------------------------------------------------------------------------------------------


def test_a_month_has_pages_and_the_newest_is_shown_first(tmp_path: Path):
    """Without a choice it is the last page of the newest month; the summary is the whole month's."""
    write(tmp_path, QUESTION)
    write(tmp_path, *(update("demo", number) for number in range(PAGE_ROWS + 3)), began=NOON + timedelta(days=10))
    folder = ledger_folder(tmp_path)
    newest = page_of(folder)
    assert (newest.month, newest.months, newest.page, newest.pages) == ("2026-12", ("2026-11", "2026-12"), 2, 2)
    assert [row.entry.target for row in newest.rows] == [update("demo", PAGE_ROWS + n).target for n in range(3)]
    assert newest.summary.requests == PAGE_ROWS + 3
    first = page_of(folder, month="2026-12", page=1)
    assert (len(first.rows), first.rows[0].entry.target) == (PAGE_ROWS, update("demo", 0).target)
    assert page_of(folder, month="2026-11").summary.requests == 1
    assert page_of(folder, month="1999-01", page=3).rows == ()
    html = ledger_html(newest, ADA)
    assert html.index("round 52)") < html.index("round 51)") < html.index("round 50)")
    assert {"?month=2026-11", "?month=2026-12&amp;page=1#requests"} <= set(re.findall(r'href="(.*?)"', html))


def test_a_day_and_a_kind_are_chosen_among_the_rows(tmp_path: Path):
    """The totals stay those of the month, by kind and by day, and say which updates are readable."""
    write(tmp_path, update("demo", 1), QUESTION)
    write(tmp_path, QUESTION, update("demo", 2), began=NOON + timedelta(days=1))
    folder = ledger_folder(tmp_path)
    page = page_of(folder, day="2026-11-26", kind="update")
    assert [row.entry.target for row in page.rows] == [update("demo", 2).target]
    assert (page.month, page.requests, page.summary.requests) == ("2026-11", 1, 4)
    assert [(day.day, day.requests, day.body_bytes) for day in page.summary.days] == [
        ("2026-11-25", 2, 1000),
        ("2026-11-26", 2, 1000),
    ]
    assert [(kind.kind, kind.readable) for kind in page.summary.kinds] == [("update", True), ("question", False)]
    assert page.rows[0].readable
    html = ledger_html(page, ADA)
    assert html.count('<tr class="marked">') == 2
    assert "2 of the kind <code>update</code>: the coordinator can read each of them alone" in html
    assert ledger_html(page_of(folder, kind="question"), ADA).count('<tr class="marked">') == 1
    assert "No such request is in the ledger" in ledger_html(page_of(folder, kind="masked"), ADA)


def test_a_page_needs_nothing_but_itself(tmp_path: Path):
    """No script, no picture, no font and no address of anybody's in the file; what was sent is shown and cannot act."""
    hostile = Egress("GET", "/v1/wanted?holding=<script>alert('x')</script>", 0, NO_BODY)
    write(tmp_path, hostile, update("demo", 1), to="https://<b>:443")
    tally, entries = tallied(tmp_path)
    html = "".join(ledger_file(tally.summary(), folded(entries), ADA))
    assert not re.search(r"<(script|img|link|iframe|b)\b|src=|url\(|@import", html)
    assert "&lt;script&gt;" in html
    assert STYLE.read_text() in html
    assert update("demo", 1).digest in html


def test_a_fault_is_the_first_thing_on_the_page(tmp_path: Path):
    """Before any number."""
    write(tmp_path, QUESTION, QUESTION, QUESTION)
    (file,) = months(ledger_folder(tmp_path))
    lines = file.read_text().splitlines(keepends=True)
    file.write_text(lines[0] + lines[2])
    html = ledger_html(page_of(ledger_folder(tmp_path)), ADA)
    assert html.index("line 2 does not follow") < html.index("All requests of")
    assert "intact" not in html


@pytest.mark.anyio
async def test_the_status_page_shows_the_ledger(tmp_path: Path):
    """As a page, which may not load or run anything, and as JSON, by month and page."""
    write(tmp_path, QUESTION, update("demo", 1))
    app = httpx.ASGITransport(app=create_status_page(Status(tmp_path), ADA))
    written = months(ledger_folder(tmp_path))[0].read_bytes()
    async with httpx.AsyncClient(transport=app, base_url="http://page") as http:
        page, document = await http.get("/ledger"), await http.get("/ledger.json?month=2026-11&page=1")
        update_alone = await http.get("/ledger?day=2026-11-25&kind=update")
        wrong = await http.get("/ledger?month=../../etc")
        file, none = await http.get("/ledger/2026-11.jsonl"), await http.get("/ledger/2026-10.jsonl")
    assert page.headers["Content-Type"].startswith("text/html")
    assert "the coordinator can read it alone (run demo, round 1)" in page.text
    assert Page.model_validate_json(document.content) == page_of(ledger_folder(tmp_path), month="2026-11", page=1)
    assert wrong.status_code == 422
    assert "1 of 2 requests" in update_alone.text
    assert (file.content, none.status_code) == (written, 404)
