"""``fedcollm runs``: make, start, watch, pause and stop runs, and read their reports."""

import asyncio
import time
from pathlib import Path
from typing import Annotated, TypeAlias

import typer
from rich.table import Table

from services.coordinator.cli.connection import OperatorFile, RunName, TokenFile, Url, ask, connect, read_operator
from services.coordinator.cli.display import plain_table
from services.coordinator.cli.report import Report, read_report, report_lines
from services.coordinator.cli.settings import OperatorSettings
from services.coordinator.cli.watching import watch
from services.coordinator.presets import read_terms
from shared.cli.console import AsJson, Output, telling
from shared.protocol.messages import CancelRequest, RunList, RunView
from shared.protocol.rounds import ENDED_RUNS, RunState

runs = typer.Typer(help="Make, start, watch, pause and stop runs, and read their reports.", no_args_is_help=True)

TERMS = "The run's terms, a TOML file."
RequiredTerms: TypeAlias = Annotated[Path, typer.Option("--terms", metavar="FILE", help=TERMS)]
OptionalTerms: TypeAlias = Annotated[
    Path | None, typer.Option("--terms", metavar="FILE", help=f"{TERMS} Makes the run first if it is not there.")
]
Limit: TypeAlias = Annotated[int, typer.Option("--limit", min=1, max=100, help="How many.")]
Watch: TypeAlias = Annotated[bool, typer.Option("--watch", help="Follow it until it has ended.")]
Reason: TypeAlias = Annotated[str, typer.Option("--reason", help="Why; everybody can read it.")]

WHAT_NEXT = {
    RunState.DRAFT: "`fedcollm runs start {id}` starts it",
    RunState.RUNNING: "`fedcollm runs watch {id}` follows it",
    RunState.PAUSED: "`fedcollm runs start {id}` lets it go on",
    RunState.FINISHED: "`fedcollm runs report {id}` says what it gave",
    RunState.FAILED: "`fedcollm runs report {id}` says what it gave",
}


@runs.command("list")
def list_(
    *,
    limit: Limit = 20,
    coordinator: Url = None,
    token_file: TokenFile = None,
    config: OperatorFile = None,
    as_json: AsJson = False,
) -> None:
    """List the newest runs."""
    with telling(as_json=as_json) as output:
        settings = read_operator(coordinator, token_file, config)
        found = ask(settings, output, "GET", "/v1/runs", RunList, params={"limit": limit})
        nothing = "no runs yet: `fedcollm runs start RUN --terms FILE` makes one"
        output.result(found, _table(found) if found.runs else nothing)


@runs.command()
def create(
    run: RunName,
    *,
    terms: RequiredTerms,
    coordinator: Url = None,
    token_file: TokenFile = None,
    config: OperatorFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a draft of a run; the same again changes nothing."""
    with telling(as_json=as_json) as output:
        settings = read_operator(coordinator, token_file, config)
        _tell(output, _create(settings, output, run, terms))


@runs.command()
def start(
    run: RunName,
    *,
    terms: OptionalTerms = None,
    watching: Watch = False,
    coordinator: Url = None,
    token_file: TokenFile = None,
    config: OperatorFile = None,
    as_json: AsJson = False,
) -> None:
    """Start a draft, or let a paused run go on."""
    with telling(as_json=as_json) as output:
        settings = read_operator(coordinator, token_file, config)
        if terms is not None:
            _create(settings, output, run, terms)
        started = ask(settings, output, "POST", f"/v1/runs/{run}/start", RunView)
        if watching:
            raise typer.Exit(watch(settings, run, output))
        _tell(output, started)


@runs.command("watch")
def watch_(
    run: RunName,
    *,
    coordinator: Url = None,
    token_file: TokenFile = None,
    config: OperatorFile = None,
    as_json: AsJson = False,
) -> None:
    """Follow a run until it has ended; Ctrl-C leaves it running.

    With --json each line is one event of the run's log. The exit code is 0 if the run finished and 1 if it failed.
    """
    with telling(as_json=as_json) as output:
        raise typer.Exit(watch(read_operator(coordinator, token_file, config), run, output))


@runs.command()
def pause(
    run: RunName,
    *,
    coordinator: Url = None,
    token_file: TokenFile = None,
    config: OperatorFile = None,
    as_json: AsJson = False,
) -> None:
    """Hand out no more work and rounds; what is under way may finish."""
    with telling(as_json=as_json) as output:
        settings = read_operator(coordinator, token_file, config)
        _tell(output, ask(settings, output, "POST", f"/v1/runs/{run}/pause", RunView))


@runs.command()
def stop(
    run: RunName,
    *,
    reason: Reason,
    coordinator: Url = None,
    token_file: TokenFile = None,
    config: OperatorFile = None,
    as_json: AsJson = False,
) -> None:
    """End a run for good; one that has ended stays as it is."""
    with telling(as_json=as_json) as output:
        settings = read_operator(coordinator, token_file, config)
        request = CancelRequest(reason=reason)
        _tell(output, ask(settings, output, "POST", f"/v1/runs/{run}/cancel", RunView, body=request))


@runs.command()
def report(
    run: RunName,
    *,
    coordinator: Url = None,
    token_file: TokenFile = None,
    config: OperatorFile = None,
    as_json: AsJson = False,
) -> None:
    """Say what a run gave: scores, refused rounds, time, bytes, adapters."""
    with telling(as_json=as_json) as output:
        found = asyncio.run(_report(read_operator(coordinator, token_file, config), run, output))
        output.result(found, *report_lines(found))


async def _report(settings: OperatorSettings, run: str, output: Output) -> Report:
    async with connect(settings, output.retrying) as operator:
        return await read_report(operator, run)


def _create(settings: OperatorSettings, output: Output, run: str, terms: Path) -> RunView:
    return ask(settings, output, "PUT", f"/v1/runs/{run}", RunView, body=read_terms(terms))


def _tell(output: Output, run: RunView) -> None:
    reason = f" ({run.reason})" if run.reason else ""
    output.result(run, f"run {run.id}: {run.state}{reason}; {WHAT_NEXT[run.state].format(id=run.id)}")


def _table(found: RunList) -> Table:
    table = plain_table("runs, newest first")
    for column in ("run", "state", "round", "made", "name"):
        table.add_column(column, justify="right" if column == "round" else "left")
    for run in found.runs:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.created_at))
        state = f"{run.state}: {run.reason}" if run.state in ENDED_RUNS and run.reason else run.state
        table.add_row(run.id, state, f"{run.round}", made, run.terms.name)
    return table
