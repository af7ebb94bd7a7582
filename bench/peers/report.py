"""The tables of the comparison, as Markdown that can be read as it is."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from bench.peers.aggregating import Aggregated
from bench.peers.crashing import Crashed
from bench.peers.measuring import Measured, percentile, slope


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield a table's lines: the first column to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = (
            cell.ljust(width) if not place else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "| " + " | ".join([first, *rest]) + " |"

    yield line(head)
    yield (
        "| "
        + " | ".join("-" * width if not place else "-" * (width - 1) + ":" for place, width in enumerate(widths))
        + " |"
    )
    for row in rows:
        yield line(row)


def number(value: float | None, form: str) -> str:
    """Return a number, or that there is none."""
    return "-" if value is None else f"{value:{form}}"


def rounds(measured: Sequence[Measured]) -> Iterator[str]:
    """Yield what rounds cost."""
    head = ("system", "agents", "MB", "rounds", "p50 s", "p95 s", "adapters/s", "bytes/ideal", "memory MB", "ended")
    yield from table(head, [_round_row(each) for each in measured])


def _round_row(each: Measured) -> tuple[str, ...]:
    median = percentile(each.seconds, 50)
    ideal = 2 * each.agents * each.adapter_bytes
    return (
        each.system,
        str(each.agents),
        f"{each.adapter_bytes / 1e6:.1f}",
        f"{len(each.seconds)} of {each.asked - 1}",
        number(median, ".2f"),
        number(percentile(each.seconds, 95), ".2f"),
        number(each.agents / median if median else None, ".1f"),
        number(each.bytes_per_round / ideal if each.bytes_per_round else None, ".3f"),
        f"{each.megabytes:.0f}",
        each.ended or "all rounds",
    )


def memory(measured: Sequence[Measured]) -> Iterator[str]:
    """Yield how memory grows with agents and with the adapter."""
    by_agents, by_size = defaultdict(list), defaultdict(list)
    least = min((each.adapter_bytes for each in measured), default=0)
    fewest = min((each.agents for each in measured), default=0)
    for each in measured:
        if each.adapter_bytes == least:
            by_agents[each.system].append((each.agents, each.megabytes))
        if each.agents == fewest:
            by_size[each.system].append((each.adapter_bytes / 1e6, each.megabytes))
    head = ("memory of the coordinator's side", "MB an agent", "MB a MB of adapter")
    rows = [
        (system, number(slope(by_agents[system]), "+.1f"), number(slope(by_size[system]), "+.1f"))
        for system in dict.fromkeys(each.system for each in measured)
    ]
    yield from table(head, rows)


def aggregation(aggregated: Sequence[Aggregated]) -> Iterator[str]:
    """Yield how fast adapters are aggregated."""
    head = ("what is timed", "MB", "at once", "adapters/s", "least", "most")
    rows = [
        (
            each.what,
            f"{each.adapter_bytes / 1e6:.1f}",
            str(each.cohort),
            number(percentile(each.rates, 50), ",.0f"),
            f"{min(each.rates):,.0f}",
            f"{max(each.rates):,.0f}",
        )
        for each in aggregated
    ]
    yield from table(head, rows)


def crashes(crashed: Sequence[Crashed], uncrashed: dict[str, str | None]) -> Iterator[str]:
    """Yield what became of runs whose coordinator was killed; ``uncrashed`` has what they give if it is not."""
    head = (
        "system",
        "seed",
        "killed in round",
        "serves after s",
        "next round after s",
        "model kept",
        "rounds lost",
        "final adapter",
    )
    rows = [
        (
            each.system,
            str(each.seed),
            f"{each.rounds_before + 1} of {each.rounds}, at {each.into_next:.0%}",
            number(each.serves_after, ".1f"),
            number(each.goes_on_after, ".1f") if each.goes_on_after is not None else "never",
            f"round {each.kept}" if each.kept else "none",
            f"{each.rounds_lost} of {each.rounds_before}",
            "none" if each.digest is None else "the same" if each.digest == uncrashed.get(each.system) else "ANOTHER",
        )
        for each in crashed
    ]
    yield from table(head, rows)


def training(measured: Sequence[Measured]) -> Iterator[str]:
    """Yield what a round takes beyond the longest training in that same round, which is real."""
    head = ("system", "rounds", "round s", "of it training s", "beyond it s", "least", "most", "of the training %")
    rows = []
    for each in measured:
        beyond = [whole - trained for whole, trained in zip(each.seconds, each.trainings, strict=False)]
        trained, more = percentile(each.trainings, 50), percentile(beyond, 50)
        rows.append(
            (
                each.system,
                str(len(beyond)),
                number(percentile(each.seconds, 50), ".2f"),
                number(trained, ".2f"),
                number(more, "+.2f"),
                number(min(beyond, default=None), "+.2f"),
                number(max(beyond, default=None), "+.2f"),
                number(100 * more / trained if more is not None and trained else None, "+.0f"),
            )
        )
    yield from table(head, rows)
