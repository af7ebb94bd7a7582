"""An experiment's plots: accuracies of the methods, differences to FedCoLLM, and curves over rounds."""

import statistics
from collections.abc import Iterator, Mapping, Sequence

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from bench.paper import tables
from bench.paper.cells import Outcome
from bench.paper.config import Experiment
from bench.paper.methods import ROLES, ModelRole, methods_of

HEIGHT = 420
CURVES = (("slm_aggregated", "SLM after aggregation"), ("slm", "SLM after co-tuning"), ("llm", "LLM"))


def charts(
    experiment: Experiment, outcomes: Sequence[Outcome], rows: Mapping[ModelRole, Sequence[tables.Row]]
) -> Iterator[str]:
    """Yield the plots as HTML, the library before the first: the page needs no network."""
    yield f"<script>{get_plotlyjs()}</script>"
    for role in ROLES:
        yield _html(_accuracies(rows[role], f"{role.upper()}: accuracy over {len(experiment.seeds)} seeds, %"))
        yield _html(_differences(rows[role], f"{role.upper()}: FedCoLLM minus method, points, with 95 % intervals"))
    for name, title in CURVES:
        yield _html(_curves(experiment, outcomes, name, f"{title}: accuracy on the validation set by round, %"))


def _accuracies(rows: Sequence[tables.Row], title: str) -> go.Figure:
    bars = go.Bar(
        x=[row.title for row in rows],
        y=[row.accuracy for row in rows],
        error_y={"array": [row.spread for row in rows]},
        text=[f"{row.accuracy:.1f}" for row in rows],
    )
    return _figure([bars], title)


def _differences(rows: Sequence[tables.Row], title: str) -> go.Figure:
    compared = [(row.title, row.ours_minus_it) for row in rows if row.ours_minus_it is not None]
    over_items = [(name, found.points, found.over_items) for name, found in compared]
    over_seeds = [(name, found.points, found.over_seeds) for name, found in compared if found.over_seeds is not None]
    figure = _figure([_intervals(over_items, "over items"), _intervals(over_seeds, "over seeds")], title)
    figure.update_layout(scattermode="group")
    figure.add_vline(x=0, line_dash="dot")
    return figure


def _intervals(found: Sequence[tuple[str, float, tuple[float, float]]], title: str) -> go.Scatter:
    return go.Scatter(
        name=title,
        x=[points for _, points, _ in found],
        y=[name for name, _, _ in found],
        error_x={
            "symmetric": False,
            "array": [high - points for _, points, (_, high) in found],
            "arrayminus": [points - low for _, points, (low, _) in found],
        },
        mode="markers",
    )


def _curves(experiment: Experiment, outcomes: Sequence[Outcome], name: str, title: str) -> go.Figure:
    lines = []
    for method, about in methods_of(experiment).items():
        its = [one for one in outcomes if one.method == method and one.curve and len(one.agents) > 1]
        if not its or (name != "slm" and "slm_aggregated" not in its[0].measured):
            continue
        by_round = zip(*([getattr(scores, name).accuracy for scores in one.curve] for one in its), strict=True)
        means = [100 * statistics.mean(seeds) for seeds in by_round]
        lines.append(go.Scatter(x=list(range(1, len(means) + 1)), y=means, name=about.title, mode="lines+markers"))
    return _figure(lines, title)


def _figure(traces: Sequence[go.Bar | go.Scatter], title: str) -> go.Figure:
    return go.Figure(list(traces), {"title": {"text": title}, "height": HEIGHT, "template": "plotly_white"})


def _html(figure: go.Figure) -> str:
    html: str = figure.to_html(full_html=False, include_plotlyjs=False)
    return html
