"""What an operator decides about a run: the frozen terms that every party works by.

Defaults are the ``demo`` preset's where a default is harmless, and absent where a choice must be made.
"""

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Count = Annotated[int, Field(ge=1, le=1_000_000)]
Rate = Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=31_536_000, allow_inf_nan=False)]
TooLong: TypeAlias = Literal["refuse", "leave_out"]

QUESTION = "{question}"

FROZEN = ConfigDict(frozen=True, extra="forbid")


class ModelMark:
    """Marks what names a model: a folder where there is one by that name, and a hub id elsewhere."""


ModelReference = Annotated[str, Field(min_length=1, max_length=1024), ModelMark()]


class TaskTerms(BaseModel):
    """What all parties' examples have in common: their kind, and the text that becomes of a question.

    ``template`` holds ``{question}`` once, which stands for a completion's prompt too; the answer follows after one
    space, in training and in scoring alike. ``too_long`` says what becomes of an example of more than the training's
    ``max_tokens``: the party that has it refuses to go on, or leaves it out and says in its log how many there were.
    """

    model_config = FROZEN

    kind: Literal["multiple_choice", "completion"] = "multiple_choice"
    template: Annotated[str, Field(min_length=1, max_length=4000)] = "Question: {question}\nAnswer:"
    too_long: TooLong = "refuse"

    @field_validator("template")
    @classmethod
    def _with_question(cls, template: str) -> str:
        if template.count(QUESTION) != 1 or template.endswith((" ", "\t")):
            raise ValueError(f"a template holds {QUESTION} once and does not end in a space: the answer brings its own")
        return template

    def prompt(self, question: str) -> str:
        """Return what a model is asked."""
        return self.template.replace(QUESTION, question)


class LoraTerms(BaseModel):
    """LoRA of one model: rank and scaling as PEFT names them; no targets means the family's attention projections."""

    model_config = FROZEN

    rank: Annotated[int, Field(ge=1, le=1024)] = 8
    alpha: Annotated[int, Field(ge=1, le=4096)] = 16
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    targets: tuple[str, ...] | None = None


class OptimiserTerms(BaseModel):
    """AdamW with a constant learning rate, started afresh each round (design, round step 4)."""

    model_config = FROZEN

    learning_rate: Rate
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.0
    clip_norm: Rate = 1.0


class TrainingTerms(BaseModel):
    """An agent's local training: E epochs over its private data (Alg. 1, client loop)."""

    model_config = FROZEN

    epochs: Count = 1
    batch_size: Count
    optimiser: OptimiserTerms
    max_tokens: Annotated[int, Field(ge=2, le=1_048_576)]


class CotuningTerms(BaseModel):
    """Mutual distillation on the auxiliary set: R passes (Alg. 1, server loop; Eq. 4 to 6).

    ``passes`` 0 is FedAvg; ``distillation_weight`` 0 is the control without the KL terms.
    """

    model_config = FROZEN

    passes: Annotated[int, Field(ge=0, le=1000)] = 1
    batch_size: Count
    distillation_weight: Annotated[float, Field(ge=0, le=1000)] = 1.0
    direction: Literal["forward", "reverse"] = "forward"
    schedule: Literal["simultaneous", "sequential"] = "simultaneous"
    llm_optimiser: OptimiserTerms
    slm_optimiser: OptimiserTerms


class CohortTerms(BaseModel):
    """When a round closes: by minimum and maximum count of updates and of seconds (``rounds.verdict``)."""

    model_config = FROZEN

    min_count: Count
    max_count: Count
    min_seconds: Seconds
    max_seconds: Seconds

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_count > self.max_count or self.min_seconds > self.max_seconds:
            raise ValueError("the minimum count or time of a cohort is above its maximum")
        return self


class GateTerms(BaseModel):
    """Refuse a candidate whose validation loss is above the published adapter's by more than ``tolerance`` (nats)."""

    model_config = FROZEN

    enabled: bool = True
    tolerance: Annotated[float, Field(ge=0, le=100)] = 0.0


class RunTerms(BaseModel):
    """Everything that an operator says of a run; ``llm`` and ``slm`` are as the worker knows the models."""

    model_config = FROZEN

    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._ -]*$")]
    llm: ModelReference
    slm: ModelReference
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    rounds: Annotated[int, Field(ge=1, le=10_000)]
    task: TaskTerms = TaskTerms()
    llm_lora: LoraTerms = LoraTerms()
    slm_lora: LoraTerms = LoraTerms()
    training: TrainingTerms
    cotuning: CotuningTerms
    cohort: CohortTerms
    gate: GateTerms = GateTerms()
    weighting: Literal["unweighted", "examples"] = "unweighted"
    aggregation: Literal["PlaintextAggregation"] = "PlaintextAggregation"
