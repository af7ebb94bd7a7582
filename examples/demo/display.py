"""The demo on the screen: what each agent does, in the view that follows any run."""

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table

from examples.demo.watching import Watched
from services.client_agent.status import Phase, StatusView
from services.coordinator.cli.display import plain_table
from shared.cli.console import size


class Agents:
    """What each agent says of itself, as long as the demo goes on."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched

    def __rich__(self) -> RenderableType:
        """Show the agents as they are now."""
        return Group(agents_table(self._watched), "")


def agents_table(watched: Watched) -> Table:
    """Return what each agent says of itself."""
    table = plain_table(f"agents (each from its own status page) after {watched.seconds:.0f} s")
    for column in ("agent", "doing", "round", "progress", "loss", "sent", "received"):
        words = column in {"agent", "doing"}
        table.add_column(column, justify="left" if words else "right", no_wrap=not words, overflow="fold")
    for name, status in sorted(watched.agents.items()):
        table.add_row(
            name,
            status.error or status.phase,
            str(status.round or status.last_round or ""),
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
