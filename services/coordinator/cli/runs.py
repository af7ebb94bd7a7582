"""``fedcollm runs``: make, start, watch, pause and stop runs, and read their reports."""

import asyncio
import time
from pathlib import Path
from typing import Annotated, TypeAlias

import typer
from rich.table import Table

from services.coordinator.cli.connection import Operator, RunName, operating
from services.coordinator.cli.display import plain_table, state_line
from services.coordinator.cli.report import Report, read_report, report_lines
from services.coordinator.cli.signing import signed_lines
from services.coordinator.cli.watching import watch
from services.coordinator.presets import read_terms
from shared.cli.console import or_here
from shared.errors import ConfigurationError
from shared.protocol.manifest import Manifest
from shared.protocol.messages import CancelRequest, RunList, RunView
from shared.protocol.rounds import RunState
from shared.protocol.terms import RunTerms

runs = typer.Typer(help="Make, start, watch, pause and stop runs, and read their reports.", no_args_is_help=True)

TERMS_FILE = "run.toml"
TERMS = "The run's terms, a TOML file."
RequiredTerms: TypeAlias = Annotated[Path, typer.Option("--terms", metavar="FILE", help=TERMS)]
OptionalTerms: TypeAlias = Annotated[
    Path | None, typer.Option("--terms", metavar="FILE", help=f"{TERMS} Makes the run first if it is not there.")
]
SignedTerms: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--terms",
        metavar="FILE",
        help=f"{TERMS} {TERMS_FILE} if there is one.",
        callback=or_here(TERMS_FILE),
        show_default=False,
    ),
]
WatchedTerms: TypeAlias = Annotated[
    Path | None, typer.Option("--terms", metavar="FILE", help=f"{TERMS} Signs what the run is, if it says the same.")
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
@operating
def list_(operator: Operator, *, limit: Limit = 20) -> None:
    """List the newest runs."""
    found = operator.ask("GET", "/v1/runs", RunList, params={"limit": limit})
    nothing = "no runs yet: `fedcollm runs start RUN --terms FILE` makes one"
    operator.output.result(found, _table(found) if found.runs else nothing)


@runs.command()
@operating
def create(operator: Operator, run: RunName, *, terms: RequiredTerms) -> None:
    """Make a draft of a run; the same again changes nothing."""
    _tell(operator, _create(operator, run, terms))


@runs.command()
@operating
def start(operator: Operator, run: RunName, *, terms: OptionalTerms = None, watching: Watch = False) -> None:
    """Start a draft, or let a paused run go on; its rounds open once it is prepared and signed."""
    if terms is not None:
        _create(operator, run, terms)
    started = operator.ask("POST", f"/v1/runs/{run}/start", RunView)
    if watching:
        raise typer.Exit(watch(operator, run, None if terms is None else read_terms(terms)))
    _tell(operator, started)


@runs.command("sign")
@operating
def sign_(operator: Operator, run: RunName, *, terms: SignedTerms = None) -> None:
    """Sign what a run is, so that its rounds open and agents train for it: models, training, aggregation.

    It is signed only if it says what the terms in your own file say: the coordinator's word for them is not asked.
    """
    if terms is None:
        raise ConfigurationError(
            f"there is no {TERMS_FILE} here, and nothing is signed that is not compared with terms of yours: "
            "name their file with --terms"
        )
    manifest = asyncio.run(_sign(operator, run, read_terms(terms)))
    operator.output.result(manifest, *signed_lines(manifest))


@runs.command("watch")
@operating
def watch_(operator: Operator, run: RunName, *, terms: WatchedTerms = None) -> None:
    """Follow a run until it has ended; Ctrl-C leaves it running.

    With --json each line is one event of the run's log. The exit code is 0 if the run finished, and 1 if it failed or
    was stopped.
    """
    raise typer.Exit(watch(operator, run, None if terms is None else read_terms(terms)))


@runs.command()
@operating
def pause(operator: Operator, run: RunName) -> None:
    """Hand out no more work and rounds; what is under way may finish."""
    _tell(operator, operator.ask("POST", f"/v1/runs/{run}/pause", RunView))


@runs.command()
@operating
def stop(operator: Operator, run: RunName, *, reason: Reason) -> None:
    """End a run for good; one that has ended stays as it is."""
    _tell(operator, operator.ask("POST", f"/v1/runs/{run}/cancel", RunView, body=CancelRequest(reason=reason)))


@runs.command()
@operating
def report(operator: Operator, run: RunName) -> None:
    """Say what a run gave: scores, refused rounds, time, bytes, adapters."""
    found = asyncio.run(_report(operator, run))
    operator.output.result(found, *report_lines(found))


async def _sign(operator: Operator, run: str, terms: RunTerms) -> Manifest:
    async with operator.connected() as transport:
        return await operator.signer().sign_run(transport, run, terms)


async def _report(operator: Operator, run: str) -> Report:
    async with operator.connected() as transport:
        return await read_report(transport, run)


def _create(operator: Operator, run: str, terms: Path) -> RunView:
    return operator.ask("PUT", f"/v1/runs/{run}", RunView, body=read_terms(terms))


def _tell(operator: Operator, run: RunView) -> None:
    signs = (
        ""
        if run.signed or run.state is not RunState.RUNNING
        else ", and with --terms FILE signs what it is once that is known"
    )
    operator.output.result(run, f"run {run.id}: {state_line(run)}; {WHAT_NEXT[run.state].format(id=run.id)}{signs}")


def _table(found: RunList) -> Table:
    table = plain_table("runs, newest first")
    for column in ("run", "state", "round", "made", "name"):
        number = column in {"round", "made"}
        table.add_column(column, justify="right" if column == "round" else "left", no_wrap=number, overflow="fold")
    for run in found.runs:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.created_at))
        table.add_row(run.id, state_line(run), f"{run.round}", made, run.terms.name)
    return table
