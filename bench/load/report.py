"""What the figures of a run come to, as a table and as plots."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from pydantic import BaseModel

from bench.load.losses import READY
from bench.load.measuring import Measured
from bench.peers.report import table as markdown
from shared.protocol.rounds import RoundState
from shared.protocol.terms import FROZEN

MEGABYTE = 1e6


class Percentiles(BaseModel):
    """Of a number of seconds."""

    count: int
    p50: float
    p99: float
    most: float
    model_config = FROZEN


class Summary(BaseModel):
    """What a run took.

    ``requests`` are all but long polls that waited, as their senders saw them; ``served`` is how long the coordinator
    took over 99 of 100 of an attempt's messages, as it says itself. ``told`` is how long after a stage began (or after
    it asked, if that was later) an agent knew of it, and ``last_told`` when the last one did, by round and stage.
    """

    agents: int
    ended: str
    rounds: int
    accepted: int
    round_seconds: float
    by_state: dict[str, float]
    requests: dict[str, Percentiles]
    all_requests: Percentiles
    served: float
    told: Percentiles
    last_told: float
    cpu_milliseconds: float
    resident: tuple[int, ...]
    bytes_each: float
    lost: int
    retries: dict[str, int]
    failures: dict[str, int]
    model_config = FROZEN


def summary(measured: Measured) -> Summary:
    """Return what a run came to."""
    requests: dict[str, list[float]] = defaultdict(list)
    retries, failures = Counter[str](), Counter[str]()
    for seen in measured.seen:
        retries.update(seen.retries)
        failures.update(seen.failures)
        for kind, seconds in seen.requests.items():
            requests[kind] += seconds
    delays = told_after(measured)
    published = [view for view in measured.rounds if view.state is RoundState.PUBLISHED]
    done = max(1, len(published))
    used = measured.samples[-1].cpu_seconds - measured.first.cpu_seconds if measured.samples else float("nan")
    states = published[0].seconds if published else {}
    return Summary(
        agents=measured.agents,
        ended=measured.ended,
        rounds=len(published),
        accepted=sum(view.accepted for view in published),
        round_seconds=statistics.median([sum(view.seconds.values()) for view in published] or [float("nan")]),
        by_state={state: statistics.median([view.seconds.get(state, 0.0) for view in published]) for state in states},
        requests={kind: percentiles(seconds) for kind, seconds in sorted(requests.items())},
        all_requests=percentiles([second for seconds in requests.values() for second in seconds]),
        served=within(measured.answered, 0.99),
        told=percentiles([delay for group in delays.values() for delay in group]),
        last_told=max((max(group) for group in delays.values()), default=float("nan")),
        cpu_milliseconds=1000 * used / measured.agents / done,
        resident=tuple(sample.resident for sample in (measured.first, *measured.samples)),
        bytes_each=(measured.received + measured.sent) / measured.agents / done,
        lost=sum(seen.lost for seen in measured.seen),
        retries=dict(retries),
        failures=dict(failures),
    )


def told_after(measured: Measured) -> dict[tuple[int, int, str], list[float]]:
    """Return how long after it was due each agent was told of a stage, by round, attempt and message."""
    since: dict[tuple[int, int, str], float] = {}
    for event in measured.events:
        state, attempt = event.kind.removeprefix("round."), event.detail.get("attempt")
        if event.round is not None and state == RoundState.OPEN and attempt is None:  # and not again, after an attempt
            since[event.round, 0, READY] = event.at
        elif event.round is not None and isinstance(attempt, int):
            since[event.round, attempt, state] = event.at
    delays: dict[tuple[int, int, str], list[float]] = defaultdict(list)
    for seen in measured.seen:
        for told in seen.told:
            key = (told.round, told.attempt, told.message)
            if key in since:
                delays[key].append(told.told_at - max(since[key], told.asked_at))
    return delays


def percentiles(seconds: Sequence[float]) -> Percentiles:
    """Return what a sample of seconds comes to."""
    if not seconds:
        return Percentiles(count=0, p50=float("nan"), p99=float("nan"), most=float("nan"))
    p50, p99, most = np.percentile(seconds, [50, 99, 100]).tolist()
    return Percentiles(count=len(seconds), p50=p50, p99=p99, most=most)


def within(buckets: dict[float, float], share: float) -> float:
    """Return the first bound of a cumulative histogram within which ``share`` of it lies."""
    total = max(buckets.values(), default=0.0)
    return next((bound for bound, count in sorted(buckets.items()) if count >= share * total), float("nan"))


def table(found: Sequence[Summary]) -> Iterator[str]:
    """Yield the table's lines, and what stands below it."""
    head = (
        *("agents", "rounds", "updates", "s a round", "request p50 ms", "p99 ms", "served p99 ms", "told p50 s"),
        *("last told s", "CPU ms", "KB", "MB first", "MB last"),
    )
    rows = [
        (
            f"{one.agents:,}",
            str(one.rounds),
            f"{one.accepted:,}",
            f"{one.round_seconds:.1f}",
            f"{1000 * one.all_requests.p50:.0f}",
            f"{1000 * one.all_requests.p99:.0f}",
            f"<= {1000 * one.served:g}",
            f"{one.told.p50:.2f}",
            f"{one.last_told:.1f}",
            f"{one.cpu_milliseconds:.0f}",
            f"{one.bytes_each / 1000:.0f}",
            f"{one.resident[0] / MEGABYTE:.0f}",
            f"{one.resident[-1] / MEGABYTE:.0f}",
        )
        for one in found
    ]
    yield from markdown(head, rows)
    yield "CPU and KB are the coordinator's, of one agent in one round; KB are bodies, both ways. Resident MB, at most:"
    for one in found:
        resident = " ".join(f"{each / MEGABYTE:.0f}" for each in one.resident)
        yield f"  {one.agents:,} agents: {resident} (before the first round, and in each)"
    for one in found:
        trouble = f"sent again {one.retries or 'nothing'}; failed {one.failures or 'nothing'}"
        yield f"{one.agents:,} agents: {one.ended}; {one.lost:,} times one was lost; {trouble}"
        yield "  seconds by state: " + ", ".join(f"{state} {seconds:.1f}" for state, seconds in one.by_state.items())
        for kind, told in one.requests.items():
            yield f"  {kind:<58} {told.count:>8,}  p50 {1000 * told.p50:6.1f}  p99 {1000 * told.p99:7.1f} ms"


