"""The JSON of the wire: every body that a coordinator, a worker, an agent or a screen sends or gets.

Frozen, nothing extra allowed. What an operator decides is in ``terms``; tensors never travel as JSON.
Times are seconds since 1970, UTC.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, JsonValue

from shared.protocol.attempts import Summons
from shared.protocol.audit import SignedHead
from shared.protocol.digests import Digest
from shared.protocol.names import RoundNumber, RunId
from shared.protocol.rounds import RoundState, RunState
from shared.protocol.terms import FROZEN, RunTerms

PROTOCOL_VERSION = 1
PROTOCOL_FIELD = "FedCoLLM-Protocol"

# Proxies between the two sides give up on an answer, some after half a minute.
LONGEST_POLL_SECONDS = 25.0

# Processes on the same state folder that an agent says have ended before it.
MOST_FOLLOWED = 8

# Runs that an agent says it declines: so that the address of its question is shorter than proxies' 8 KiB.
MOST_DECLINED = 70

MESSAGE_CHARACTERS = 4000
MOST_FAULTS = 50
Message = Annotated[str, Field(max_length=MESSAGE_CHARACTERS)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
WaitSeconds = Annotated[float, Field(ge=0, le=LONGEST_POLL_SECONDS)]


class Fault(BaseModel):
    """What is wrong with one value of a request: ``where`` is its path, as in ``cohort.min_count``, or empty."""

    where: Annotated[str, Field(max_length=400)]
    message: Annotated[str, Field(max_length=1000)]
    model_config = FROZEN


class Problem(BaseModel):
    """A problem document (RFC 9457); ``code`` is stable and ``detail`` is for people.

    ``faults`` says it value by value, where a request's body or query could not be understood.
    """

    type: str = "about:blank"
    title: str
    status: int
    code: Annotated[str, Field(max_length=64)]
    detail: Message
    faults: Annotated[tuple[Fault, ...], Field(max_length=MOST_FAULTS)] = ()
    model_config = FROZEN


# --- evaluation -------------------------------------------------------------------------------------------------


class Score(BaseModel):
    """Accuracy and loss of one model with one adapter on the coordinator's validation set.

    What accuracy is follows from the run's kind of task: of multiple_choice the share of examples answered right, and
    ``chance`` what guessing would score; of completion the share of the answers' tokens that the model holds most
    likely, each after the right ones before it, and ``chance`` is 0. The loss is a mean per token of the right answers.
    ``interval`` holds the accuracy over all examples of this kind in 95 of 100 cases.
    """

    accuracy: Share
    loss: Finite
    examples: Annotated[int, Field(ge=1)]
    chance: Share
    interval: tuple[Share, Share] | None = None
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


class PublishedAdapter(BaseModel):
    """The SLM adapter that a run has published last, after co-tuning."""

    run_id: RunId
    round: RoundNumber
    digest: Digest
    model_config = FROZEN


class AgentsEvaluation(BaseModel):
    """What the agents' own evaluations of the adapter that the round began with add up to; never one agent's.

    Each has evaluated on equally many examples. Accuracy and loss are means over the agents of what ``Score`` has.
    """

    examples: Annotated[int, Field(ge=1)]
    accuracy: Share
    loss: Finite
    model_config = FROZEN


class RoundView(BaseModel):
    """A round as anybody may see it: counts, never who; the adapters are those that it has published.

    ``since`` is when the time of its state began, or began anew after a pause or a restart of the coordinator.
    """

    run_id: RunId
    number: int
    state: RoundState
    reason: str | None
    opened_at: float
    since: float
    ended_at: float | None
    accepted: int
    refused: int
    late: int
    attempts: int
    aggregate_bytes: int | None
    slm_adapter: Digest | None
    llm_adapter: Digest | None
    error_bound: float | None
    evaluation: AgentsEvaluation | None
    scores: RoundScores | None
    seconds: dict[str, float]
    model_config = FROZEN


class RunView(BaseModel):
    """A run as anybody may see it; ``signed`` is its manifest, by the operator, and rounds open only then."""

    id: RunId
    state: RunState
    reason: str | None
    terms: RunTerms
    created_at: float
    round: int
    published: PublishedAdapter | None
    base_scores: BaseScores | None
    signed: bool
    model_config = FROZEN


class RunList(BaseModel):
    """A page of runs, newest first; ask again with ``before`` = ``next``."""

    runs: tuple[RunView, ...]
    next: RunId | None = None
    model_config = FROZEN


class RoundList(BaseModel):
    """A page of a run's rounds, oldest first; ask again with ``after`` = ``next``."""

    rounds: tuple[RoundView, ...]
    next: RoundNumber | None = None
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


ArtefactName = Literal["slm-adapter", "llm-adapter"]


class Artefact(BaseModel):
    """An adapter that a run made; blob and config together are a PEFT directory."""

    name: ArtefactName
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
    model_config = FROZEN


class Wanted(BaseModel):
    """What the coordinator wants of the agent that asks, the newest adapter that it may have, and the log's head.

    ``assignment`` is a round to train for, and ``summons`` the next message of an attempt that it is a member of.
    ``aggregate`` is what ``published`` was co-tuned from, where that round shares it with this agent. ``second_at`` is
    when another process was refused last that has asked with this agent's key.
    """

    assignment: Assignment | None
    summons: Summons | None = None
    published: PublishedAdapter | None
    aggregate: Annotated[Digest | None, Field(exclude_if=lambda digest: digest is None)] = None
    audit: SignedHead | None = None
    second_at: Annotated[float | None, Field(exclude_if=lambda at: at is None)] = None
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


class Health(BaseModel):
    """This process serves."""

    status: Literal["ok"] = "ok"
    model_config = FROZEN


class Accepted(BaseModel):
    """The message was taken; there is nothing else to say."""

    accepted: Literal[True] = True
    model_config = FROZEN
