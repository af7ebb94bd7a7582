"""Where examples lie and what their columns are called: a part of the settings of agents and workers (docs/data.md)."""

from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import BaseModel, Field, model_validator

from shared.protocol.terms import FROZEN

Format: TypeAlias = Literal["jsonl", "json", "csv", "tsv", "parquet", "datasets"]
AnswerForm: TypeAlias = Literal["text", "label", "index"]
# A column's name, or a dotted path into the objects and lists that it holds.
Column: TypeAlias = Annotated[str, Field(min_length=1)]
SeveralColumns: TypeAlias = Annotated[tuple[Column, ...], Field(min_length=1)]


class Columns(BaseModel):
    """What the data's columns are called. Those that the run's kind of task does not ask for are passed over."""

    model_config = FROZEN

    question: Annotated[
        Column | SeveralColumns,
        Field(description="multiple_choice: the question; of several columns, those not empty, one a line."),
    ] = "question"
    prompt: Annotated[
        Column | SeveralColumns,
        Field(description="completion: what the answer follows; of several columns, those not empty, one a line."),
    ] = "prompt"
    choices: Annotated[
        Column | SeveralColumns,
        Field(description="multiple_choice: a column that holds a list, or several columns with a choice each."),
    ] = "choices"
    labels: Annotated[
        Column | SeveralColumns | None,
        Field(description="The column with a list of the choices' labels, or the labels themselves, in order."),
    ] = None
    answer: Annotated[Column, Field(description="The right answer.")] = "answer"
    answer_is: Annotated[
        AnswerForm | None,
        Field(description="What `answer` holds; left out: a label where `labels` is set, a text elsewhere."),
    ] = None

    @property
    def answer_form(self) -> AnswerForm:
        """What the answer column holds."""
        return self.answer_is or ("text" if self.labels is None else "label")

    @model_validator(mode="after")
    def _labels_where_needed(self) -> Self:
        if self.answer_is == "label" and self.labels is None:
            raise ValueError('answer_is = "label" needs labels: the column that holds them, or the labels themselves')
        return self


class DataSource(BaseModel):
    """A file of examples, or a folder that the library `datasets` saved."""

    model_config = FROZEN

    path: Annotated[Path, Field(description="The file, or the folder of a saved dataset.")]
    format: Annotated[Format | None, Field(description="Left out, the file's ending says it.")] = None
    split: Annotated[str | None, Field(description="Of a saved DatasetDict, which of its datasets.")] = None
    columns: Columns = Columns()
