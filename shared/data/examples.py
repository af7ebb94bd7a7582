"""Examples as a run's task wants them."""

import json
from dataclasses import dataclass

from shared.data.source import DataSource
from shared.errors import AnswerNotAmongChoices, DataColumnMissing, DataEmpty, DataUnreadable
from shared.protocol.terms import TaskTerms

_COLUMNS = ("question", "choices", "answer")
_FEWEST_CHOICES = 2


@dataclass(frozen=True)
class Example:
    """A question with its possible answers; ``answer`` is the index of the right one."""

    prompt: str
    choices: tuple[str, ...]
    answer: int


def read_examples(source: DataSource, task: TaskTerms) -> list[Example]:
    """Return the examples of a data source as the run's task wants them.

    Other columns are passed over, and so are blank lines. Lines count from 1 in messages, which never quote the data.

    Raises:
        DataUnreadable: no such file, a line that is not a JSON object, or a column of the wrong kind.
        DataEmpty: the file holds no example.
        DataColumnMissing: a line lacks a column.
        AnswerNotAmongChoices: a line's answer is none of its choices.
    """
    path = source.path
    try:
        # Not splitlines(): that also splits at separators that JSON allows inside a string.
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataUnreadable(f"cannot read {path}: {error}; name a JSONL file in UTF-8") from error
    examples = [_example(line, f"{path}, line {number}", task) for number, line in enumerate(lines, 1) if line.strip()]
    if not examples:
        raise DataEmpty(f"{path} holds no example: put one JSON object a line, with {', '.join(_COLUMNS)}")
    return examples


def _example(line: str, where: str, task: TaskTerms) -> Example:
    """Read one line; ``where`` names it in messages."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataUnreadable(f"{where} is not JSON: {error}; put one JSON object a line") from error
    if not isinstance(row, dict):
        raise DataUnreadable(f"{where} is not a JSON object: put one JSON object a line, with {', '.join(_COLUMNS)}")
    for column in _COLUMNS:
        if column not in row:
            there = ", ".join(repr(name) for name in row) or "none"
            raise DataColumnMissing(f"{where} has no column {column!r}; it has: {there}. Rename or add the column")
    question, choices, answer = (row[column] for column in _COLUMNS)
    if not (isinstance(question, str) and question):
        raise DataUnreadable(f"{where}: 'question' must be a text that is not empty")
    if not (
        isinstance(choices, list)
        and len(choices) >= _FEWEST_CHOICES
        and all(isinstance(choice, str) and choice.strip() for choice in choices)
        and len(set(choices)) == len(choices)
    ):
        raise DataUnreadable(f"{where}: 'choices' must be a list of two or more different texts, none of them empty")
    if answer not in choices:
        raise AnswerNotAmongChoices(
            f"{where}: the answer is none of the {len(choices)} choices: 'answer' must be the text of one of them, "
            "letter by letter"
        )
    return Example(prompt=task.prompt(question), choices=tuple(choices), answer=choices.index(answer))
