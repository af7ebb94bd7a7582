"""Watch a run until it has ended: live on a terminal, a line an event elsewhere, the events themselves as JSON."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from rich.live import Live

from services.coordinator.cli.connection import Operator
from services.coordinator.cli.display import end_line, event_line, reason_lines, score_table
from services.coordinator.cli.following import Followed, follow
from services.coordinator.cli.live_view import LiveView
from services.coordinator.cli.parts import phase
from services.coordinator.cli.signing import signed_lines
from shared.cli.console import ExitCode, Output
from shared.protocol.messages import RunView
from shared.protocol.rounds import RunState
from shared.protocol.terms import RunTerms
from shared.transport import Transport

REFRESHES_A_SECOND = 4


def watch(operator: Operator, run_id: str, terms: RunTerms | None = None) -> ExitCode:
    """Show a run until it has ended, whatever becomes of the coordinator meanwhile, and say how it ended.

    Whoever has the operator's key, and gives ``terms``, signs what the run is once it is prepared, if it says what they
    say. Without them nothing is signed, for the terms that the coordinator has are its own word.
    """
    output = operator.output
    output.when_interrupted = f"the run goes on: `fedcollm runs watch {run_id}` follows it again"
    followed = asyncio.run(_watch(operator, run_id, terms))
    run = followed.run
    assert run is not None  # noqa: S101 - our own invariant: it has been followed to its end
    if not output.as_json:
        output.screen.print("", score_table(run, followed.rounds), "")
        for line in reason_lines(followed.rounds):
            output.line(line)
        output.line(end_line(run))
    return ExitCode.DONE if run.state is RunState.FINISHED else ExitCode.FAILED


async def _watch(operator: Operator, run_id: str, terms: RunTerms | None) -> Followed:
    output = operator.output
    async with operator.connected() as transport:
        # A coordinator that is not there, or does not know the run, is told of now and not waited for.
        run = await transport.call("GET", f"/v1/runs/{run_id}", RunView)
    followed = Followed(run=run, sign=None if terms is None else _signing(operator, run_id, terms))
    live = output.screen.is_terminal and not output.as_json
    on_retry = followed.retrying if live else output.retrying
    async with operator.connected(on_retry=on_retry, patience_seconds=None) as transport:
        with _showing(followed, output, live=live) as on_news:
            await follow(transport, run_id, followed, on_news)
    return followed


def _signing(operator: Operator, run_id: str, terms: RunTerms) -> Callable[[Transport], Awaitable[None]] | None:
    """Return what signs the run and says so, where the operator's key is at hand."""
    signer = operator.signer_if_any()
    if signer is None:
        return None

    async def sign_it(transport: Transport) -> None:
        for line in signed_lines(await signer.sign_run(transport, run_id, terms)):
            operator.output.note(line)

    return sign_it


@contextmanager
def _showing(followed: Followed, output: Output, *, live: bool) -> Iterator[Callable[[], None]]:
    """Give what is to be called when the log has grown."""
    shown, quiet = 0, False

    def print_new() -> None:
        nonlocal shown, quiet
        new = followed.events[shown:]
        lines = [event.model_dump_json() if output.as_json else event_line(event) for event in new]
        if followed.run and not (new or quiet or output.as_json or followed.ended):
            # A whole poll without news: what is waited for is told once, and not every time that it is still so.
            lines = [phase(followed.run, followed.rounds, followed.events, now=time.time())]
        sys.stdout.writelines(f"{line}\n" for line in lines)
        sys.stdout.flush()  # whoever reads a pipe follows the run too
        shown, quiet = len(followed.events), not new

    if live:
        view = LiveView(followed)
        with Live(view, console=output.screen, refresh_per_second=REFRESHES_A_SECOND, transient=True):
            yield lambda: None
    else:
        yield print_new
