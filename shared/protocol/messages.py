"""The JSON of the wire: every body that a coordinator, a worker, an agent or a screen sends or gets.

Frozen, nothing extra allowed. What an operator decides is in ``terms``; tensors never travel as JSON.
Times are seconds since 1970, UTC.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, JsonValue

from shared.protocol.audit import SignedHead
from shared.protocol.digests import Digest, digest_of
from shared.protocol.identity import canonical_json
from shared.protocol.names import RoundNumber, RunId
from shared.protocol.rounds import RoundState, RunState
from shared.protocol.tensors import LayoutSent
from shared.protocol.terms import FROZEN, LoraTerms, RunTerms, TaskTerms, TrainingTerms

PROTOCOL_VERSION = 1
PROTOCOL_FIELD = "FedCoLLM-Protocol"

# Proxies between the two sides give up on an answer, some after half a minute.
LONGEST_POLL_SECONDS = 25.0

MESSAGE_CHARACTERS = 4000
Message = Annotated[str, Field(max_length=MESSAGE_CHARACTERS)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
WaitSeconds = Annotated[float, Field(ge=0, le=LONGEST_POLL_SECONDS)]


class Problem(BaseModel):
    """A problem document (RFC 9457); ``code`` is stable and ``detail`` is for people."""

    type: str = "about:blank"
    title: str
    status: int
    code: Annotated[str, Field(max_length=64)]
    detail: Message
    model_config = FROZEN


# --- evaluation -------------------------------------------------------------------------------------------------


class Score(BaseModel):
    """Accuracy and loss of one model with one adapter on the coordinator's validation set.

    What accuracy is follows from the run's kind of task: of multiple_choice the share of examples answered right, and
    ``chance`` what guessing would score; of completion the share of the answers' tokens that the model holds most
    likely, each after the right ones before it, and ``chance`` is 0. The loss is a mean per token of the right answers.
    """

    accuracy: Annotated[float, Field(ge=0, le=1)]
    loss: Finite
    examples: Annotated[int, Field(ge=1)]
    chance: Annotated[float, Field(ge=0, le=1)]
    model_config = FROZEN


class RoundScores(BaseModel):
    """What design step 5 evaluates: the SLM after aggregation, SLM and LLM after co-tuning."""

    slm_aggregated: Score
    slm: Score
    llm: Score
    model_config = FROZEN


class BaseScores(BaseModel):
    """The two models before any tuning (zero-shot)."""

    slm: Score
    llm: Score
    model_config = FROZEN


# --- runs -------------------------------------------------------------------------------------------------------


class Manifest(BaseModel):
    """What an agent must know of a run, and compares with its own machine before it trains."""

    run_id: RunId
    run_name: str
    slm_digest: Digest
    tokenizer_digest: Digest
    slm_lora: LoraTerms
    layout: LayoutSent
    adapter_config: dict[str, JsonValue]
    task: TaskTerms
    training: TrainingTerms
    weighting: Literal["unweighted", "examples"]
    aggregation: Literal["PlaintextAggregation"]
    model_config = FROZEN


def manifest_digest(manifest: Manifest) -> str:
    """Return the digest of a manifest's canonical JSON: keys in order, no spaces."""
    return digest_of(canonical_json(manifest))


class PublishedAdapter(BaseModel):
    """The SLM adapter that a run has published last, after co-tuning."""

    run_id: RunId
    round: RoundNumber
    digest: Digest
    model_config = FROZEN


class RoundView(BaseModel):
    """A round as anybody may see it: counts, never who."""

    run_id: RunId
    number: int
    state: RoundState
    reason: str | None
    opened_at: float
    ended_at: float | None
    accepted: int
    refused: int
    late: int
    aggregate_bytes: int | None
    scores: RoundScores | None
    seconds: dict[str, float]
    model_config = FROZEN


class RunView(BaseModel):
    """A run as anybody may see it."""

    id: RunId
    state: RunState
    reason: str | None
    terms: RunTerms
    created_at: float
    round: int
    published: PublishedAdapter | None
    base_scores: BaseScores | None
    model_config = FROZEN


class RunList(BaseModel):
    """A page of runs, newest first."""

    runs: tuple[RunView, ...]
    model_config = FROZEN


class RoundList(BaseModel):
    """The rounds of a run, oldest first."""

    rounds: tuple[RoundView, ...]
    model_config = FROZEN


class CancelRequest(BaseModel):
    """Why an operator ends a run."""

    reason: Annotated[str, Field(min_length=1, max_length=400)]
    model_config = FROZEN


class Event(BaseModel):
    """One line of the run's log."""

    seq: int
    at: float
    kind: str
    round: int | None
    detail: dict[str, JsonValue]
    model_config = FROZEN


class EventList(BaseModel):
    """Events after the one that was asked about; ask again from ``last``."""

    events: tuple[Event, ...]
    last: int
    model_config = FROZEN


class Artefact(BaseModel):
    """An adapter that a run made; blob and config together are a PEFT directory."""

    name: Literal["slm-adapter", "llm-adapter"]
    round: RoundNumber
    digest: Digest
    bytes: int
    adapter_config: dict[str, JsonValue]
    model_config = FROZEN


class ArtefactList(BaseModel):
    """What a run made so far."""

    artefacts: tuple[Artefact, ...]
    model_config = FROZEN


# --- agents -----------------------------------------------------------------------------------------------------


class Assignment(BaseModel):
    """A round that waits for this agent's update of the adapter ``adapter``, by the manifest whose digest this is."""

    run_id: RunId
    round: RoundNumber
    manifest: Digest
    adapter: Digest
    seed: Seed
    model_config = FROZEN


class Wanted(BaseModel):
    """What the coordinator wants of the agent that asks, the newest adapter that it may have, and the log's head."""

    assignment: Assignment | None
    published: PublishedAdapter | None
    audit: SignedHead | None = None
    model_config = FROZEN


class UpdateReceipt(BaseModel):
    """The coordinator holds this update; the same bytes get the same receipt again."""

    run_id: RunId
    round: int
    agent: str
    digest: Digest
    bytes: int
    received_at: float
    model_config = FROZEN


# --- work -------------------------------------------------------------------------------------------------------


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
    """Answer to a CotuneTask: the candidates theta^{t+1} and omega^{t+1}, and mean losses in nats."""

    kind: Literal["cotune"] = "cotune"
    slm_adapter: Digest
    llm_adapter: Digest
    steps: Annotated[int, Field(ge=0)]
    losses: Annotated[dict[Annotated[str, Field(max_length=64)], Finite], Field(max_length=64)]
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


class LeaseAnswer(BaseModel):
    """A lease, or nothing yet: ask again."""

    lease: Lease | None
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


class Health(BaseModel):
    """This process serves."""

    status: Literal["ok"] = "ok"
    model_config = FROZEN


class Accepted(BaseModel):
    """The message was taken; there is nothing else to say."""

    accepted: Literal[True] = True
    model_config = FROZEN
