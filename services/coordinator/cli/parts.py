"""What a run is at, what it waits for, and where its time went, as its log tells."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rich.table import Table

from services.coordinator.cli.display import plain_table, state_line
from services.coordinator.cli.following import waits_for_signature
from shared.cli.console import duration
from shared.protocol.messages import Event, RoundView, RunView
from shared.protocol.rounds import RunState
from shared.protocol.terms import CohortTerms

WAITING = "aggregated"
# The states of a round in which time passes, and what comes before the first.
PARTS = {
    "prepare": "the worker loads and evaluates both models",
    "open": "agents train, and send what may be read",
    "masking": "agents mask their updates, and the sum is unmasked",
    WAITING: "waiting for a worker, or lost with one",
    "cotuning": "co-tuning",
    "evaluating": "evaluation",
}
TAKEN = {"prepare": "prepare", "cotune": "cotuning", "evaluate": "evaluating"}
LOST = frozenset({"work.lease_expired", "work.returned"})
# The part after an event; work that is ordered waits until a worker takes it.
AFTER = {
    "run.prepared": None,
    "round.open": "open",  # the beginning of a round, or an attempt that failed
    "round.keys": "masking",  # the stages after it are parts of the same
    "round.aggregated": WAITING,
    "round.evaluating": WAITING,
    "round.published": None,
    "round.refused": None,
    "round.aborted": None,
    "run.finished": None,
    "run.failed": None,
    **dict.fromkeys(LOST, WAITING),
}
PAUSES = {"run.paused": True, "run.running": False}


@dataclass
class Spent:
    """The seconds of each part that has ended, and the part that goes on since then, if one does."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    part: str | None = None
    since: float = 0.0


def time_spent(events: Iterable[Event]) -> Spent:
    """Return where a run's time went: what a worker left undone was waiting, and a pause counts as nothing."""
    spent, paused = Spent(), False
    for event in events:
        if not (event.kind in AFTER or event.kind in PAUSES or event.kind == "work.leased"):
            continue
        if spent.part is not None and not paused:
            spent.seconds[WAITING if event.kind in LOST else spent.part] += event.at - spent.since
        spent.since = event.at
        paused = PAUSES.get(event.kind, paused)
        if event.kind in AFTER:
            spent.part = AFTER[event.kind]
        elif event.kind == "work.leased":
            spent.part = TAKEN.get(str(event.detail["kind"]), spent.part)
        elif spent.part is None:
            spent.part = WAITING
    return spent


def time_table(seconds: Mapping[str, float]) -> Table:
    """Return where the time went, by part."""
    table = plain_table("where the time went")
    table.add_column("part")
    table.add_column("seconds", justify="right")
    for part, spent in seconds.items():
        table.add_row(PARTS.get(part, part), f"{spent:.1f}")
    return table


def phase(run: RunView, rounds: Sequence[RoundView], events: Iterable[Event], *, now: float) -> str:
    """Say what the run is at, and what it waits for."""
    match run.state:
        case RunState.DRAFT:
            return f"a draft: `fedcollm runs start {run.id}` starts it"
        case RunState.PAUSED:
            return f"paused: `fedcollm runs start {run.id}` lets it go on"
        case RunState.FINISHED | RunState.FAILED:
            return state_line(run)
        case RunState.RUNNING if waits_for_signature(run):
            return f"waits for the operator's signature: `fedcollm runs sign {run.id} --terms FILE`"
        case RunState.RUNNING:
            return _running(run.terms.cohort, rounds, time_spent(events), now=now)


def _running(cohort: CohortTerms, rounds: Sequence[RoundView], spent: Spent, *, now: float) -> str:
    if spent.part is None or (spent.part == "open" and not rounds):
        return "the next round begins"
    where = f"round {rounds[-1].number}: " if rounds else ""
    if spent.part == "open":
        return where + _updates(cohort, rounds[-1], now=now)
    since = duration(max(0.0, now - spent.since))
    if spent.part == WAITING:
        return f"{where}waits for a worker: none has taken the work for {since}"
    return f"{where}{PARTS[spent.part]}  {since}"


def _updates(cohort: CohortTerms, current: RoundView, *, now: float) -> str:
    """Say what an open round waits for, by the closing rule (docs/protocol.md step 5)."""
    least, said = cohort.min_count, f"{current.accepted} of {cohort.max_count} updates"
    waited = now - current.since
    closes, gives_up = (duration(max(0.0, end - waited)) for end in (cohort.min_seconds, cohort.max_seconds))
    if current.accepted >= cohort.max_count:
        return said
    if current.accepted >= least:
        return f"{said}; goes on without the rest in {closes}"
    if least < cohort.max_count and waited < cohort.min_seconds:
        return f"{said}; waits {closes} for all, and then goes on with {least}"
    return f"{said}; needs {least}, or gives up in {gives_up}"
