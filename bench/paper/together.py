"""Print the tables of several reports side by side: ``python -m bench.paper.together report.json …``."""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.paper.methods import ROLES
from bench.paper.report import NAMES
from bench.paper.statistics import Difference
from bench.paper.tables import Row

ABOVE, BELOW = "▲", "▼"
"""Of a row that is clearly above or below FedCoLLM's."""


def together(reports: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield one table in Markdown: a column for each report, a row for each method that all of them have."""
    names = [report["experiment"]["title"].partition(":")[0] for report in reports]
    yield f"| accuracy, % | {' | '.join(names)} |"
    yield f"| --- |{' ---: |' * len(names)}"
    for role in ROLES:
        columns = [{row["title"]: _row(row) for row in report["tables"][role]} for report in reports]
        for title in columns[0]:
            if all(title in column for column in columns):
                yield f"| {NAMES[role]}: {title} | {' | '.join(_cell(column[title]) for column in columns)} |"


def _row(told: Mapping[str, Any]) -> Row:
    compared = told["ours_minus_it"]
    return Row(**{**told, "ours_minus_it": None if compared is None else Difference(**compared)})


def _cell(row: Row) -> str:
    ours = row.ours_minus_it
    if ours is None:
        return f"**{row.text}**"
    if not ours.is_clear:
        return row.text
    return f"{row.text} {BELOW if ours.points > 0 else ABOVE}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.paper.together", description=__doc__)
    parser.add_argument("reports", type=Path, nargs="+", metavar="REPORT", help="what bench.paper wrote as report.json")
    files: Sequence[Path] = parser.parse_args().reports
    print("\n".join(together([json.loads(file.read_text(encoding="utf-8")) for file in files])))


if __name__ == "__main__":
    main()
