"""``fedcollm-agent status``: what the agent on this machine is doing, from its status page."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from services.client_agent.ledger_report import in_utc
from services.client_agent.settings import Settings, page_url
from services.client_agent.status import Phase, StatusView
from shared.cli.console import AsJson, ExitCode, or_here, size, telling
from shared.configuration import read_settings
from shared.credentials import BearerToken
from shared.egress import TrafficCount
from shared.errors import ConfigurationError, Unreachable
from shared.transport import open_transport

# The agent is on this machine: it answers, or is not there.
PATIENCE_SECONDS = 2.0
NO_TOKEN = BearerToken("")

AgentFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="The agent's settings; agent.toml if there is one. FEDCOLLM_AGENT_* win over it.",
        callback=or_here("agent.toml"),
        show_default=False,
    ),
]


def status(*, config: AgentFile = None, as_json: AsJson = False) -> None:
    """Say what the agent on this machine is doing; exit code 1 if that has failed."""
    with telling(as_json=as_json) as output:
        settings = read_settings(Settings, config)
        url = page_url(settings.status_host, settings.status_port)
        view = asyncio.run(_ask(url))
        if view.state_dir not in {None, settings.state_dir.absolute()}:
            raise ConfigurationError(
                f"at {url} another agent answers, whose state folder is {view.state_dir}: set status_port to a port "
                "of this agent's own"
            )
        output.result(view, *_lines(view), f"page      {url}")
        if view.phase is Phase.FAILED:
            raise typer.Exit(ExitCode.FAILED)


async def _ask(url: str) -> StatusView:
    # Whatever its address, it is this machine's own page, and no token is shown to it.
    async with open_transport(url, NO_TOKEN, TrafficCount(), patience_seconds=PATIENCE_SECONDS, insecure=True) as page:
        try:
            return await page.call("GET", "/status.json", StatusView)
        except Unreachable:
            raise Unreachable(
                f"no agent answers at {url}: does it run (`fedcollm-agent run`), and with this status_port?"
            ) from None


def _lines(view: StatusView) -> Iterator[str]:
    at = f", round {view.round} of run {view.run_id}" if view.run_id else ""
    step = f", step {view.step} of {view.steps}" if view.steps else ""
    loss = f", loss {view.loss:.3f}" if view.steps and view.loss is not None else ""
    yield f"doing     {view.phase}{at}{step}{loss}"
    if view.last_run_id:
        yield f"worked    last for round {view.last_round} of run {view.last_run_id}"
    yield f"rounds    {view.rounds_taken_part} taken part in since it was started"
    holding = view.holding
    yield "holding   " + (f"round {holding.round} of run {holding.run_id}, {holding.digest}" if holding else "nothing")
    yield f"sent      {size(view.sent_bytes)} in {view.sent_requests} requests"
    yield f"received  {size(view.received_bytes)}"
    for run in view.declined:
        yield f"declined  run {run.run_id}, {in_utc(run.at)} UTC: {run.code}: {run.reason}"
    if view.answered_at:
        yield f"heard     {in_utc(view.answered_at)} UTC: {view.heard or 'no answer to what is wanted'}"
    if view.error:
        since = f"since {in_utc(view.error_since)} UTC: " if view.error_since else ""
        yield f"trouble   {since}{view.error}"
    if view.second_at:
        yield f"warning   another process with this agent's key was refused, {in_utc(view.second_at)} UTC"
    if view.audit_broken:
        yield f"warning   {view.audit_broken}"
