import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from shared.data.examples import Example, read_examples
from shared.data.source import DataSource
from shared.errors import AnswerNotAmongChoices, DataColumnMissing, DataEmpty, DataError, DataUnreadable
from shared.protocol.terms import TaskTerms

TASK = TaskTerms(template="{question}")
ROW = {"question": "Which?", "choices": ["a", "b"], "answer": "b"}


def read_examples_of(file: Path) -> list[Example]:
    return read_examples(DataSource(path=file), TASK)


def write(folder: Path, *rows: object) -> Path:
    """A JSONL file; a text stands for itself, anything else is written as JSON."""
    file = folder / "data.jsonl"
    file.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return file


def test_examples_are_read_with_the_answer_as_an_index(tmp_path: Path):
    """A row becomes an example; other columns and blank lines do not matter."""
    file = write(tmp_path, ROW | {"source": "mine"}, "", ROW | {"answer": "a"})
    assert read_examples(DataSource(path=file), TASK) == [
        Example("Which?", ("a", "b"), 1),
        Example("Which?", ("a", "b"), 0),
    ]


def test_line_separators_inside_a_text_do_not_split_a_line(tmp_path: Path):
    """U+2028 is a line end to Python's splitlines and an ordinary letter to JSON."""
    file = write(tmp_path, json.dumps(ROW | {"question": "one\u2028two"}, ensure_ascii=False))
    assert read_examples(DataSource(path=file), TASK)[0].prompt == "one\u2028two"


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([], DataEmpty, "holds no example"),
        (["", "  "], DataEmpty, "holds no example"),
        ([ROW, "{'question'"], DataUnreadable, "line 2 is not JSON"),
        ([ROW, "[1]"], DataUnreadable, "line 2 is not a JSON object"),
        (
            [{"question": "p", "answer": "a"}],
            DataColumnMissing,
            r"line 1 has no column 'choices'; it has: 'question', 'ans",
        ),
        (["{}"], DataColumnMissing, "line 1 has no column 'question'; it has: none"),
        ([ROW, ROW | {"answer": "c"}], AnswerNotAmongChoices, "line 2: the answer is none of the 2 choices"),
        ([ROW | {"answer": 1}], AnswerNotAmongChoices, "line 1"),
        ([ROW | {"question": ""}], DataUnreadable, "'question' must be a text"),
        ([ROW | {"question": 3}], DataUnreadable, "'question' must be a text"),
        ([ROW | {"choices": "ab"}], DataUnreadable, "'choices' must be a list"),
        ([ROW | {"choices": ["b"]}], DataUnreadable, "'choices' must be a list of two or more"),
        ([ROW | {"choices": ["b", 2]}], DataUnreadable, "'choices' must be a list"),
        ([ROW | {"choices": ["b", " "]}], DataUnreadable, "none of them empty"),
        ([ROW | {"choices": ["b", "b"]}], DataUnreadable, "different texts"),
    ],
)
def test_a_bad_file_is_refused_by_line(tmp_path: Path, rows: Sequence[object], error: type[DataError], message: str):
    """Each fault has its error, which says where it is and what to do."""
    with pytest.raises(error, match=message):
        read_examples_of(write(tmp_path, *rows))


def test_a_missing_file_and_one_that_is_not_text_are_unreadable(tmp_path: Path):
    """What the disk cannot give is a data error too, not a traceback."""
    with pytest.raises(DataUnreadable, match=r"nothing\.jsonl"):
        read_examples_of(tmp_path / "nothing.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b'{"question": "\xe9"}\n')
    with pytest.raises(DataUnreadable, match="UTF-8"):
        read_examples_of(tmp_path / "latin.jsonl")


def test_messages_never_quote_the_data(tmp_path: Path):
    """Prompts are private, and messages end up in logs."""
    with pytest.raises(AnswerNotAmongChoices) as caught:
        read_examples_of(write(tmp_path, ROW | {"question": "SECRET-1", "answer": "SECRET-2"}))
    assert "SECRET" not in str(caught.value)
