"""Every format gives the same rows; what is not in its format is told by line or row."""

import csv
import gzip
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.data.examples import Example, read_examples
from shared.data.source import Columns, DataSource, Format
from shared.errors import DataColumnMissing, DataEmpty, DataError, DataUnreadable
from shared.protocol.terms import TaskTerms

TASK = TaskTerms(template="{question}")
ROOT = Path(__file__).parents[2]

# Whatever people write: line ends, quotes, separators, letters beyond ASCII. Not what UTF-8 cannot carry.
texts = st.text(st.characters(exclude_categories=("Cs",)), min_size=1).map(str.strip).filter(bool)
examples = st.lists(
    st.builds(
        lambda question, choices, right: Example(question, tuple(choices), right % len(choices)),
        texts,
        st.lists(texts, min_size=2, max_size=5, unique=True),
        st.integers(0, 59),
    ),
    min_size=1,
    max_size=5,
)


def nested(example: Example) -> dict[str, Any]:
    """A row as JSON and Arrow have it."""
    return {"question": example.prompt, "choices": list(example.choices), "answer": example.choices[example.answer]}


def flat(example: Example) -> list[str]:
    """A row as a table has it: five columns for choices, and an index."""
    return [example.prompt, *example.choices, *[""] * (5 - len(example.choices)), str(example.answer)]


TABLE = ["question", "a", "b", "c", "d", "e", "answer"]
TABLE_COLUMNS = Columns(choices=("a", "b", "c", "d", "e"), answer_is="index")


