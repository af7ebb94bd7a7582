"""The view that follows a run on a terminal, and is never wider or taller than that."""

import time
from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from services.coordinator.cli.display import PARTS, accuracy_table, event_line, state_line
from services.coordinator.cli.following import Followed
from shared.cli.console import duration
from shared.protocol.messages import RoundView, RunView
from shared.protocol.rounds import ENDED_ROUNDS, RoundState, RunState

STYLES = {"finished": "bold green", "failed": "bold red", "paused": "bold yellow", "stopped": "bold yellow"}
NEWEST_EVENTS = 6
FEWEST_ROUNDS = 3

# Title, column heads (2), the line below them, the row of the base models, the empty line at the end.
ROWS_BESIDE_ROUNDS = 6


class LiveView:
    """What ``runs watch`` shows on a terminal; every refresh measures the terminal and the time again."""

    def __init__(self, followed: Followed) -> None:
        self._followed = followed

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render as much as there is room for; the last row is left to the cursor."""
        height = console.size.height - 1
        content = live(self._followed, now=time.time(), height=height)
        for line in console.render_lines(content, options.update(height=None), pad=False)[:height]:
            yield from line
            yield Segment.line()


def live(followed: Followed, *, now: float, height: int) -> RenderableType:
    """Return the view of a moment, for a terminal of so many rows."""
    run = followed.run
    if run is None:
        return Text("asking the coordinator")
    state = state_line(run).partition(":")[0]
    above: list[RenderableType] = [
        Text.assemble((f"run {run.id}  ", "bold"), (state, STYLES.get(state, "bold")), f"  {run.terms.name}"),
        _rounds_bar(sum(row.state is RoundState.PUBLISHED for row in followed.rounds), run.terms.rounds),
        _line(phase(run, followed.rounds, now=now)),
        _line(str(followed.trouble or ""), "red"),
    ]
    room = height - len(above) - ROWS_BESIDE_ROUNDS
    shown_events = min(NEWEST_EVENTS, max(0, room - FEWEST_ROUNDS))
    shown_rounds = max(1, room - shown_events)
    table = accuracy_table(run, followed.rounds[-shown_rounds:])
    newest = followed.events[-shown_events:] if shown_events else []
    return Group(*above, table, "", *(_line(event_line(event), "dim") for event in newest))


def phase(run: RunView, rounds: Sequence[RoundView], *, now: float) -> str:
    """Say what the run is at."""
    match run.state:
        case RunState.DRAFT:
            return f"a draft: `fedcollm runs start {run.id}` starts it"
        case RunState.PAUSED:
            return f"paused: `fedcollm runs start {run.id}` lets it go on"
        case RunState.FINISHED | RunState.FAILED:
            return state_line(run)
        case RunState.RUNNING:
            newest = rounds[-1] if rounds else None
            if newest is None or newest.state in ENDED_ROUNDS:
                return "a worker loads and evaluates both models" if newest is None else "the next round begins"
            since = duration(max(0.0, now - newest.opened_at - sum(newest.seconds.values())))
            return f"round {newest.number}: {PARTS[newest.state]}{_updates(run, newest)}  {since}"


def _updates(run: RunView, current: RoundView) -> str:
    if current.state is not RoundState.OPEN:
        return ""
    least, most = run.terms.cohort.min_count, run.terms.cohort.max_count
    return f", {current.accepted} of {most} updates" + (f" ({least} suffice)" if least < most else "")


def _rounds_bar(published: int, rounds: int) -> Table:
    row = Table.grid(padding=(0, 1), expand=True)
    row.add_column(no_wrap=True)
    row.add_column(ratio=1)
    row.add_row(f"{published} of {rounds} rounds published", ProgressBar(total=rounds, completed=published))
    return row


def _line(text: str, style: str = "") -> Text:
    """One row, however long the text is."""
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")
