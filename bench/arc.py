"""ARC's questions in AI2's own files (arXiv 1803.05457), read as ``examples/data/arc.toml`` says to everybody."""

import tomllib
from pathlib import Path

from shared.data.examples import Example, read_examples
from shared.data.source import Columns, DataSource
from shared.protocol.terms import TaskTerms

CONFIGURATION = Path(__file__).parents[1] / "examples" / "data" / "arc.toml"


def arc_settings() -> tuple[Columns, TaskTerms]:
    """Return what ARC's columns are called, and what becomes of a question."""
    tables = tomllib.loads(CONFIGURATION.read_text(encoding="utf-8"))
    return Columns.model_validate(tables["data"]["columns"]), TaskTerms.model_validate(tables["task"])


def arc_questions(path: Path) -> list[Example]:
    """Return the questions of one of ARC's JSONL files.

    Raises:
        DataError: the file cannot be read, or a line is not a question of ARC's.
    """
    columns, task = arc_settings()
    return read_examples(DataSource(path=path, columns=columns), task)
