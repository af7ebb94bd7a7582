"""Where examples lie and what their columns are called: a part of the settings of agents and workers."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

from shared.protocol.terms import FROZEN


class Columns(BaseModel):
    """What the data's columns are called."""

    question: str = "question"
    choices: str = "choices"
    answer: str = "answer"
    model_config = FROZEN


class DataSource(BaseModel):
    """A file of examples."""

    path: Annotated[Path, Field(description="The file.")]
    columns: Columns = Columns()
    model_config = FROZEN
