"""What an operator decides about a run: the frozen terms that every party works by.

Defaults are the ``demo`` preset's where a default is harmless, and absent where a choice must be made.
"""

import re
from operator import not_
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Count = Annotated[int, Field(ge=1, le=1_000_000)]
Rate = Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=31_536_000, allow_inf_nan=False)]
TooLong: TypeAlias = Literal["refuse", "leave_out"]
AggregationName: TypeAlias = Literal["SecureAggregation", "PlaintextAggregation"]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
EvaluationCount = Annotated[int, Field(ge=0, le=100_000)]

# Fewer cannot hide anything from each other; more take too long, because each deals shares to each.
SMALLEST_COHORT = 3
LARGEST_GROUP = 128

QUESTION = "{question}"
# What a template's author may have meant for a field: {word}, {{word}}, { word }; no object of JSON, and no sentence.
_FIELD = re.compile(r"""\{+ *[^{}"'\s]* *\}+""")

FROZEN = ConfigDict(frozen=True, extra="forbid")


class ModelMark:
    """Marks what names a model: a folder where there is one by that name, and a hub id elsewhere."""


# A Hugging Face directory or hub id.
ModelReference = Annotated[str, Field(min_length=1, max_length=1024), ModelMark()]


class TaskTerms(BaseModel):
    """What all parties' examples have in common: their kind, and the text that becomes of a question."""

    model_config = FROZEN

    kind: Annotated[
        Literal["multiple_choice", "completion"],
        Field(description="multiple_choice (question, choices, answer) or completion (prompt, answer)."),
    ] = "multiple_choice"
    template: Annotated[
        str,
        Field(
            min_length=1,
            max_length=4000,
            description="The text that a model is given. {question} stands in it once, for a completion's prompt too, "
            "and no other {word}; the answer follows after one space, in training and in scoring alike.",
        ),
    ] = "Question: {question}\nAnswer:"
    too_long: Annotated[
        TooLong,
        Field(
            description="Who has an example of more than max_tokens refuses to go on (refuse), or goes on without it "
            "and says in its log how many there were (leave_out)."
        ),
    ] = "refuse"

    @field_validator("template")
    @classmethod
    def _with_question(cls, template: str) -> str:
        if template.count(QUESTION) != 1 or template.endswith((" ", "\t")):
            raise ValueError(f"a template holds {QUESTION} once and does not end in a space: the answer brings its own")
        if others := [found for found in _FIELD.findall(template) if found != QUESTION]:
            raise ValueError(
                f"a template has {QUESTION} and no other field, and here is {', '.join(others)}, which models would be "
                "given as it stands: take it out; each choice is put behind the text by itself"
            )
        return template

    def prompt(self, question: str) -> str:
        """Return what a model is asked."""
        return self.template.replace(QUESTION, question)


class LoraTerms(BaseModel):
    """LoRA of one model, in PEFT's names."""

    model_config = FROZEN

    rank: Annotated[int, Field(ge=1, le=1024, description="Rank of A and B: the adapter's size grows with it.")] = 8
    alpha: Annotated[int, Field(ge=1, le=4096, description="B A is scaled by alpha / rank.")] = 16
    dropout: Annotated[float, Field(ge=0, lt=1, description="Of what goes into A, while training.")] = 0.05
    targets: Annotated[
        tuple[str, ...] | None,
        Field(
            description="Last parts of the names of the linear modules that get LoRA; left out, the attention "
            "projections of the model's family.",
            examples=[["q_proj", "v_proj"]],
        ),
    ] = None


class OptimiserTerms(BaseModel):
    """AdamW with a constant learning rate, started afresh each round (design, round step 4)."""

    model_config = FROZEN

    learning_rate: Annotated[Rate, Field(description="The same at every step.")]
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.0
    clip_norm: Annotated[Rate, Field(description="A step's gradient is scaled down to this norm.")] = 1.0


class TrainingTerms(BaseModel):
    """An agent's local training: E epochs over its private data (Alg. 1, client loop)."""

    model_config = FROZEN

    epochs: Annotated[Count, Field(description="E: how often each example is trained on in a round.")] = 1
    batch_size: Annotated[Count, Field(description="Examples a step.")]
    optimiser: OptimiserTerms
    max_tokens: Annotated[
        int,
        Field(ge=2, le=1_048_576, description="The longest example, prompt and answer, of every party, in tokens."),
    ]


class CotuningTerms(BaseModel):
    """Mutual distillation on the auxiliary set: R passes (Alg. 1, server loop; Eq. 4 to 6)."""

    model_config = FROZEN

    passes: Annotated[
        int, Field(ge=0, le=1000, description="R: how often each auxiliary example is used in a round; 0 is FedAvg.")
    ] = 1
    batch_size: Annotated[Count, Field(description="Examples a step.")]
    distillation_weight: Annotated[
        float, Field(ge=0, le=1000, description="Lambda, the weight of the KL terms; 0 is the control without them.")
    ] = 1.0
    direction: Annotated[
        Literal["forward", "reverse"], Field(description="forward is KL(peer || own), reverse is KL(own || peer).")
    ] = "forward"
    schedule: Annotated[
        Literal["simultaneous", "sequential"],
        Field(
            description="Both models step from the values before the step, or the LLM's peer is the SLM that has "
            "just made its step."
        ),
    ] = "simultaneous"
    distils: Annotated[
        Literal["everywhere", "where_peer_is_better"],
        Field(
            description="At which answer tokens the KL terms count: at all, as in the paper, or at those whose right "
            "token the peer finds likelier than the model that learns."
        ),
    ] = "everywhere"
    llm_optimiser: OptimiserTerms
    slm_optimiser: OptimiserTerms


