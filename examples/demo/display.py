"""The demo on the screen: what each agent does, above what follows any run."""

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from examples.demo.watching import Watched
from services.client_agent.status import Phase, StatusView
from services.coordinator.cli.display import accuracy_table, event_line, plain_table
from shared.cli.console import size

NEWEST_EVENTS = 6


def screen(watched: Watched) -> RenderableType:
    """Return what the screen shows while the run goes on."""
    run, rounds, events = watched.followed.run, watched.followed.rounds, watched.followed.events
    state = run.state if run else "starting"
    head = Text(f"FedCoLLM demo   run {state}   {watched.seconds:5.1f} s", style="bold")
    newest = [Text(event_line(event), style="dim") for event in events[-NEWEST_EVENTS:]]
    return Group(head, "", agents_table(watched), "", accuracy_table(run, rounds), "", *newest)


def agents_table(watched: Watched) -> Table:
    """Return what each agent says of itself."""
    table = plain_table("agents (each from its own status page)")
    for column in ("agent", "doing", "round", "progress", "loss", "sent", "received"):
        table.add_column(column, justify="left" if column in {"agent", "doing"} else "right")
    for name, status in sorted(watched.agents.items()):
        table.add_row(
            name,
            status.error or status.phase,
            str(status.round or ""),
            _progress(status),
            "" if status.loss is None else f"{status.loss:.2f}",
            size(status.sent_bytes),
            size(status.received_bytes),
        )
    return table


def _progress(status: StatusView) -> RenderableType:
    if status.phase is not Phase.TRAINING or not status.steps:
        return ""
    return ProgressBar(total=status.steps, completed=status.step, width=20)
