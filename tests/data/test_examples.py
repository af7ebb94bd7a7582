"""What becomes of rows, once they are read: examples of the two kinds of task, or a message that says what is wrong."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from shared.data.examples import Example, read_examples
from shared.data.source import Columns, DataSource
from shared.errors import (
    AnswerNotAmongChoices,
    AnswersMixed,
    DataChanged,
    DataColumnMissing,
    DataEmpty,
    DataError,
    DataUnreadable,
)
from shared.protocol.terms import TaskTerms

CHOICE = TaskTerms(template="{question}")
COMPLETION = TaskTerms(kind="completion", template="{question}")
ROW: dict[str, Any] = {"question": "Which?", "choices": ["a", "b"], "answer": "b"}
ARC = {"question": {"stem": "Which?", "choices": [{"text": "a", "label": "A"}, {"text": "b", "label": "B"}]}}
ARC_COLUMNS = {
    "question": "question.stem",
    "choices": "question.choices.text",
    "labels": "question.choices.label",
    "answer": "key",
}
EXPECTED = Example("Which?", ("a", "b"), 1)


def write(folder: Path, *rows: object) -> Path:
    """A JSONL file; a text stands for itself, anything else is written as JSON."""
    file = folder / "data.jsonl"
    file.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return file


def read(file: Path, task: TaskTerms = CHOICE, **columns: Any) -> list[Example]:  # noqa: ANN401 - as TOML gives them
    return read_examples(DataSource(path=file, columns=Columns(**columns)), task)


def test_a_file_with_the_usual_names_needs_no_mapping(tmp_path: Path):
    """A row becomes an example; other columns and blank lines do not matter."""
    file = write(tmp_path, ROW | {"source": "mine"}, "", ROW | {"answer": "a"})
    assert read(file) == [EXPECTED, Example("Which?", ("a", "b"), 0)]
    assert [example.where for example in read(file)] == [f"{file}, line 1", f"{file}, line 3"]
    file = write(tmp_path, {"prompt": "Say", "answer": "this"})
    assert read(file, COMPLETION) == [Example("Say", ("this",), 0)]


def test_the_template_makes_prompts_of_questions_and_of_prompts(tmp_path: Path):
    """All parties of a run ask alike, whatever their columns are called."""
    template = "Q: {question}\nA:"
    assert read(write(tmp_path, ROW), TaskTerms(template=template))[0].prompt == "Q: Which?\nA:"
    file = write(tmp_path, {"prompt": "Say", "answer": "this"})
    assert read(file, TaskTerms(kind="completion", template=template))[0].prompt == "Q: Say\nA:"


def test_texts_lose_the_white_space_around_them(tmp_path: Path):
    """One space stands before an answer, not two, and a line end in a cell does not make a text another."""
    file = write(tmp_path, {"question": " Which?\n", "choices": [" a", "b\t"], "answer": "b "})
    assert read(file) == [EXPECTED]
    assert read(write(tmp_path, {"prompt": "Say ", "answer": "\nthis"}), COMPLETION) == [Example("Say", ("this",), 0)]


@pytest.mark.parametrize(
    ("answer", "columns"),
    [
        ("b", {"answer_is": "text"}),
        ("B", {"labels": "names"}),
        ("B", {"labels": ["A", "B", "C", "D"]}),
        (1, {"answer_is": "index"}),
        ("1", {"answer_is": "index"}),
        (2, {"labels": ["1", "2", "3"]}),
        ("2", {"labels": "numbers"}),
        (2, {"labels": "numbers", "answer_is": "label"}),
        ("b", {"labels": "names", "answer_is": "text"}),
    ],
)
def test_an_answer_is_a_text_a_label_or_an_index(tmp_path: Path, answer: object, columns: dict[str, Any]):
    """A number and its digits are the same, for CSV knows texts alone."""
    file = write(tmp_path, ROW | {"answer": answer, "names": ["A", "B"], "numbers": [1, 2]})
    assert read(file, **columns) == [EXPECTED]


@pytest.mark.parametrize(
    ("answer", "columns"),
    [
        (1.0, {"answer_is": "index"}),
        ("1.0", {"answer_is": "index"}),
        (2.0, {"labels": ["1", "2"]}),
        (5, {"choices": "numbers"}),
        (5.0, {"choices": "numbers"}),
        ("5", {"choices": "numbers"}),
    ],
)
def test_a_whole_number_is_its_digits(tmp_path: Path, answer: object, columns: dict[str, Any]):
    """Also where pandas has made 1.0 of it because other cells of its column are empty."""
    file = write(tmp_path, ROW | {"answer": answer, "numbers": [4, 5.0]})
    assert read(file, **columns)[0].answer == 1
    file = write(tmp_path, {"prompt": 4, "answer": 42})
    assert read(file, COMPLETION) == [Example("4", ("42",), 0)]


def test_answers_that_may_count_from_1_are_told_in_the_log(tmp_path: Path):
    """As an index from 0 they are in range, and each would be the choice after the right one; labels take them."""
    four = ROW | {"choices": ["a", "b", "c", "d"]}
    file = write(tmp_path, *[four | {"answer": answer} for answer in (2, 1, 3)])
    with capture_logs() as logs:
        assert [one.answer for one in read(file, answer_is="index")] == [2, 1, 3]
    assert [(line["event"], line["of"]) for line in logs] == [("answers.none_is_0", 3)]
    assert 'labels = ["1", "2", ...]' in logs[0]["if_they_count_from_1"]
    with capture_logs() as logs:
        assert [one.answer for one in read(file, labels=["1", "2", "3", "4"])] == [1, 0, 2]
        read(write(tmp_path, four | {"answer": 2}, four | {"answer": 0}), answer_is="index")
        read(write(tmp_path, four | {"answer": "c"}))
    assert logs == []


def test_dotted_paths_go_through_objects_and_lists(tmp_path: Path):
    """ARC's original rows, and the same with lists side by side, as datasets have them."""
    assert read(write(tmp_path, ARC | {"key": "B"}), **ARC_COLUMNS) == [EXPECTED]
    beside = {"question": {"stem": "Which?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}}, "key": "B"}
    assert read(write(tmp_path, beside), **ARC_COLUMNS) == [EXPECTED]


def test_of_names_with_dots_the_longest_is_followed(tmp_path: Path):
    """At the top and further down, and no other one is tried: what a path means does not depend on what is missing."""
    row = {"question.stem": "Which?", "question": {"stem": "no"}, "c": {"all.text": ["a", "b"]}, "a.b": {"c": "b"}}
    row["a"] = {"b": {"c": "no", "d": "b"}}
    assert read(write(tmp_path, row), question="question.stem", choices="c.all.text", answer="a.b.c") == [EXPECTED]
    with pytest.raises(DataColumnMissing, match=r"no column 'a\.b\.d'; there are: 'a\.b\.c'"):
        read(write(tmp_path, row), question="question.stem", choices="c.all.text", answer="a.b.d")


def test_a_choice_may_have_a_column_of_its_own(tmp_path: Path):
    """Cells that are empty at the end are choices that a question does not have."""
    row = {"question": "Which?", "one": "a", "two": "b", "three": "", "four": None, "answer": "2"}
    columns = {"choices": ["one", "two", "three", "four"], "labels": ["1", "2", "3", "4"]}
    assert read(write(tmp_path, row), **columns) == [EXPECTED]
    with pytest.raises(DataUnreadable, match="two or more different choices, and has 1"):
        read(write(tmp_path, row | {"two": " "}), **columns)


def test_a_list_may_be_as_long_as_the_longest_question_needs(tmp_path: Path):
    """Its last places are empty then, as the last cells of a table are, and so are those of the labels beside it."""
    row = {"question": "Which?", "choices": ["a", "b", "", None], "names": ["A", "B", None, None], "answer": "B"}
    assert read(write(tmp_path, row), labels="names") == [EXPECTED]


def test_several_columns_make_one_question(tmp_path: Path):
    """One a line, those that are not empty."""
    rows = [{"context": context, "instruction": "Do.", "answer": "ok"} for context in ("Here.", "", None)]
    file = write(tmp_path, *rows)
    prompts = [example.prompt for example in read(file, COMPLETION, prompt=["context", "instruction"])]
    assert prompts == ["Here.\nDo.", "Do.", "Do."]


def test_choices_of_equal_text_are_one_choice(tmp_path: Path):
    """CommonsenseQA has such rows; a model cannot prefer the one to the other, and its answer is right either way."""
    row = ROW | {"choices": ["b", "a", "b", "c"], "labels": ["A", "B", "C", "D"]}
    for answer in ("A", "C"):
        assert read(write(tmp_path, row | {"answer": answer}), labels="labels") == [
            Example("Which?", ("b", "a", "c"), 0)
        ]
    with pytest.raises(DataUnreadable, match="two or more different choices, and has 1"):
        read(write(tmp_path, ROW | {"choices": ["b", "b"]}))


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([], DataEmpty, "holds no example"),
        (["", "  "], DataEmpty, "holds no example"),
        (
            [{"qestion": "p", "choices": ["a", "b"], "answer": "a"}],
            DataColumnMissing,
            r"line 1 has no column 'question'; there are: 'qestion', 'choices', 'answer'\. .*: 'qestion' was meant",
        ),
        (["{}"], DataColumnMissing, "line 1 has no column 'answer'; there are: none"),
        ([ROW, ROW | {"answer": "c"}], AnswerNotAmongChoices, r"line 2: the answer, a text, is none of the 2 choices"),
        ([ROW | {"answer": 1}], AnswerNotAmongChoices, 'a whole number, .* set `answer_is` to "index"'),
        ([ROW, "", ROW | {"answer": 1}], AnswersMixed, "a text in .*, line 1 and a whole number in .*, line 3"),
        ([ROW | {"answer": True}], AnswerNotAmongChoices, "the answer, true or false, is none"),
        ([ROW | {"answer": " "}], DataUnreadable, "line 1: the answer is empty"),
        ([ROW, ROW | {"answer": None}], DataUnreadable, "line 2: the answer is empty"),
        ([ROW | {"question": " "}], DataUnreadable, "there is no text in 'question'"),
        ([ROW | {"question": 0.5}], DataUnreadable, "'question' is a number and must be a text"),
        ([ROW | {"question": ["x"]}], DataUnreadable, "'question' is a list and must be a text"),
        (
            [ROW | {"choices": "ab"}],
            DataUnreadable,
            r"'choices' is a text and must be a list.*name them all",
        ),
        ([ROW | {"choices": ["b"]}], DataUnreadable, "two or more different choices, and has 1"),
        ([ROW | {"choices": []}], DataUnreadable, "two or more different choices, and has 0"),
        ([ROW | {"choices": ["b", 0.5]}], DataUnreadable, "one of the choices is a number"),
        ([ROW | {"choices": ["b", ["c"]]}], DataUnreadable, "one of the choices is a list"),
        ([ROW | {"choices": ["b", " ", "c"]}], DataUnreadable, "one of the choices is empty, and another one follows"),
        ([ROW | {"choices": ["b", None, " "]}], DataUnreadable, "two or more different choices, and has 1"),
        ([ROW | {"question": "\ud83d"}], DataUnreadable, "line 1: 'question' is no valid Unicode"),
        ([ROW | {"choices": ["b", "\ud83d"]}], DataUnreadable, "line 1: one of the choices is no valid Unicode"),
    ],
)
def test_a_row_that_is_wrong_is_named(tmp_path: Path, rows: Sequence[object], error: type[DataError], message: str):
    """Each fault has its message, which says where it is and what to do; no row is ever passed over."""
    with pytest.raises(error, match=message):
        read(write(tmp_path, *rows))


