"""The view that follows a run on a terminal, and is never wider or taller than that."""

import time
from collections.abc import Callable, Sequence

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from services.coordinator.cli.display import event_line, score_table, state_line
from services.coordinator.cli.following import Followed
from services.coordinator.cli.parts import phase
from shared.protocol.messages import Event
from shared.protocol.rounds import RoundState

STYLES = {"finished": "bold green", "failed": "bold red", "paused": "bold yellow", "stopped": "bold yellow"}
EVENT_ROWS = 6
FEWEST_ROUNDS = 3

# Title, column heads (2), the line below them, the row of the base models, the empty line at the end.
ROWS_BESIDE_ROUNDS = 6


class LiveView:
    """What ``runs watch`` shows on a terminal; every refresh measures the terminal and the time again."""

    def __init__(self, followed: Followed, *above: RenderableType) -> None:
        """``above`` is what somebody who knows more than a run's operator shows above the rounds."""
        self._followed = followed
        self._above = above

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render as much as there is room for; the last row is left to the cursor."""
        height = console.size.height - 1
        options = options.update(height=None)

        def rows(content: RenderableType) -> list[list[Segment]]:
            return console.render_lines(content, options, pad=False)

        head = rows(Group(_head(self._followed, now=time.time()), *self._above))
        room = height - len(head) - ROWS_BESIDE_ROUNDS
        events = _newest(self._followed.events, rows, most=min(EVENT_ROWS, max(0, room - FEWEST_ROUNDS)))
        rounds = self._followed.rounds[-max(1, room - len(events)) :]
        table = rows(Group(score_table(self._followed.run, rounds), "")) if self._followed.run else []
        for row in [*head, *table, *events][:height]:
            yield from row
            yield Segment.line()


def _head(followed: Followed, *, now: float) -> RenderableType:
    run = followed.run
    if run is None:
        return Text("asking the coordinator")
    state = state_line(run).partition(":")[0]
    return Group(
        Text.assemble((f"run {run.id}  ", "bold"), (state, STYLES.get(state, "bold")), f"  {run.terms.name}"),
        _rounds_bar(sum(row.state is RoundState.PUBLISHED for row in followed.rounds), run.terms.rounds),
        Text(phase(run, followed.rounds, followed.events, now=now)),
        Text(str(followed.trouble or ""), style="red"),
    )


def _newest(
    events: Sequence[Event], rows: Callable[[RenderableType], list[list[Segment]]], *, most: int
) -> list[list[Segment]]:
    """Return the rows of the newest events, as many as there is room for; only one that is too long alone is cut."""
    shown: list[list[Segment]] = []
    for event in reversed(events):
        added = rows(Text(event_line(event), style="dim"))
        if len(shown) + len(added) > most:
            return shown or added[:most]
        shown = added + shown
    return shown


def _rounds_bar(published: int, rounds: int) -> Table:
    row = Table.grid(padding=(0, 1), expand=True)
    row.add_column(no_wrap=True)
    row.add_column(ratio=1)
    row.add_row(f"{published} of {rounds} rounds published", ProgressBar(total=rounds, completed=published))
    return row
