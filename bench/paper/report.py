"""The report of an experiment: Markdown to read, HTML with plots, and JSON with every single answer."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import markdown

from bench.paper import tables
from bench.paper.cells import Outcome
from bench.paper.charts import charts
from bench.paper.config import Experiment
from bench.paper.methods import ROLES, ZERO_SHOT, Cell, ModelRole, terms_of
from bench.paper.parties import CLIENTS, Parties
from bench.paper.statistics import Difference

NAMES: dict[ModelRole, str] = {"slm": "SLM", "llm": "LLM"}
ABOUT_TABLES = (
    "Accuracy in per cent on {count} {measured_on} items (chance {chance:.0f}): mean over seeds ± standard deviation. "
    "*FedCoLLM minus it*: difference in points, with the paired bootstrap's 95 % interval over items, and Student's "
    "over seeds; bold where neither has 0 in it. *p*: McNemar's exact test, the median over {seeds} seed(s), and for "
    "Standalone over all clients."
)


def write_report(experiment: Experiment, outcomes: Sequence[Outcome], parties: Parties, command: str, out: Path) -> str:
    """Write ``report.md``, ``report.html`` and ``report.json`` to a folder, and return the Markdown."""
    out.mkdir(parents=True, exist_ok=True)
    rows = {role: tables.rows(experiment, outcomes, role) for role in ROLES}
    text = as_markdown(experiment, outcomes, rows, parties, command)
    (out / "report.md").write_text(text, encoding="utf-8")
    content = {
        "command": command,
        "experiment": experiment.model_dump(mode="json", exclude={"data": {"settings"}}),
        "examples": parties.examples,
        "tables": {role: [asdict(row) for row in rows[role]] for role in ROLES},
        "traffic": [asdict(row) for row in tables.traffic(experiment, outcomes)],
        "outcomes": [one.model_dump(mode="json") for one in outcomes],
    }
    (out / "report.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    body = markdown.markdown(text, extensions=["tables"])
    plots = "\n".join(charts(experiment, outcomes, rows))
    (out / "report.html").write_text(PAGE.format(title=experiment.title, body=body, plots=plots), encoding="utf-8")
    return text


def as_markdown(
    experiment: Experiment,
    outcomes: Sequence[Outcome],
    rows: Mapping[ModelRole, Sequence[tables.Row]],
    parties: Parties,
    command: str,
) -> str:
    """Return the report as text."""
    about = ABOUT_TABLES.format(
        count=parties.examples[parties.measured_on],
        measured_on=parties.measured_on,
        chance=100 * next(iter(outcomes[0].measured.values())).chance,
        seeds=len(experiment.seeds),
    )
    lines = [f"# {experiment.title}", "", f"    {command}", "", *_made(outcomes), "", about, ""]
    for role in ROLES:
        lines += [f"## {NAMES[role]}", "", *_table(rows[role], role), ""]
    lines += ["## What a client sends and fetches in a round", "", *_traffic(tables.traffic(experiment, outcomes)), ""]
    lines += ["## Settings", "", *_settings(experiment, outcomes, parties), ""]
    return "\n".join(lines)


def _made(outcomes: Sequence[Outcome]) -> list[str]:
    """Return when the runs were made, and by what, a line for each machine and code."""
    dates: dict[str, list[str]] = {}
    for one in outcomes:
        if one.made is not None:
            by = f"{one.made.machine}, {one.made.jobs} at a time; {one.made.versions}; code {one.made.code}"
            dates.setdefault(by, []).append(one.made.date)
    return [f"- {len(on)} runs on {' to '.join(sorted({min(on), max(on)}))}: {by}" for by, on in sorted(dates.items())]


def _table(rows: Sequence[tables.Row], role: ModelRole) -> list[str]:
    aggregated = role == "slm" and any(row.aggregated is not None for row in rows)
    names = [
        "method",
        *(["aggregated"] if aggregated else []),
        NAMES[role],
        "by seed",
        "acc_norm",
        "loss",
        "FedCoLLM minus it",
        "over seeds",
        "p",
    ]
    lines = [f"| {' | '.join(names)} |", f"|{' --- |'}{' ---: |' * (len(names) - 1)}"]
    for row in rows:
        cells = [
            row.title,
            *(["" if row.aggregated is None else f"{row.aggregated:.1f}"] if aggregated else []),
            row.text,
            " ".join(f"{value:.1f}" for value in row.by_seed) if len(row.by_seed) > 1 else "",
            f"{row.accuracy_norm:.1f}",
            f"{row.loss:.3f}",
            *_compared(row.ours_minus_it),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _compared(found: Difference | None) -> tuple[str, str, str]:
    if found is None:
        return "", "", ""
    points = f"**{found.points:+.1f}**" if found.is_clear else f"{found.points:+.1f}"
    p = "< 0.001" if found.median_p < 0.001 else f"{found.median_p:.3f}"  # noqa: PLR2004
    return f"{points} {_interval(found.over_items)}", _interval(found.over_seeds) if found.over_seeds else "", p


def _interval(ends: tuple[float, float]) -> str:
    return f"({ends[0]:+.1f} to {ends[1]:+.1f})"


def _traffic(rows: Sequence[tables.Traffic]) -> list[str]:
    return [
        "| method | parameters sent | of the SLM's, % | adapter, MB | sent, MB | adapters fetched, MB |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        *(
            f"| {row.title} | {row.parameters:,} | {100 * row.parameters / row.base_parameters:.2f} | "
            f"{row.adapter_bytes / 1e6:.2f} | {row.sent_bytes / 1e6:.2f} | {row.fetched_bytes / 1e6:.2f} |"
            for row in rows
        ),
    ]


def _settings(experiment: Experiment, outcomes: Sequence[Outcome], parties: Parties) -> list[str]:
    examples = ", ".join(f"{party} {count}" for party, count in parties.examples.items())
    seconds = sum(one.seconds for one in outcomes)
    made = ", ".join(f"{method} {' or '.join(map(str, counts))}" for method, counts in tables.steps(outcomes).items())
    ended = [f"- {one.method} of seed {one.seed} ended early: {one.ended}" for one in outcomes if one.ended]
    terms = terms_of(experiment, Cell(ZERO_SHOT, CLIENTS, experiment.seeds[0]), llm=Path(), slm=Path())
    told = terms.model_dump(mode="json", exclude={"llm", "slm", "name", "seed"})
    return [
        f"- models: LLM {experiment.llm}, SLM {experiment.slm}, held in {experiment.dtype} on {experiment.device}",
        f"- examples: {examples}",
        f"- optimiser steps of a client on its private data: {made}",
        f"- FedCoLLM's terms, preset {experiment.preset}: `{json.dumps(told)}`",
        *(f"- {name}: `{json.dumps(above)}`" for name, above in experiment.variants.items()),
        *ended,
        f"- seeds: {', '.join(map(str, experiment.seeds))}; seconds of all runs: {seconds:.0f}",
    ]


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24 }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
th, td {{ padding: .3rem .8rem; border-bottom: 1px solid #d0d7de; text-align: right }}
th:first-child, td:first-child {{ text-align: left }}
pre {{ overflow-x: auto; background: #f6f8fa; padding: .8rem }}
</style></head><body>
{body}
{plots}
</body></html>
"""