def write_jsonl(path: Path, rows: list[Example]) -> None:
    path.write_text("".join(json.dumps(nested(row), ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_json(path: Path, rows: list[Example]) -> None:
    path.write_text(json.dumps([nested(row) for row in rows], indent=1), encoding="utf-8")


def write_table(path: Path, rows: list[Example]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, delimiter="," if path.suffix == ".csv" else "\t")
        table.writerows([TABLE, *map(flat, rows)])


def write_parquet(path: Path, rows: list[Example]) -> None:
    pa.parquet.write_table(pa.Table.from_pylist([nested(row) for row in rows]), path, row_group_size=2)


def write_dataset(path: Path, rows: list[Example]) -> None:
    saved(datasets.Dataset.from_list([nested(row) for row in rows]), path, num_shards=min(2, len(rows)))


def saved(dataset: datasets.Dataset | datasets.DatasetDict, path: Path, **options: int) -> Path:
    datasets.disable_progress_bars()
    dataset.save_to_disk(path, **options)
    return path


FORMATS: list[tuple[str, Callable[[Path, list[Example]], None], Columns]] = [
    ("data.jsonl", write_jsonl, Columns()),
    ("data.json", write_json, Columns()),
    ("data.csv", write_table, TABLE_COLUMNS),
    ("data.tsv", write_table, TABLE_COLUMNS),
    ("data.parquet", write_parquet, Columns()),
    ("data", write_dataset, Columns()),
]


@pytest.mark.parametrize(("name", "write", "columns"), FORMATS)
@settings(max_examples=50)
@given(written=examples)
def test_examples_are_read_as_they_were_written(
    name: str, write: Callable[[Path, list[Example]], None], columns: Columns, written: list[Example]
):
    """In any format: none is lost, none is changed, and they keep their order."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write(path, written)
        assert read_examples(DataSource(path=path, columns=columns), TASK) == written


def read(path: Path, kind: Format | None = None, split: str | None = None, **columns: Any) -> list[Example]:  # noqa: ANN401
    return read_examples(DataSource(path=path, format=kind, split=split, columns=Columns(**columns)), TASK)


ONE = Example("Which?", ("a", "b"), 1)
LINE = json.dumps(nested(ONE))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("data.jsonl", f"{LINE}\r\n\r\n{LINE}\r\n"),
        ("data.jsonl", f"{LINE}\n{LINE}"),
        ("data.json", f"[{LINE},\n{LINE}]"),
        ("data.csv", 'question,choice 1,choice 2,answer\r\n"Which?",a,b,b\r\n\r\nWhich?,a,b,b'),
    ],
)
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "byte order mark"])
def test_what_editors_add_does_not_count(tmp_path: Path, name: str, text: str, mark: str):
    """Line ends of Windows, blank lines, a byte order mark, no line end at the end."""
    (tmp_path / name).write_text(mark + text, encoding="utf-8", newline="")
    columns = {"choices": ["choice 1", "choice 2"]} if name == "data.csv" else {}
    assert read(tmp_path / name, **columns) == [ONE, ONE]


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffquestion;a;b;answer\r\nWhich?;a;b;b\r\n",
        "question\ta\tb\tanswer\nWhich?\ta\tb\tb\n",
        'note;question;a;b;answer\n"1,5; or so";Which?;a;b;b\n',
        '"a;note",question,a,b,answer\nx,Which?,a,b,b\n',
        '"first\nline";question;a;b;answer\nx;Which?;a;b;b\n',
    ],
    ids=["German Excel", "tabs", "commas in cells", "a quoted semicolon", "a name of two lines"],
)
def test_the_header_of_a_csv_shows_what_separates_its_cells(tmp_path: Path, text: str):
    """Where a comma is the decimal sign, spreadsheets write semicolons and call it CSV all the same."""
    (tmp_path / "data.csv").write_text(text, encoding="utf-8", newline="")
    assert read(tmp_path / "data.csv", choices=["a", "b"]) == [ONE]


@pytest.mark.parametrize("left", [",,,\n", " , ,\t,\n,,,\n", "   \n", ",,,,,,\n"])
def test_what_spreadsheets_leave_behind_is_no_row(tmp_path: Path, left: str):
    """Rows that once held something, at the end or between others; columns without a name, likewise."""
    file = tmp_path / "data.csv"
    file.write_text(f"question,a,b,answer\nWhich?,a,b,b\n{left}Which?,a,b,b\n{left}")
    assert read(file, choices=["a", "b"]) == [ONE, ONE]
    file.write_text("question,a,b,answer,,\nWhich?,a,b,b,,\n")
    assert read(file, choices=["a", "b"]) == [ONE]


def test_a_cell_may_hold_a_document(tmp_path: Path):
    """Longer than what Python allows by itself, or than what another part of the process may have set."""
    csv.field_size_limit(1_000)
    text = "x" * 300_000
    (tmp_path / "data.csv").write_text(f'question,a,b,answer\n"{text}",a,b,b\n')
    assert read(tmp_path / "data.csv", choices=["a", "b"]) == [Example(text, ("a", "b"), 1)]


def test_a_quote_left_open_does_not_take_a_large_file_into_one_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """There is a limit, and what is told is where the quote may be, and not the limit alone."""
    monkeypatch.setattr("shared.data.rows._LONGEST_CELL", 1_000)
    (tmp_path / "data.csv").write_text('question,a,b,answer\n"Which?,a,b,b\n' + "Which?,a,b,b\n" * 100)
    with pytest.raises(DataUnreadable, match=r"line 2 cannot be taken apart \(field larger .*: is a quote left open"):
        read(tmp_path / "data.csv", choices=["a", "b"])


def test_a_row_over_several_lines_is_named_by_its_first(tmp_path: Path):
    """A quoted cell may hold line ends."""
    file = tmp_path / "data.csv"
    file.write_text('question,a,b,answer\n"Which\none?",x,y,x\n\n"Which\none?",x,y,y\n')
    assert [example.where for example in read(file, choices=["a", "b"])] == [f"{file}, line 2", f"{file}, line 5"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data.jsonl", f"{LINE}\n{LINE[:-1]}", r"line 2 is not JSON \(.*, column \d+\): put one JSON object a line"),
        ("data.jsonl", "[1]", "line 1 is not a JSON object"),
        ("data.jsonl", f"[{LINE},\n", "line 1 is not JSON"),
        ("data.jsonl", b'{"question": "\xe9"}\n', "is not UTF-8.*save it as UTF-8"),
        ("data.json", f"{LINE}\n{LINE}\n", r"is not JSON \(Extra data, line 2, column 1\): .*format = \"jsonl\""),
        ("data.json", LINE, "is not a JSON array"),
        ("data.json", f"[{LINE}, 3]", "row 2 is not a JSON object"),
        ("data.json", b'[{"question": "\xe9"}]\n', "is not UTF-8"),
        ("data.csv", "\nquestion,a,b,answer\nx,y,z,y\n", "line 1 is blank and must name the columns"),
        ("data.csv", ";;;\nquestion;a;b;answer\nx;y;z;y\n", "line 1 is blank and must name the columns"),
        ("data.csv", "question,a,a\n", "line 1 has two columns of one name"),
        ("data.csv", "question;a, short;b;answer\n", "line 1 has commas and semicolons, and either could"),
        ("data.csv", "question,a,b,answer\nx,y,z,y\nOne, two,y,z,y\n", "line 3 has 5 cells and .* names 4 columns"),
        ("data.csv", "question,a,b,answer\nx\n", "line 2 has 1 cells"),
        ("data.csv", 'question,a,b,answer\nx,y,z,y\n"x,y\nx,y\n', "line 3 cannot be taken apart .* quote left open"),
        ("data.csv", b"question;a;b;answer\nx;y;z;y\n\xfc;y;z;y\n", 'is not UTF-8, .* save it as "CSV UTF-8"'),
        ("data.tsv", "question\ta\tb\tanswer\nx\ty\tz\n", "line 2 has 3 cells"),
        ("data.parquet", "no Parquet", "is not a Parquet file, or a damaged one"),
    ],
)
def test_what_is_not_in_its_format_is_named(tmp_path: Path, name: str, content: str | bytes, message: str):
    """By line or row, with what to do."""
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path / name, choices=["a", "b"] if name.endswith("sv") else "choices")
    assert str(tmp_path / name) in str(caught.value)
    assert caught.type is not DataEmpty


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"x": [{"answer": "a", "answer": "b"}]}', "has an object with two values under one name"),
        (f'{{"x": {"9" * 5_000}}}', "has a number of thousands of digits"),
        ('{"x":' * 100_000 + "0" + "}" * 100_000, "has lists or objects too deep inside each other"),
    ],
    ids=["a name twice", "an endless number", "an endless depth"],
)
def test_json_that_python_cannot_take_as_it_is_meant_is_named(tmp_path: Path, row: str, message: str):
    """By its line where each row has one; in columns that nobody asked for, too."""
    for name, text, where in (("data.jsonl", f"{LINE}\n{row}", ", line 2"), ("data.json", f"[{LINE}, {row}]", "")):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataUnreadable, match=f"{name}{where} {message}"):
            read(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content"), [("data.jsonl", ""), ("data.json", "[]"), ("data.csv", ""), ("data.csv", "a,b\n")]
)
def test_a_file_without_rows_is_empty(tmp_path: Path, name: str, content: str):
    """A header is no row."""
    (tmp_path / name).write_text(content)
    with pytest.raises(DataEmpty, match="holds no example"):
        read(tmp_path / name)


def test_a_format_does_not_decompress_a_file(tmp_path: Path):
    """Its bytes are no UTF-8, and what helps is not to save them as such."""
    (tmp_path / "data.jsonl.gz").write_bytes(gzip.compress(LINE.encode()))
    with pytest.raises(DataUnreadable, match=r"is not UTF-8, .*: decompress it first"):
        read(tmp_path / "data.jsonl.gz", "jsonl")


def test_the_format_may_be_said(tmp_path: Path):
    """For JSON lines that are called .json, or a table called .txt; a wrong word is a fault like any other."""
    (tmp_path / "data.json").write_text(LINE)
    assert read(tmp_path / "data.json", "jsonl") == [ONE]
    (tmp_path / "data.txt").write_text("question\ta\tb\tanswer\nWhich?\ta\tb\tb\n")
    assert read(tmp_path / "data.txt", "tsv", choices=["a", "b"]) == [ONE]
    with pytest.raises(DataUnreadable, match="is a folder, and a file is wanted"):
        read(tmp_path, "csv")
    with pytest.raises(DataUnreadable, match="no folder that `save_to_disk`"):
        read(tmp_path / "data.txt", "datasets")


@pytest.mark.parametrize("kind", [pa.int8(), pa.float64(), pa.decimal128(4, 1)], ids=str)
def test_whole_numbers_are_taken_whatever_they_are_stored_as(tmp_path: Path, kind: Any):  # noqa: ANN401
    """As an index, and as choices."""
    numbers = pa.array([0, 1], pa.int8()).cast(kind)
    table = pa.table({"question": ["Which?"] * 2, "a": numbers, "b": ["x", "y"], "answer": numbers})
    pa.parquet.write_table(table, tmp_path / "data.parquet")
    expected = [Example("Which?", ("0", "x"), 0), Example("Which?", ("1", "y"), 1)]
    assert read(tmp_path / "data.parquet", choices=["a", "b"], answer_is="index") == expected


def test_columns_that_are_not_asked_for_are_not_converted(tmp_path: Path):
    """Pictures, and times that Python cannot tell, lie beside the texts of many a Parquet file."""
    table = pa.table(
        {
            "question": ["Which?"],
            "choices": [["a", "b"]],
            "answer": [1],
            "seen": pa.array([1], pa.timestamp("ns")),
            "note": pa.array([b"\xff"]).cast(pa.string(), safe=False),
        }
    )
    pa.parquet.write_table(table, tmp_path / "data.parquet")
    assert read(tmp_path / "data.parquet", answer_is="index") == [ONE]
    with pytest.raises(DataColumnMissing, match="there are: 'question', 'choices', 'answer', 'seen', 'note'"):
        read(tmp_path / "data.parquet", question="asked")
    with pytest.raises(DataUnreadable, match="row 1: the column 'note' cannot be read"):
        read(tmp_path / "data.parquet", question="note", answer_is="index")


def test_a_dataset_with_splits_needs_a_word_on_which(tmp_path: Path):
    """Its own splits are named; with one split alone there is nothing to choose."""
    one, other = (datasets.Dataset.from_list([nested(ONE)] * count) for count in (1, 3))
    several = saved(datasets.DatasetDict(train=other, test=one), tmp_path / "several")
    assert len(read(several, split="train")) == 3
    assert read(several, split="test") == [ONE]
    with pytest.raises(DataUnreadable, match="has the splits test, train, and `split` is not set"):
        read(several)
    with pytest.raises(DataUnreadable, match="'dev' is none of them: name one in `split`"):
        read(several, split="dev")
    assert len(read(saved(datasets.DatasetDict(train=other), tmp_path / "single"))) == 3
    with pytest.raises(DataUnreadable, match="without splits: remove `split`"):
        read(saved(one, tmp_path / "plain"), split="train")
    (tmp_path / "data.jsonl").write_text(LINE)
    with pytest.raises(DataUnreadable, match=r"has no splits: .* remove `split`"):
        read(tmp_path / "data.jsonl", split="train")


def test_a_dataset_of_which_rows_were_picked_is_read_as_it_was_saved(tmp_path: Path):
    """`datasets` keeps a list of indices until it saves; nested columns come as they were."""
    rows = [{"q": {"stem": f"Which {i}?", "of": [{"text": "a"}, {"text": "b"}]}, "key": i % 2} for i in range(9)]
    picked = saved(datasets.Dataset.from_list(rows).select([7, 2, 4]), tmp_path / "picked")
    read_back = read(picked, question="q.stem", choices="q.of.text", answer="key", answer_is="index")
    assert [(one.prompt, one.answer) for one in read_back] == [("Which 7?", 1), ("Which 2?", 0), ("Which 4?", 0)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (None, b"", "no folder that `save_to_disk` of `datasets` wrote .* name such a folder, or a file"),
        ("state.json", b"{}", "is not as `datasets` saves it, or damaged"),
        ("state.json", b"[", "is not as `datasets` saves it, or damaged"),
        ("data-00000-of-00001.arrow", b"no Arrow", "is not as `datasets` saves it, or damaged"),
    ],
)
def test_a_folder_that_is_no_dataset_is_told(tmp_path: Path, name: str | None, content: bytes, message: str):
    """Any other folder, or one that was saved half."""
    folder = tmp_path / "data"
    folder.mkdir()
    if name:
        saved(datasets.Dataset.from_list([nested(ONE)]), folder)
        (folder / name).write_bytes(content)
    with pytest.raises(DataUnreadable, match=message):
        read(folder)


def test_a_dataset_that_lacks_a_file_is_told(tmp_path: Path):
    """Copied in part."""
    folder = saved(datasets.Dataset.from_list([nested(ONE)]), tmp_path / "data")
    next(folder.glob("*.arrow")).unlink()
    with pytest.raises(DataUnreadable, match="arrow"):
        read(folder)


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Texts and tables are read without it."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "data.parquet").write_bytes(b"")
    with pytest.raises(DataUnreadable, match="install the extra `agent` or `worker`"):
        read(tmp_path / "data.parquet")
    (tmp_path / "data.jsonl").write_text(LINE)
    assert read(tmp_path / "data.jsonl") == [ONE]


def test_reading_needs_neither_torch_nor_datasets(tmp_path: Path):
    """An installation is checked without the one, and runs without the other, whatever the format."""
    folder = saved(datasets.Dataset.from_list([nested(ONE)]), tmp_path / "data")
    program = (
        "import sys; from pathlib import Path; from shared.data.examples import read_examples; "
        "from shared.data.source import DataSource; from shared.protocol.terms import TaskTerms; "
        "assert read_examples(DataSource(path=Path(sys.argv[1])), TaskTerms()); "
        "print({'torch', 'transformers', 'datasets', 'pandas', 'dill'} & set(sys.modules))"
    )
    answer = subprocess.run(  # noqa: S603 - our own modules
        [sys.executable, "-c", program, str(folder)],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (answer.stdout, answer.stderr) == ("set()\n", "")
