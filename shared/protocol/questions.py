"""Asking the models: one prompt, answered by both, as they were and as they are co-tuned (docs/protocol.md)."""

from enum import StrEnum
from typing import Annotated, TypeAlias

from pydantic import BaseModel, Field

from shared.protocol.names import RoundNumber, RunId
from shared.protocol.terms import FROZEN

MOST_PROMPT_CHARACTERS = 4000
MOST_NEW_TOKENS = 256


class ModelName(StrEnum):
    """Who answers."""

    LLM_BASE = "llm_base"
    LLM = "llm"
    SLM_BASE = "slm_base"
    SLM = "slm"


QuestionId: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Answers: TypeAlias = dict[ModelName, Annotated[str, Field(max_length=20_000)]]


class QuestionRequest(BaseModel):
    """A prompt for the models of a run with its newest adapters, put to them as it stands."""

    run_id: RunId
    prompt: Annotated[str, Field(min_length=1, max_length=MOST_PROMPT_CHARACTERS)]
    max_new_tokens: Annotated[int, Field(ge=1, le=MOST_NEW_TOKENS)] = 64
    model_config = FROZEN


class QuestionState(StrEnum):
    """Where a question is."""

    WAITING = "waiting"
    ASKED = "asked"
    ANSWERED = "answered"
    FAILED = "failed"


class QuestionView(BaseModel):
    """A question to the models; ``before`` is how many are answered before it, ``reason`` why it failed."""

    id: QuestionId
    run_id: RunId
    round: RoundNumber
    state: QuestionState
    before: Annotated[int, Field(ge=0)]
    answers: Answers
    reason: str | None
    model_config = FROZEN