def page(found: Sequence[Summary]) -> str:
    """Return a page with plots, which needs no network."""
    agents = [one.agents for one in found]
    figures = (
        ("The coordinator's CPU of an agent in a round, ms", [one.cpu_milliseconds for one in found]),
        ("Control requests, p99, ms", [1000 * one.all_requests.p99 for one in found]),
        ("Seconds a round", [one.round_seconds for one in found]),
    )
    plots = [
        go.Figure(go.Scatter(x=agents, y=values, mode="lines+markers"), _layout(title, "agents", log=True))
        for title, values in figures
    ]
    memory = [
        go.Scatter(y=[each / MEGABYTE for each in one.resident], name=f"{one.agents:,} agents", mode="lines+markers")
        for one in found
    ]
    plots.append(go.Figure(memory, _layout("The coordinator's resident memory by round, MB", "round", log=False)))
    body = "\n".join(plot.to_html(full_html=False, include_plotlyjs=False) for plot in plots)
    return f"<!doctype html><meta charset='utf-8'><title>Load</title><script>{get_plotlyjs()}</script>\n{body}\n"


def _layout(title: str, below: str, *, log: bool) -> dict[str, object]:
    axis = {"title": {"text": below}, "type": "log" if log else "linear"}
    return {
        "title": {"text": title},
        "height": 420,
        "template": "plotly_white",
        "xaxis": axis,
        "yaxis": {"rangemode": "tozero"},
    }