@pytest.mark.parametrize(
    ("row", "columns", "error", "message"),
    [
        (ARC | {"key": "E"}, ARC_COLUMNS, AnswerNotAmongChoices, "none of the 2 choices' labels"),
        (ARC, ARC_COLUMNS, DataColumnMissing, r"no column 'key'; there are: 'question'\. Correct `columns\.answer`"),
        (
            ARC | {"key": "A"},
            ARC_COLUMNS | {"question": "question.stm"},
            DataColumnMissing,
            "no column 'question.stm'; there are: 'question.stem', 'question.choices'.*: 'question.stem' was meant",
        ),
        (
            ARC | {"key": "A"},
            ARC_COLUMNS | {"choices": "question.choices.txt"},
            DataColumnMissing,
            "there are: 'question.choices.text', 'question.choices.label'.*: 'question.choices.text' was meant",
        ),
        (
            ARC | {"key": "A"},
            ARC_COLUMNS | {"question": "question.stem.text"},
            DataColumnMissing,
            "'question.stem' is a text and has no columns inside",
        ),
        (
            ROW | {"answer": 2},
            {"answer_is": "index"},
            AnswerNotAmongChoices,
            "the number of choices, .* from 0 to 1: most likely yours count from 1; then set labels =",
        ),
        (ROW | {"answer": 3}, {"answer_is": "index"}, AnswerNotAmongChoices, "not one of 0 to 1, .* where .* labels ="),
        (ROW | {"answer": -1}, {"answer_is": "index"}, AnswerNotAmongChoices, "not one of 0 to 1"),
        (ROW | {"answer": 0.5}, {"answer_is": "index"}, AnswerNotAmongChoices, "not one of 0 to 1"),
        (ROW | {"answer": True}, {"answer_is": "index"}, AnswerNotAmongChoices, "not one of 0 to 1"),
        *[
            (ROW | {"answer": number}, {"answer_is": "index"}, AnswerNotAmongChoices, "not one of 0 to 1")
            for number in (math.nan, math.inf)
        ],
        (ROW | {"answer": "0.5"}, {"answer_is": "index"}, AnswerNotAmongChoices, "not one of 0 to 1"),
        (ROW, {"labels": ["A"]}, DataUnreadable, "2 choices, and not as many labels"),
        (ROW | {"l": ["A", "A"]}, {"labels": "l"}, DataUnreadable, "not as many labels, all different"),
        (ROW | {"l": ["A", ""]}, {"labels": "l"}, DataUnreadable, "not as many labels, all different"),
        (ROW | {"l": "AB"}, {"labels": "l"}, DataUnreadable, "not as many labels, all different"),
    ],
)
def test_a_mapping_that_does_not_fit_is_named(
    tmp_path: Path, row: object, columns: dict[str, Any], error: type[DataError], message: str
):
    """Which setting, which columns there are at that place, and which may have been meant."""
    with pytest.raises(error, match=message):
        read(write(tmp_path, row), **columns)


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([{"question": "x", "answer": "y"}], DataColumnMissing, r"no column 'prompt'; .* Correct `columns\.prompt`"),
        ([{"prompt": "x", "answer": 0.5}], DataUnreadable, "the answer is a number and must be a text"),
        ([{"prompt": "x", "answer": "\ud83d"}], DataUnreadable, "line 1: the answer is no valid Unicode"),
        ([{"prompt": "x", "answer": "3"}, {"prompt": "x", "answer": 3}], AnswersMixed, "line 1 and .*, line 2"),
        ([{"prompt": "", "answer": "y"}], DataUnreadable, "there is no text in 'prompt'"),
    ],
)
def test_a_completion_that_is_wrong_is_named(
    tmp_path: Path, rows: Sequence[object], error: type[DataError], message: str
):
    """Its faults are those of a prompt and an answer."""
    with pytest.raises(error, match=message):
        read(write(tmp_path, *rows), COMPLETION)


