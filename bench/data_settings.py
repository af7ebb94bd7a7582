"""Data sets in their authors' own files, read as a file such as those in ``examples/data`` says."""

import tomllib
from pathlib import Path

from shared.data.source import Columns
from shared.protocol.terms import TaskTerms

EXAMPLES = Path(__file__).parents[1] / "examples" / "data"


def read_data_settings(file: Path) -> tuple[Columns, TaskTerms]:
    """Return what a data set's columns are called, and what becomes of one of its rows."""
    tables = tomllib.loads(file.read_text(encoding="utf-8"))
    return Columns.model_validate(tables["data"]["columns"]), TaskTerms.model_validate(tables["task"])
