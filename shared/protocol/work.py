"""The JSON of the work API: what a worker is asked to do, and what it answers."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, JsonValue

from shared.protocol.digests import Digest
from shared.protocol.messages import BaseScores, Finite, Message, RoundScores, WaitSeconds
from shared.protocol.names import Licence, RunId
from shared.protocol.questions import Answers, QuestionId
from shared.protocol.tensors import LayoutSent
from shared.protocol.terms import FROZEN, RunTerms, Seed


class PreparedDigests(BaseModel):
    """Which models a run was prepared with; a worker that has others may not go on with it."""

    tokenizer: Digest
    slm: Digest
    llm: Digest
    model_config = FROZEN


class PrepareTask(BaseModel):
    """Load both models, make theta^0 and omega^0, and evaluate them (docs/protocol.md step 1)."""

    kind: Literal["prepare"] = "prepare"
    model_config = FROZEN


class CotuneTask(BaseModel):
    """Co-tune from the aggregate and omega^t (docs/protocol.md step 7)."""

    kind: Literal["cotune"] = "cotune"
    prepared: PreparedDigests
    slm_adapter: Digest
    llm_adapter: Digest
    seed: Seed
    model_config = FROZEN


class EvaluateTask(BaseModel):
    """Evaluate the aggregate and the candidates (docs/protocol.md step 8)."""

    kind: Literal["evaluate"] = "evaluate"
    prepared: PreparedDigests
    slm_aggregated: Digest
    slm_adapter: Digest
    llm_adapter: Digest
    model_config = FROZEN


Task = Annotated[PrepareTask | CotuneTask | EvaluateTask, Field(discriminator="kind")]


class PreparedModel(BaseModel):
    """One model of the pair, and its adapter before any training."""

    base_digest: Digest
    adapter: Digest
    layout: LayoutSent
    adapter_config: dict[str, JsonValue]
    licence: Licence | None = None
    model_config = FROZEN


class PrepareResult(BaseModel):
    """Answer to a PrepareTask."""

    kind: Literal["prepare"] = "prepare"
    tokenizer_digest: Digest
    slm: PreparedModel
    llm: PreparedModel
    scores: BaseScores
    model_config = FROZEN

    @property
    def digests(self) -> PreparedDigests:
        """Which models these are."""
        return PreparedDigests(tokenizer=self.tokenizer_digest, slm=self.slm.base_digest, llm=self.llm.base_digest)


class CotuneResult(BaseModel):
    """Answer to a CotuneTask: the candidates theta^{t+1} and omega^{t+1}, and mean losses in nats.

    ``micro_batch`` is how many examples went through the models at once, where memory did not suffice for a batch.
    """

    kind: Literal["cotune"] = "cotune"
    slm_adapter: Digest
    llm_adapter: Digest
    steps: Annotated[int, Field(ge=0, lt=2**53)]
    losses: Annotated[dict[Annotated[str, Field(max_length=64)], Finite], Field(max_length=64)]
    micro_batch: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    model_config = FROZEN


class EvaluateResult(BaseModel):
    """Answer to an EvaluateTask."""

    kind: Literal["evaluate"] = "evaluate"
    scores: RoundScores
    model_config = FROZEN


Result = Annotated[PrepareResult | CotuneResult | EvaluateResult, Field(discriminator="kind")]


class LeaseRequest(BaseModel):
    """A worker asks for work."""

    worker: Annotated[str, Field(min_length=1, max_length=128)]
    wait_seconds: WaitSeconds = 0
    model_config = FROZEN


class Lease(BaseModel):
    """Work for a worker that is never silent for ``lease_seconds``; ``token`` fences off older leases."""

    job_id: str
    token: int
    run_id: RunId
    round: int
    terms: RunTerms
    task: Task
    lease_seconds: Annotated[float, Field(gt=0)]
    model_config = FROZEN


class Question(BaseModel):
    """A question as a worker gets it, when there is nothing else to do."""

    id: QuestionId
    terms: RunTerms
    prepared: PreparedDigests
    slm_adapter: Digest
    llm_adapter: Digest
    prompt: str
    max_new_tokens: int
    model_config = FROZEN


class QuestionAnswered(BaseModel):
    """What the models say, greedily decoded; after the prompt, and without it."""

    kind: Literal["answered"] = "answered"
    answers: Answers
    model_config = FROZEN


class QuestionFailed(BaseModel):
    """Why a worker could not ask the models."""

    kind: Literal["failed"] = "failed"
    code: Annotated[str, Field(max_length=64)]
    message: Message
    model_config = FROZEN


QuestionOutcome = Annotated[QuestionAnswered | QuestionFailed, Field(discriminator="kind")]


class LeaseAnswer(BaseModel):
    """A lease; a question, where nobody needs anything else; or nothing yet: ask again."""

    lease: Lease | None
    question: Question | None = None
    model_config = FROZEN


class Heartbeat(BaseModel):
    """The worker is alive and still at it."""

    token: int
    model_config = FROZEN


class ResultRequest(BaseModel):
    """The work is done."""

    token: int
    result: Result
    model_config = FROZEN


class FailureRequest(BaseModel):
    """The work cannot be done, by this worker or any other; or, with ``elsewhere``, perhaps by another."""

    token: int
    elsewhere: bool = False
    code: Annotated[str, Field(max_length=64)]
    message: Message
    model_config = FROZEN