@pytest.mark.parametrize(
    "columns", [{"answer_is": "label"}, {"question": []}, {"answer": ""}, {"choices": "c", "x": "y"}]
)
def test_columns_that_could_never_work_are_no_settings(columns: dict[str, Any]):
    """They are refused when the settings are read, before any data is."""
    with pytest.raises(ValidationError):
        Columns(**columns)


def test_messages_never_quote_the_data(tmp_path: Path):
    """Texts are private, and messages end up in logs."""
    secret = {"question": "SECRET-1", "choices": ["SECRET-2", "SECRET-3"], "answer": "SECRET-4", "n": "SECRET-5"}
    faults: list[tuple[object, dict[str, Any]]] = [
        (secret, {}),
        (secret, {"answer_is": "index"}),
        (secret, {"labels": ["A", "B"]}),
        (secret, {"labels": "n"}),
        (secret, {"question": "nothing"}),
        (secret, {"question": "question.inside"}),
        (secret, {"choices": "n"}),
        (json.dumps(secret)[:-9], {}),
        (json.dumps("SECRET"), {}),
    ]
    for row, columns in faults:
        with pytest.raises(DataError) as caught:
            read(write(tmp_path, row), **columns)
        assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "columns"),
    [
        ("data.csv", "What is SECRET of Mr Smith?,SECRET x,y,A\nWhich?,x,y,B\n", {}),
        ("data.csv", "A SECRET that has no question mark,x,y,A\nWhich?,x,y,B\n", {}),
        ("data.csv", f"SECRET{'x' * 40};x;y;A\nWhich?;x;y;B\n", {"choices": ["x", "y"]}),
        ("data.tsv", "SECRET\nof two lines".join('""') + "\tx\ty\tA\nWhich?\tx\ty\tB\n", {}),
        ("data.jsonl", '{"SECRET of Mr. Smith": "x", "SECRET": "y"}', {"answer": "SECRETS"}),
        ("data.jsonl", '{"answer": "x", "question": {"Is it SECRET?": "x", "SECRET": ""}}', {"question": "question.x"}),
    ],
)
def test_a_first_row_in_the_place_of_names_is_not_quoted_either(
    tmp_path: Path, name: str, text: str, columns: dict[str, Any]
):
    """A table without a header, keys that are data: all that is told is how many columns there are."""
    (tmp_path / name).write_text(text)
    with pytest.raises(DataColumnMissing, match=r"whose names look like data .*: name the right one") as caught:
        read(tmp_path / name, **columns)
    assert "SECRET" not in str(caught.value).replace("'SECRETS'", "")


