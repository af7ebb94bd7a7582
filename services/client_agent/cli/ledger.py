"""``fedcollm-agent ledger``: what has left this machine, request by request."""

import sys
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel
from rich import box
from rich.table import Table

from services.client_agent.cli.status import AgentFile
from services.client_agent.egress_ledger import ledger_folder
from services.client_agent.ledger_report import Row, Summary, Tally, folded, in_utc, nothing, row, selected
from services.client_agent.settings import Settings
from shared.access import require_readable
from shared.cli.console import AsJson, ExitCode, Output, size, telling
from shared.cli.files_written import require_free, write_pieces
from shared.configuration import read_settings
from shared.errors import PartMissing, about
from shared.protocol.terms import FROZEN

TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]


class Written(BaseModel):
    """A page that was written."""

    file: Path
    summary: Summary
    model_config = FROZEN


def ledger(
    *,
    since: Annotated[datetime | None, typer.Option("--since", formats=TIMES, help="Only from then on, in UTC.")] = None,
    run: Annotated[str | None, typer.Option("--run", metavar="RUN", help="Only requests of this run.")] = None,
    newest: Annotated[int, typer.Option("--last", metavar="N", min=0, help="How many lines to show.")] = 20,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page, to read or print.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a page that is there.")] = False,
    config: AgentFile = None,
    as_json: AsJson = False,
) -> None:
    """Say what has left this machine; exit code 1 if the ledger is not what was written."""
    with telling(as_json=as_json) as output:
        settings = read_settings(Settings, config)
        with about("state_dir"):
            require_readable(settings.state_dir)
            require_readable(ledger_folder(settings.state_dir))
        tally, start = Tally(), since.replace(tzinfo=UTC) if since else None
        entries = selected(ledger_folder(settings.state_dir), tally, since=start, run=run)
        if html is not None:
            require_free([html], force=force)
            try:
                from services.client_agent.pages import agent_of, ledger_file  # noqa: PLC0415 - Jinja: no other command's
            except ImportError as error:
                raise PartMissing.of("agent", error.name) from None
            for _ in entries:  # a page begins with the summary
                pass
            again = selected(ledger_folder(settings.state_dir), Tally(), since=start, run=run)
            write_pieces(html, ledger_file(tally.summary(), folded(again), agent_of(settings)))
            output.result(Written(file=html, summary=tally.summary()), f"wrote {html}")
        elif as_json:
            for piece in _document(map(row, entries), tally):
                sys.stdout.write(piece)
        else:
            rows = deque(folded(entries), maxlen=newest)
            _show(output, tally.summary(), rows)
        if tally.faults:
            raise typer.Exit(ExitCode.FAILED)


def _document(rows: Iterator[Row], tally: Tally) -> Iterator[str]:
    """Yield one JSON document, however long, in pieces; the summary comes last, when all has been added up."""
    yield '{"entries":['
    for number, each in enumerate(rows):
        yield f"{',' * (number > 0)}\n{each.model_dump_json()}"
    yield f'\n],"summary":{tally.summary().model_dump_json()}}}\n'


def _show(output: Output, summary: Summary, rows: deque[Row]) -> None:
    for fault in summary.faults:
        output.line(f"BROKEN    {fault}")
    if summary.first is None or summary.last is None:
        output.line(nothing(summary))
        return
    if summary.only:
        output.line(f"only      requests {summary.only}; {summary.others:,} others are in the ledger")
    gone = "" if summary.whole else " (files of earlier months are not here any more)"
    output.line(f"time      {in_utc(summary.first)} to {in_utc(summary.last)} UTC{gone}")
    output.line(f"sent      {size(summary.head_bytes + summary.body_bytes)} in {summary.requests} requests")
    for address, requests in summary.to.items():
        output.line(f"to        {address} ({requests} requests)")
    output.line(f"seal      {summary.seal}")
    output.screen.print("", _kinds(summary), "", _rows(rows), sep="\n")


def _kinds(summary: Summary) -> Table:
    table = _table("requests", "heads", "bodies", words=("what", "allowed by"))
    for kind in summary.kinds:
        table.add_row(str(kind.requests), size(kind.head_bytes), size(kind.body_bytes), kind.what, kind.rule)
    return table


def _rows(rows: deque[Row]) -> Table:
    table = _table("when (UTC)", "times", "head", "body", words=("what",))
    for each in rows:
        sizes = (f"{each.entry.head_bytes:,}", f"{each.entry.body_bytes:,}")
        table.add_row(in_utc(each.entry.at), str(each.times), *sizes, each.what)
    return table


def _table(*numbers: str, words: tuple[str, ...]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    for name in words:
        table.add_column(name, overflow="fold")
    return table