class CohortTerms(BaseModel):
    """When a round stops waiting for updates (docs/protocol.md, step 5)."""

    model_config = FROZEN

    min_count: Annotated[
        Count,
        Field(
            description="With fewer updates than this a round comes to nothing; agents mask theirs for no smaller sum."
        ),
    ]
    max_count: Annotated[Count, Field(description="With this many updates it closes at once.")]
    min_seconds: Annotated[Seconds, Field(description="From here on it closes with min_count updates.")]
    max_seconds: Annotated[Seconds, Field(description="Here it ends, whatever there is.")]
    # Left out where it is not set, so that what was signed before there was this term is still what was signed.
    sample_count: Annotated[
        Count | None,
        Field(
            exclude_if=not_,
            description="A round asks so many members, drawn anew for it, and no others; more than max_count, so that "
            "it need not wait for the slowest. Left out, it asks all.",
        ),
    ] = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_count > self.max_count or self.min_seconds > self.max_seconds:
            raise ValueError("the minimum count or time of a cohort is above its maximum")
        if self.sample_count is not None and self.sample_count < self.max_count:
            raise ValueError(
                f"cohort.sample_count is {self.sample_count} and max_count {self.max_count}: a round that asks fewer "
                "than it takes is never full; ask as many or more, or take fewer"
            )
        return self

    @property
    def group_size(self) -> int:
        """How many agents one attempt of secure aggregation has at most; a larger cohort is split into groups."""
        return min(self.max_count, LARGEST_GROUP)


class MaskingTerms(BaseModel):
    """Secure aggregation: how updates are coded, and how long a stage waits (docs/secure-aggregation.md)."""

    model_config = FROZEN

    clip_norm: Annotated[
        float,
        Field(
            gt=0,
            le=1e6,
            allow_inf_nan=False,
            description="What an agent has changed in an adapter is scaled down to this L2 norm, and coded in steps "
            "that grow with it.",
        ),
    ] = 50.0
    stage_seconds: Annotated[
        float, Field(gt=0, le=86_400, description="How long each of the five stages waits for agents that are silent.")
    ] = 30.0


class GateTerms(BaseModel):
    """Whether an SLM adapter that is worse than the published one is refused."""

    model_config = FROZEN

    enabled: Annotated[bool, Field(description="Compare validation losses before one is published.")] = True
    tolerance: Annotated[
        float, Field(ge=0, le=100, description="How much higher than the published one's its loss may be, in nats.")
    ] = 0.0


class RunTerms(BaseModel):
    """Everything that an operator says of a run; ``llm`` and ``slm`` are as the worker knows the models."""

    model_config = FROZEN

    name: Annotated[
        str,
        Field(
            max_length=64,
            pattern=r"^([A-Za-z0-9][A-Za-z0-9._ -]*)?$",
            description="What people call the run, if not by its id.",
        ),
    ] = ""
    llm: Annotated[ModelReference, Field(description="The LLM, where the worker has it: a folder or a hub id.")]
    slm: Annotated[ModelReference, Field(description="The SLM, which has the LLM's tokenizer, likewise.")]
    seed: Annotated[Seed, Field(description="Decides first adapters, orders of data and dropout.")]
    rounds: Annotated[int, Field(ge=1, le=10_000, description="T: how many rounds publish an adapter.")]
    task: TaskTerms = TaskTerms()
    llm_lora: LoraTerms = LoraTerms()
    slm_lora: LoraTerms = LoraTerms()
    training: TrainingTerms
    cotuning: CotuningTerms
    cohort: CohortTerms
    gate: GateTerms = GateTerms()
    weighting: Annotated[
        Literal["unweighted", "examples"],
        Field(description="The mean of the paper, or one weighted by numbers of examples, which agents then tell."),
    ] = "unweighted"
    aggregation: Annotated[
        AggregationName,
        Field(
            description="SecureAggregation: the coordinator learns sums of three or more updates and nothing else. "
            "PlaintextAggregation: it can read each update, which agents refuse unless their own policy allows it."
        ),
    ] = "SecureAggregation"
    masking: MaskingTerms = MaskingTerms()
    evaluation_examples: Annotated[
        EvaluationCount,
        Field(
            description="Each agent evaluates the adapter of a round, before it trains, on so many examples of its own "
            "that it does not train on; the coordinator learns what all of these add up to. An agent that has fewer "
            "takes no part. 0: nobody evaluates."
        ),
    ] = 0
    share_aggregate: Annotated[
        bool,
        Field(
            description="Who took part in a round that has published an adapter may fetch its aggregate too, the mean "
            "before co-tuning, to compare both on examples of its own. Whoever does learns the sum of the others' "
            "updates: agents refuse such runs unless their own policy allows it. And it learns exactly what co-tuning "
            "has changed, which tells more of the auxiliary set and of the LLM than the published adapter alone."
        ),
    ] = False

    @model_validator(mode="after")
    def _enough_to_hide_among(self) -> Self:
        if self.aggregation == "SecureAggregation" and self.cohort.min_count < SMALLEST_COHORT:
            raise ValueError(
                f"cohort.min_count is {self.cohort.min_count}, and secure aggregation needs {SMALLEST_COHORT} or more: "
                "of a sum of two each party learns the other's part"
            )
        return self

    @model_validator(mode="after")
    def _evaluations_in_sums_alone(self) -> Self:
        if self.evaluation_examples and self.aggregation == "PlaintextAggregation":
            raise ValueError(
                f"evaluation_examples is {self.evaluation_examples}, and agents tell what they evaluate in masked sums "
                "alone: set it to 0, or aggregation to SecureAggregation"
            )
        return self
