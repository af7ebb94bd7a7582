"""Examples as a run's task wants them, from an organisation's own files (docs/data.md)."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import structlog

from shared.data.columns import look_up
from shared.data.files import format_by_name, held_still
from shared.data.rows import PlacedRow, Row, read_rows
from shared.data.source import AnswerForm, Columns, DataSource
from shared.data.values import as_text, is_empty, plain, type_name
from shared.errors import AnswerNotAmongChoices, AnswersMixed, DataEmpty, DataUnreadable
from shared.protocol.terms import TaskTerms

log = structlog.get_logger()

_FEWEST_CHOICES = 2
_FROM_1 = 'set labels = ["1", "2", ...], as many as the longest question has choices, instead of answer_is'


@dataclass(frozen=True)
class Example:
    """A prompt with its possible answers; ``answer`` is the index of the right one.

    An example with a single answer is a completion. ``where`` says for messages which row it was.
    """

    prompt: str
    choices: tuple[str, ...]
    answer: int
    where: str = field(default="an example", compare=False)


def read_examples(source: DataSource, task: TaskTerms) -> list[Example]:
    """Return the examples of a data source as the run's task wants them: one for each row, none left out.

    Texts lose the white space around them, so that one space stands before an answer. Choices of equal text are one
    choice: a model cannot prefer one to the other. Messages say where, and never quote the data.

    Raises:
        DataUnreadable: it is not there, not readable, or a row is not what format and task say.
        DataChanged: it was written to meanwhile.
        DataEmpty: there is no row.
        DataColumnMissing: a row lacks a column.
        AnswersMixed: some answers are of one type and some of another.
        AnswerNotAmongChoices: a row's answer is none of its choices.
    """
    path, columns = source.path, source.columns
    with held_still(path):
        rows = _with_answers_of_one_type(
            read_rows(path, source.format or format_by_name(path), source.split), columns.answer
        )
        examples = [example_of(row, where, columns, task) for where, row in rows]
    if not examples:
        raise DataEmpty(f"{path} holds no example: name a file with at least one row")
    if columns.answer_form == "index" and all(one.answer for one in examples):
        # Where answers count from 1 and none is the last choice, each would be taken for the one after it.
        log.warning("answers.none_is_0", path=str(path), of=len(examples), if_they_count_from_1=_FROM_1)
    return examples


def _with_answers_of_one_type(rows: Iterator[PlacedRow], column: str) -> Iterator[PlacedRow]:
    first: tuple[str, str] | None = None
    for where, row in rows:
        answer = look_up(row, column, setting="columns.answer", where=where)
        if is_empty(answer):
            raise DataUnreadable(f"{where}: the answer is empty; without it nothing can be learnt or scored")
        name = type_name(answer)
        first = first or (where, name)
        if name != first[1]:
            raise AnswersMixed(
                f"the answer is {first[1]} in {first[0]} and {name} in {where}: write all answers alike, as texts, "
                "labels or indices"
            )
        yield where, row


def example_of(row: Row, where: str, columns: Columns, task: TaskTerms) -> Example:
    """Return one row's example; errors are those of ``read_examples``."""
    match task.kind:
        case "multiple_choice":
            return _multiple_choice(row, where, columns, task)
        case "completion":
            return _completion(row, where, columns, task)


def _completion(row: Row, where: str, columns: Columns, task: TaskTerms) -> Example:
    answer = look_up(row, columns.answer, setting="columns.answer", where=where)
    prompt = text_of(row, columns.prompt, where, setting="columns.prompt")
    return Example(task.prompt(prompt), (as_text(answer, "the answer", where),), 0, where)


def _multiple_choice(row: Row, where: str, columns: Columns, task: TaskTerms) -> Example:
    question = text_of(row, columns.question, where, setting="columns.question")
    choices = choices_of(row, columns.choices, where)
    different = tuple(dict.fromkeys(choices))
    if len(different) < _FEWEST_CHOICES:
        raise DataUnreadable(f"{where}: a question needs two or more different choices, and has {len(different)}")
    answer = look_up(row, columns.answer, setting="columns.answer", where=where)
    name = plain(answer)
    match columns.answer_form:
        case "text":
            names = choices
        case "label":
            names = _labels(row, columns, len(choices), where)
        case "index":
            names = [str(index) for index in range(len(choices))]
            name = name.removesuffix(".0")  # so pandas writes whole numbers to CSV where a column has gaps
    if name not in names:
        raise AnswerNotAmongChoices(f"{where}: {_not_among(columns.answer_form, answer, len(choices))}")
    return Example(task.prompt(question), different, different.index(choices[names.index(name)]), where)


def text_of(row: Row, columns: str | tuple[str, ...], where: str, *, setting: str) -> str:
    """Return the text of a column, or of several, one below the other.

    Raises:
        DataColumnMissing: there is none of them.
        DataUnreadable: it holds something else, or nothing.
    """
    several = (columns,) if isinstance(columns, str) else columns
    texts = [as_text(look_up(row, one, setting=setting, where=where), repr(one), where) for one in several]
    text = "\n".join(text for text in texts if text)
    if not text:
        raise DataUnreadable(f"{where}: there is no text in {', '.join(map(repr, several))}")
    return text


def choices_of(row: Row, columns: str | tuple[str, ...], where: str) -> list[str]:
    """Return the choices that a column lists, or that stand in a column each; errors are those of ``text_of``."""
    if isinstance(columns, str):
        choices = look_up(row, columns, setting="columns.choices", where=where)
        if not isinstance(choices, list):
            raise DataUnreadable(
                f"{where}: {columns!r} is {type_name(choices)} and must be a list of texts; where each choice has a "
                "column, name them all"
            )
    else:
        choices = [look_up(row, column, setting="columns.choices", where=where) for column in columns]
    texts = [as_text(choice, "one of the choices", where) for choice in _without_padding(choices)]
    if "" in texts:
        raise DataUnreadable(f"{where}: one of the choices is empty, and another one follows: write all that there are")
    return texts


def _labels(row: Row, columns: Columns, count: int, where: str) -> list[str]:
    if isinstance(columns.labels, str):
        labels = look_up(row, columns.labels, setting="columns.labels", where=where)
    else:
        labels = list(columns.labels or ())[:count]
    names = [plain(label) for label in _without_padding(labels)] if isinstance(labels, list) else []
    if len(names) != count or len(set(names)) < count or "" in names:
        raise DataUnreadable(
            f"{where}: there are {count} choices, and not as many labels, all different: each choice needs one; "
            "correct `labels`"
        )
    return names


def _without_padding(values: list[object]) -> list[object]:
    """Leave out what is empty at the end: columns and lists are often as many as the longest question has choices."""
    count = len(values)
    while count and is_empty(values[count - 1]):
        count -= 1
    return values[:count]


def _not_among(form: AnswerForm, answer: object, count: int) -> str:
    match form:
        case "text":
            return (
                f"the answer, {type_name(answer)}, is none of the {count} choices, letter by letter; where it is a "
                'label, set `labels`; where it is an index, set `answer_is` to "index"'
            )
        case "label":
            return f"the answer, {type_name(answer)}, is none of the {count} choices' labels; see `labels`"
        case "index":
            if plain(answer).removesuffix(".0") == str(count):
                return (
                    f"the answer is the number of choices, and an index counts from 0 to {count - 1}: most likely "
                    f"yours count from 1; then {_FROM_1}"
                )
            return (
                f"the answer is not one of 0 to {count - 1}, for an index counts from 0; where yours count from 1, "
                f"{_FROM_1}"
            )
