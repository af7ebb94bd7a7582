"""The ledger as an HTML page that needs nothing but itself: no script, for screens of both kinds and for paper."""

from collections.abc import Iterable, Iterator
from html import escape

from services.client_agent.ledger_report import Page, Row, Summary, in_utc, nothing

STYLE = """
:root { color-scheme: light dark; --line: #8886; --quiet: #888; --bad: #c22; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; } thead { display: table-header-group; }
th, td { padding: .3rem .8rem .3rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.time { white-space: nowrap; font-variant-numeric: tabular-nums; }
code { font-size: .8rem; color: var(--quiet); overflow-wrap: anywhere; }
.fault { border: 2px solid var(--bad); padding: .5rem 1rem; }
nav a, nav b { margin-right: .7rem; }
@media print { body { font-size: 9pt; max-width: none; margin: 0; } nav { display: none; }
  tr { break-inside: avoid; } code { color: inherit; font-size: 7pt; } }
"""

EXPLAINED = (
    "Each request is written down before its first byte leaves this machine. The head is the request line and the "
    "header fields, the body is what comes after; with TLS these are the bytes inside. Requests in a row that differ "
    "in their time alone are one line here. Times are in UTC."
)


def report(summary: Summary, rows: Iterable[Row], *, navigation: str = "") -> Iterator[str]:
    """Yield the page in pieces."""
    yield f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{TITLE}</title>\n'
    yield f'<meta name="viewport" content="width=device-width">\n<style>{STYLE}</style>\n</head>\n<body>\n'
    yield f"<h1>{TITLE}</h1>\n<p>{EXPLAINED}</p>\n{navigation}"
    yield from _summary(summary)
    yield "<h2>Request by request</h2>\n<table>\n" + _head("when", "what", "#head", "#body", "allowed by")
    for row in rows:
        yield _row(row)
    yield "</table>\n</body>\n</html>\n"


def month_page(page: Page) -> str:
    """Return a page of a month, with the way to the others; the newest row comes first."""
    months = [_link(f"?month={month}", month, here=month == page.month) for month in page.months]
    pages = [
        _link(f"?month={page.month}&page={number}", str(number), here=number == page.page)
        for number in range(1, page.pages + 1)
    ]
    navigation = f"<nav>Month: {' '.join(months)}</nav>\n<nav>Page: {' '.join(pages)}</nav>\n"
    return "".join(report(page.summary, reversed(page.rows), navigation=navigation))


TITLE = "What left this machine"


def _summary(summary: Summary) -> Iterator[str]:
    for fault in summary.faults:
        yield f'<p class="fault">The ledger is not what was written: {escape(fault)}.</p>\n'
    if summary.first is None or summary.last is None:
        yield f"<p><b>{escape(nothing(summary))}.</b></p>\n"
        return
    gone = "" if summary.whole else " Files of earlier months are not here any more."
    if summary.only:
        yield f"<p><b>Only requests {escape(summary.only)}; {summary.others:,} others are in the ledger.</b></p>\n"
    yield (
        f"<p>{summary.requests:,} requests with {summary.head_bytes:,} bytes of heads and {summary.body_bytes:,} of "
        f"bodies, from {in_utc(summary.first)} to {in_utc(summary.last)}.{gone}</p>\n"
        f"<p>Its last line has SHA-256 <code>{escape(summary.seal)}</code>.</p>\n"
    )
    yield "<h2>By kind</h2>\n<table>\n" + _head("what", "#requests", "#heads", "#bodies", "allowed by")
    for kind in summary.kinds:
        numbers = _numbers(kind.requests, kind.head_bytes, kind.body_bytes)
        yield f"<tr><td>{escape(kind.what)}</td>{numbers}<td>{escape(kind.rule)}</td></tr>\n"
    yield "</table>\n<h2>To whom</h2>\n<table>\n" + _head("address", "#requests")
    for address, requests in summary.to.items():
        yield f"<tr><td>{escape(address)}</td>{_numbers(requests)}</tr>\n"
    yield "</table>\n"


def _row(row: Row) -> str:
    entry = row.entry
    times = f" to {in_utc(row.until)}, {row.times:,} times" if row.times > 1 else ""
    digest = f"<br><code>{escape(entry.digest)}</code>" if entry.digest else ""
    request = f"<code>{escape(entry.method)} {escape(entry.target)} to {escape(entry.to)}</code>"
    return (
        f'<tr><td class="time">{in_utc(entry.at)}{times}</td><td>{escape(row.what)}<br>{request}{digest}</td>'
        f"{_numbers(entry.head_bytes, entry.body_bytes)}<td>{escape(row.rule)}</td></tr>\n"
    )


def _head(*names: str) -> str:
    cells = (f'<th class="number">{name[1:]}</th>' if name.startswith("#") else f"<th>{name}</th>" for name in names)
    return f"<thead><tr>{''.join(cells)}</tr></thead>\n"


def _numbers(*numbers: int) -> str:
    return "".join(f'<td class="number">{number:,}</td>' for number in numbers)


def _link(target: str, name: str, *, here: bool) -> str:
    return f"<b>{escape(name)}</b>" if here else f'<a href="{escape(target)}">{escape(name)}</a>'
