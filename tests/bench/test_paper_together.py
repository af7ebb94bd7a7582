"""Reports side by side."""

from dataclasses import asdict
from typing import Any

from bench.paper.statistics import Difference
from bench.paper.tables import Row
from bench.paper.together import together


def row(title: str, accuracy: float, ours_minus_it: Difference | None, seeds: int = 3) -> Row:
    """Return a row of a table."""
    return Row(
        title=title,
        accuracy=accuracy,
        spread=0.25 if seeds > 1 else 0.0,
        accuracy_norm=0.0,
        by_seed=(accuracy,) * seeds,
        loss=0.0,
        aggregated=None,
        ours_minus_it=ours_minus_it,
    )


def report(title: str, *slm: Row, llm: Row) -> dict[str, Any]:
    """Return what a report's JSON says of its tables."""
    return {"experiment": {"title": title}, "tables": {"slm": [asdict(one) for one in slm], "llm": [asdict(llm)]}}


def difference(points: float, over_seeds: tuple[float, float]) -> Difference:
    """Return a difference that is clear over items, and over seeds as said."""
    return Difference(points=points, over_items=(points - 0.5, points + 0.5), over_seeds=over_seeds, median_p=0.01)


def test_methods_of_all_reports_are_rows() -> None:
    """Ours bold; marked where a row is clearly above or below it, in items and in seeds; one seed has no spread."""
    below, unclear, above = difference(2, (1, 3)), difference(2, (-1, 5)), difference(-2, (-3, -1))
    ours = row("FedCoLLM", 52, None)
    first = report(
        "One: a pair", row("FedAvg", 50, below), row("λ = 0", 50, unclear), row("Else", 1, None), ours, llm=ours
    )
    second = report("Two: a pair", row("FedAvg", 54, above, seeds=1), row("λ = 0", 50, unclear), ours, llm=ours)
    assert list(together([first, second])) == [
        "| accuracy, % | One | Two |",
        "| --- | ---: | ---: |",
        "| SLM: FedAvg | 50.0 ± 0.2 ▼ | 54.0 ▲ |",
        "| SLM: λ = 0 | 50.0 ± 0.2 | 50.0 ± 0.2 |",
        "| SLM: FedCoLLM | **52.0 ± 0.2** | **52.0 ± 0.2** |",
        "| LLM: FedCoLLM | **52.0 ± 0.2** | **52.0 ± 0.2** |",
    ]