@pytest.mark.parametrize(
    "name", ["Correct answer (A-D)", "question.stem", "Antwort für alle", "0", " answr", "Unnamed: 0", ""]
)
def test_what_people_call_columns_is_told(tmp_path: Path, name: str):
    """Words, with what spreadsheets and pandas add: they help whoever mistyped one."""
    with pytest.raises(DataColumnMissing) as caught:
        read(write(tmp_path, {name: "x"}))
    assert f"there are: {name!r}." in str(caught.value)


class Meddling(TaskTerms):
    """Terms under which the file is written to while it is read."""

    def prompt(self, question: str) -> str:
        """Add half a line to the file."""
        file = Path(self.template.partition("{")[0])
        with file.open("a") as text:
            text.write('{"que')
        return super().prompt(question)


@pytest.mark.parametrize("rows", [1, 5_000])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, rows: int):
    """Whether what was added is read, and no JSON yet, or is not: that it changed is what to tell."""
    file = write(tmp_path, *[ROW] * rows)
    with pytest.raises(DataChanged, match="changed while it was read"):
        read(file, Meddling(template=f"{file}{{question}}"))


def test_settings_from_the_environment_may_name_several_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A list as JSON, as containers are given it; a plain name as it is."""
    from services.client_agent.settings import Settings  # noqa: PLC0415

    for name, value in {
        "COORDINATOR_URL": "http://here",
        "NAME": "ada",
        "FEDERATION": "clinics",
        "OPERATOR_KEY": f"ed25519:{'A' * 43}",
        "IDENTITY_KEY_FILE": "agent.key",
        "STATE_DIR": "state",
        "SLM": "slm",
        "DATA__PATH": os.fspath(tmp_path),
        "DATA__COLUMNS__CHOICES": '["one", "two"]',
        "DATA__COLUMNS__QUESTION": "asked",
    }.items():
        monkeypatch.setenv(f"FEDCOLLM_AGENT_{name}", value)
    columns = Settings().data.columns
    assert (columns.choices, columns.question) == (("one", "two"), "asked")
