"""ARC's questions in AI2's own files (arXiv 1803.05457)."""

from pathlib import Path

from bench.data_settings import EXAMPLES, read_data_settings
from shared.data.examples import Example, read_examples
from shared.data.source import DataSource


def arc_questions(path: Path) -> list[Example]:
    """Return the questions of one of ARC's JSONL files.

    Raises:
        DataError: the file cannot be read, or a line is not a question of ARC's.
    """
    columns, task = read_data_settings(EXAMPLES / "arc.toml")
    return read_examples(DataSource(path=path, columns=columns), task)
