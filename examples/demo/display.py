"""The demo on the screen: tables that follow the run, and the short one that stays at the end."""

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from examples.demo.watching import Watched
from services.client_agent.status import Phase, StatusView
from shared.protocol.messages import Event, Score

NEWEST_EVENTS = 6
PARTS = {
    "open": "agents train and send",
    "aggregated": "wait for the worker",
    "cotuning": "co-tuning",
    "evaluating": "evaluation",
}


def screen(watched: Watched) -> RenderableType:
    """Return what the screen shows while the run goes on."""
    state = watched.run.state if watched.run else "starting"
    head = Text(f"FedCoLLM demo   run {state}   {watched.seconds:5.1f} s", style="bold")
    newest = [Text(event_line(event), style="dim") for event in watched.events[-NEWEST_EVENTS:]]
    return Group(head, agents_table(watched), accuracy_table(watched), *newest)


def agents_table(watched: Watched) -> Table:
    """Return what each agent says of itself."""
    table = Table(title="agents (each from its own status page)", title_justify="left")
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


def accuracy_table(watched: Watched) -> Table:
    """Return the accuracies of both models before and after, round by round."""
    chance = watched.run.base_scores.slm.chance if watched.run and watched.run.base_scores else None
    title = "accuracy on unseen items" + (f" (chance {percent(chance)})" if chance is not None else "")
    table = Table(title=title, title_justify="left")
    for column in ("round", "state", "updates", "SLM aggregated", "SLM co-tuned", "LLM co-tuned", "seconds"):
        table.add_column(column, justify="left" if column == "state" else "right")
    if watched.run and watched.run.base_scores:
        base = watched.run.base_scores
        table.add_row("0", "base", "", "", _accuracy(base.slm), _accuracy(base.llm), "")
    for row in watched.rounds:
        scores = row.scores
        table.add_row(
            str(row.number),
            row.reason or row.state,
            str(row.accepted),
            _accuracy(scores.slm_aggregated) if scores else "",
            _accuracy(scores.slm) if scores else "",
            _accuracy(scores.llm) if scores else "",
            f"{sum(row.seconds.values()):.1f}",
        )
    return table


def time_table(watched: Watched, starting_seconds: float) -> Table:
    """Return where the time went."""
    table = Table(title="where the time went", title_justify="left")
    table.add_column("part")
    table.add_column("seconds", justify="right")
    opened = watched.rounds[0].opened_at if watched.rounds else None
    created = watched.run.created_at if watched.run else None
    table.add_row("processes start", f"{starting_seconds:.1f}")
    if opened and created:
        table.add_row("the worker loads and evaluates both models", f"{opened - created:.1f}")
    for state, words in PARTS.items():
        table.add_row(words, f"{sum(row.seconds.get(state, 0.0) for row in watched.rounds):.1f}")
    return table


def event_line(event: Event) -> str:
    """Return an event as one line."""
    where = f" round {event.round}" if event.round else ""
    detail = "  ".join(f"{key}={_short(value)}" for key, value in event.detail.items() if value is not None)
    return f"#{event.seq:<3} {event.kind}{where}  {detail}"


def size(count: int) -> str:
    """Return a number of bytes for people."""
    return f"{count / 1e6:.2f} MB"


def percent(share: float) -> str:
    """Return a share for people."""
    return f"{100 * share:.1f} %"


def _accuracy(score: Score) -> str:
    return percent(score.accuracy)


def _progress(status: StatusView) -> RenderableType:
    if status.phase is not Phase.TRAINING or not status.steps:
        return ""
    return ProgressBar(total=status.steps, completed=status.step, width=20)


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return str(value).removeprefix("sha256:")[: 60 if " " in str(value) else 12]
