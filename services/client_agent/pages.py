"""The agent's pages as HTML, out of ``templates/``: whatever is put into one is escaped (docs/adr/0015)."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from services.client_agent.holdout_report import Reports, accuracy, gains, loss, rows, verdict
from services.client_agent.ledger_report import Page, Row, Summary, in_utc, nothing
from services.client_agent.policy import Policy
from services.client_agent.policy_report import rules_of
from services.client_agent.settings import Settings
from services.client_agent.status import IN_WORDS, StatusView
from services.client_agent.what_leaves import NOT_COVERED
from shared.cli.console import size
from shared.errors.advice import advice_on
from shared.release import release
from shared.web import STYLE

SCRIPT = Path(__file__).with_name("static") / "refresh.js"
AROUND = 2


@dataclass(frozen=True)
class Installation:
    """Whose pages they are, as the agent's settings say."""

    name: str
    federation: str
    coordinator_url: str
    policy: Policy


def agent_of(settings: Settings) -> Installation:
    """Return whose pages they are."""
    return Installation(settings.name, settings.federation, settings.coordinator_url, settings.policy)


@dataclass(frozen=True)
class Trouble:
    """An error as a page tells it; ``code`` is empty where it has none."""

    code: str
    detail: str
    advice: str | None


def status_html(view: StatusView, agent: Installation, now: datetime) -> str:
    """Return the page that says what an agent is doing."""
    trouble = None if view.error is None else trouble_of(view.error)
    return _render("status.html", agent, view=view, doing=IN_WORDS[view.phase], trouble=trouble, now=now)


def policy_html(agent: Installation) -> str:
    """Return the page that says what an agent is willing to do."""
    return _render("policy.html", agent)


def report_html(found: Reports, agent: Installation) -> str:
    """Return the page that says what runs have brought, measured on the hold-out."""
    words = {"verdict": verdict, "rows": rows, "accuracy": accuracy, "loss": loss, "gains": gains}
    return _render("report.html", agent, runs=found.runs, **words)


def ledger_html(page: Page, agent: Installation) -> str:
    """Return a page of a month of the ledger, with the way to the others; the newest row comes first."""
    rows = reversed(page.rows)
    return _render("ledger.html", agent, page=page, summary=page.summary, rows=rows, numbers=_numbers(page))


def ledger_file(summary: Summary, rows: Iterable[Row], agent: Installation) -> Iterator[str]:
    """Yield, in pieces, a page that needs nothing but itself: to be kept or printed."""
    template = ENVIRONMENT.get_template("ledger.html")
    yield from template.generate(**_for_all(agent), page=None, summary=summary, rows=rows, style=STYLE.read_text())


def trouble_of(error: str) -> Trouble:
    """Return an error that begins with its code as what it is."""
    code, _, detail = error.partition(": ")
    if not detail or not re.fullmatch(r"\w+", code):
        return Trouble("", error, None)
    return Trouble(code, detail, advice_on(code))


def _numbers(page: Page) -> list[int]:
    """Return which pages are linked: the first, the last, and those around this one."""
    near = range(page.page - AROUND, page.page + AROUND + 1)
    return [number for number in range(1, page.pages + 1) if number in {1, page.pages, *near}]


def _render(template: str, agent: Installation, **what: object) -> str:
    return ENVIRONMENT.get_template(template).render(**_for_all(agent), **what)


def _for_all(agent: Installation) -> dict[str, object]:
    return {"agent": agent, "rules": rules_of(agent.policy), "release": release()}


def _with_code(text: str) -> Markup:
    """Return text whose parts between backticks are code."""
    return Markup(re.sub(r"`+([^`]+)`+", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped


def _query(**given: object) -> str:
    """Return the query of a link, without what is None."""
    return f"?{urlencode({name: value for name, value in given.items() if value is not None})}"


def _number(count: int) -> str:
    return f"{count:,}"


def _bytes(count: int) -> Markup | str:
    """Return a size for people; the exact one is shown to who points at it, and on paper."""
    exact = f"{count:,} bytes"
    return Markup('<span title="{0}" data-exact="{0}">{1}</span>').format(exact, size(count)) if count else "0"


def _time(at: datetime) -> Markup:
    return Markup('<time datetime="{}">{} UTC</time>').format(at.isoformat(), in_utc(at))


ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    keep_trailing_newline=True,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.filters |= {
    "advice": advice_on,
    "bytes": _bytes,
    "in_utc": in_utc,
    "number": _number,
    "time": _time,
    "with_code": _with_code,
}
ENVIRONMENT.globals |= {"query": _query, "nothing": nothing, "NOT_COVERED": NOT_COVERED}
