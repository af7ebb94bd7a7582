"""A run as tables and lines: what it scored, how it ended, what happened. At 80 columns nothing is cut."""

from collections.abc import Callable, Mapping, Sequence

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table

from shared.cli.console import duration, percent
from shared.protocol.messages import AgentsEvaluation, Event, RoundView, RunView, Score
from shared.protocol.rounds import STOPPED

# What a table of scores may be of.
SCORES: Mapping[str, Callable[[Score | AgentsEvaluation], str]] = {
    "accuracy": lambda score: percent(score.accuracy),
    "loss": lambda score: f"{score.loss:.3f}",
    "accuracy and loss": lambda score: f"{percent(score.accuracy)}  {score.loss:.3f}",
}
SCORED = ("SLM\naggregated", "SLM\nco-tuned", "LLM\nco-tuned")
AT_AGENTS = ("SLM at", "agents")
UNBOUNDED = 1000
DIGEST_LETTERS = 12


class Fitting:
    """The first of several forms that is not wider than the screen, or else the last."""

    def __init__(self, *forms: RenderableType) -> None:
        self._forms = forms

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render that form."""
        unbounded = options.update_width(UNBOUNDED)
        fitting = [
            form for form in self._forms if console.measure(form, options=unbounded).maximum <= options.max_width
        ]
        yield [*fitting, self._forms[-1]][0]


def score_table(run: RunView | None, rounds: Sequence[RoundView], of: str = "accuracy") -> Table:
    """Return the scores of both models before and after, round by round.

    Where agents evaluate too, what they have measured, of the adapter that a round began with, stands before those.
    """
    base = run.base_scores if run else None
    title = f"{of} on the validation set"
    if base is not None:
        title += f" ({base.slm.examples} examples, chance {percent(base.slm.chance)})"
    table = plain_table(title)
    at_agents = ("\n".join(AT_AGENTS),) if run and run.terms.evaluation_examples else ()
    table.collapse_padding = bool(at_agents)  # one column more, in 80
    for column in ("round", "state", "updates", *at_agents, *SCORED, "time"):
        table.add_column(column, justify="left" if column == "state" else "right", no_wrap=True)

    def told(score: Score | AgentsEvaluation | None) -> str:
        return "" if score is None else SCORES[of](score)

    if base is not None:
        table.add_row("0", "zero-shot", "", *("" for _ in at_agents), "", told(base.slm), told(base.llm), "")
    for row in rounds:
        scores = row.scores
        table.add_row(
            str(row.number),
            row.state,
            str(row.accepted),
            *(told(row.evaluation) for _ in at_agents),
            told(scores.slm_aggregated if scores else None),
            told(scores.slm if scores else None),
            told(scores.llm if scores else None),
            duration(sum(row.seconds.values())),
        )
    return table


def is_stopped(run: RunView) -> bool:
    """Whether a run was ended by its operator, which is no failure."""
    return (run.reason or "").startswith(STOPPED)


def state_line(run: RunView) -> str:
    """Return a run's state, with the reason where there is one."""
    if run.reason is None:
        return run.state
    return run.reason if is_stopped(run) else f"{run.state}: {run.reason}"


def end_line(run: RunView) -> str:
    """Return how a run has ended."""
    return f"run {run.id} {'was' if is_stopped(run) else 'has'} {state_line(run)}"


def reason_lines(rounds: Sequence[RoundView]) -> list[str]:
    """Return why rounds came to nothing, a line for each that did."""
    return [f"round {row.number} was {row.state}: {row.reason}" for row in rounds if row.reason]


def masking_lines(run: RunView, rounds: Sequence[RoundView]) -> list[str]:
    """Return what is to be known of sums of masked updates, and of what has travelled beside these."""
    lines = []
    if run.terms.evaluation_examples:
        each = f"each agent on {run.terms.evaluation_examples} examples of its own, before it trained"
        lines.append(f"{' '.join(AT_AGENTS)}: {each}")
    if bounds := [row.error_bound for row in rounds if row.error_bound is not None]:
        lines.append(f"no number of an aggregate is off by more than {max(bounds):.1e} (rounding)")
    usual = 2 if run.terms.weighting == "examples" else 1
    lines += [f"round {row.number} took {row.attempts} attempts" for row in rounds if row.attempts > usual]
    return lines


def event_line(event: Event) -> str:
    """Return an event as one line."""
    where = f" round {event.round}" if event.round else ""
    detail = "  ".join(f"{key}={_short(value)}" for key, value in event.detail.items() if value is not None)
    return f"#{event.seq:<3} {event.kind}{where}  {detail}"


def plain_table(title: str) -> Table:
    """Return an empty table that has no frame."""
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value)
    return text.removeprefix("sha256:")[:DIGEST_LETTERS] if text.startswith("sha256:") else text
