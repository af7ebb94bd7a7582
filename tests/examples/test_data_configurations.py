"""What docs/data.md and examples/data show is what the settings take, and reads files of that shape."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from shared import errors
from shared.configuration import validate
from shared.data.examples import Example, read_examples
from shared.data.files import format_by_name
from shared.data.source import Columns, DataSource
from shared.protocol.terms import TaskTerms

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "data.md").read_text()
TABLES: dict[str, type[BaseModel]] = {
    "data": DataSource,
    "evaluation": DataSource,
    "holdout": DataSource,
    "auxiliary": DataSource,
    "validation": DataSource,
    "task": TaskTerms,
}


def lines(*rows: dict[str, Any]) -> str:
    """Rows as JSON lines."""
    return "".join(f"{json.dumps(row)}\n" for row in rows)


# Rows of our own, in exactly the shape of each data set's files.
KETTLE = {
    "stem": "A kettle that whistles is",
    "choices": [{"text": "cold", "label": "A"}, {"text": "boiling", "label": "B"}, {"text": "empty", "label": "C"}],
}
METAL = {"stem": "Which is a metal?", "choices": [{"text": "tin", "label": "1"}, {"text": "oak", "label": "2"}]}
BREAD = {
    "question_concept": "bread",
    "choices": [
        {"label": "A", "text": "oven"},
        {"label": "B", "text": "shop"},
        {"label": "C", "text": "oven"},
        {"label": "D", "text": "bag"},
        {"label": "E", "text": "bin"},
    ],
    "stem": "Where is bread made?",
}
FRUIT = {"instruction": "Name a fruit.", "context": "", "response": "A pear\nor a plum.", "category": "open_qa"}
SAMPLES: dict[str, tuple[str, list[Example]]] = {
    "arc": (
        lines({"id": "M_1", "question": KETTLE, "answerKey": "B"}, {"id": "N_2", "question": METAL, "answerKey": "1"}),
        [
            Example("Question: A kettle that whistles is\nAnswer:", ("cold", "boiling", "empty"), 1),
            Example("Question: Which is a metal?\nAnswer:", ("tin", "oak"), 0),
        ],
    ),
    "openbookqa": (
        lines({"id": "7-1", "question": KETTLE, "fact1": "steam is hot", "clarity": "2.00", "answerKey": "B"}),
        [Example("A kettle that whistles is", ("cold", "boiling", "empty"), 1)],
    ),
    "commonsenseqa": (
        lines({"answerKey": "C", "id": "075e", "question": BREAD}),
        [Example("Question: Where is bread made?\nAnswer:", ("oven", "shop", "bag", "bin"), 0)],
    ),
    "dolly": (
        json.dumps([FRUIT, FRUIT | {"context": "Fruit\nis sweet."}]),
        [
            Example("Name a fruit.\nAnswer:", ("A pear\nor a plum.",), 0),
            Example("Fruit\nis sweet.\nName a fruit.\nAnswer:", ("A pear\nor a plum.",), 0),
        ],
    ),
}


def shown(text: str) -> dict[str, Any]:
    """The tables of a TOML text, each as the settings take it."""
    return {table: validate(TABLES[table], values, what=table) for table, values in tomllib.loads(text).items()}


@pytest.mark.parametrize("name", [path.stem for path in sorted((ROOT / "examples" / "data").glob("*.toml"))])
def test_an_example_configuration_reads_the_original_files(name: str, tmp_path: Path):
    """By configuration alone: no row is changed first, and none is left out."""
    text = (ROOT / "examples" / "data" / f"{name}.toml").read_text()
    tables, (rows, expected) = shown(text), SAMPLES[name]
    file = tmp_path / tables["data"].path.name
    file.write_text(rows)
    assert read_examples(tables["data"].model_copy(update={"path": file}), tables["task"]) == expected
    assert f"../examples/data/{name}.toml" in DOCUMENT


def test_the_fact_of_an_openbookqa_question_may_be_given(tmp_path: Path):
    """The line that the example has as a comment."""
    text = (ROOT / "examples" / "data" / "openbookqa.toml").read_text()
    tables = shown(text.replace('question = "question.stem"', "").replace("# question = ", "question = "))
    (tmp_path / "data.jsonl").write_text(SAMPLES["openbookqa"][0])
    source = tables["data"].model_copy(update={"path": tmp_path / "data.jsonl"})
    assert read_examples(source, tables["task"])[0].prompt == "steam is hot\nA kettle that whistles is"


def test_what_the_document_shows_are_settings():
    """Each block of it, with the defaults that its table names."""
    blocks = re.findall(r"```toml\n(.*?)```", DOCUMENT, flags=re.DOTALL)
    assert len(blocks) == 6
    tables = {name: table for block in blocks for name, table in shown(block).items()}
    assert tables.keys() == {"data", "evaluation", "holdout", "validation", "task"}
    usual = Columns()
    assert tables["task"] == TaskTerms()
    for name, value in re.findall(r"^\| `(\w+)` \|.*\| `\"(\w+)\"` \|$", DOCUMENT, flags=re.MULTILINE):
        assert getattr(usual, name) == value
    assert re.findall(r"^\| `(\w+)` \| (?:mult|comp|both)", DOCUMENT, flags=re.MULTILINE) == list(Columns.model_fields)


def test_the_document_lists_every_format_ending_and_code(tmp_path: Path):
    """As the code has them."""
    formats = dict(re.findall(r"^\| `(\w+)` \| (`\..*`|a folder) \|", DOCUMENT, flags=re.MULTILINE))
    for name, endings in formats.items():
        files = (
            [tmp_path] if endings == "a folder" else [Path(f"x{ending}") for ending in re.findall(r"`(.*?)`", endings)]
        )
        assert {format_by_name(file) for file in files} == {name}
    assert len(formats) == 6
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.DataError)]
    assert [kind.code for kind in kinds if kind is not errors.DataError and f"`{kind.code}`" not in DOCUMENT] == []
