"""The rows of the store as the engine sees them: frozen, and free of SQL."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import TypeAlias

from pydantic import JsonValue

from shared.errors import NotAllowed
from shared.protocol.membership import MemberState
from shared.protocol.messages import AgentsEvaluation, RoundScores
from shared.protocol.rounds import RoundState, RunState
from shared.protocol.secagg.attempt import AttemptTerms, Roster
from shared.protocol.terms import RunTerms
from shared.protocol.work import PrepareResult, Task

# What a line of a log says besides what happened.
Detail: TypeAlias = dict[str, JsonValue]


@dataclass(frozen=True)
class Run:
    """A run; ``round`` is the newest round's number, ``slm_adapter`` and ``llm_adapter`` are theta^t and omega^t.

    ``signature`` is the operator's, over the manifest that was made of ``terms`` and ``prepared``.
    """

    id: str
    terms: RunTerms
    created_at: float
    state: RunState = RunState.DRAFT
    reason: str | None = None
    version: int = 0
    prepared: PrepareResult | None = None
    signature: str | None = None
    round: int = 0
    failed_in_a_row: int = 0
    published_round: int = 0
    slm_adapter: str | None = None
    llm_adapter: str | None = None
    slm_loss: float | None = None


@dataclass(frozen=True)
class Round:
    """A round; ``slm_adapter`` and ``llm_adapter`` are what it starts from, ``entered`` when it came into a state.

    ``restarted`` is when a state's time began anew, after a pause or while no coordinator ran. ``shared_with`` are the
    agents whose updates are in the aggregate, in a run that shares it with them. ``sample`` are the members that it
    asks, in a run that does not ask all.
    """

    run_id: str
    number: int
    slm_adapter: str
    llm_adapter: str
    entered: Mapping[str, float]
    state: RoundState = RoundState.OPEN
    reason: str | None = None
    version: int = 0
    aggregate: str | None = None
    slm_candidate: str | None = None
    llm_candidate: str | None = None
    scores: RoundScores | None = None
    accepted: int = 0
    refused: int = 0
    late: int = 0
    attempt: int = 0
    total_count: int | None = None
    error_bound: float | None = None
    evaluation: AgentsEvaluation | None = None
    restarted: Mapping[str, float] = field(default_factory=dict)
    shared_with: Sequence[str] | None = None
    sample: Sequence[str] | None = None

    def asks(self, agent: str) -> bool:
        """Return whether an agent is one of those that it asks."""
        return self.sample is None or agent in self.sample

    def require_asked(self, agent: str) -> None:
        """Raise NotAllowed unless an agent is one of those that it asks."""
        if self.sample is not None and not self.asks(agent):
            raise NotAllowed(
                f"round {self.number} of run {self.run_id} asks {len(self.sample)} members, and {agent} is none of "
                "them: ask what is wanted, and go on there"
            )

    @property
    def since(self) -> float:
        """Since when the time of the round's state counts, for what ends it."""
        return max(self.entered[self.state], self.restarted.get(self.state, 0.0))


def seconds_by_state(entered: Mapping[str, float]) -> dict[str, float]:
    """Return how long a round was in each state that it has left; ``entered`` is when it came into its states."""
    moments = sorted(entered.items(), key=lambda entry: entry[1])
    return {state: later - since for (state, since), (_, later) in pairwise(moments)}


@dataclass(frozen=True)
class Update:
    """An agent's accepted update."""

    run_id: str
    round: int
    agent: str
    digest: str
    weight: int
    received_at: float


@dataclass(frozen=True)
class Attempt:
    """One group's masked exchange in a round: who was asked for keys, and what each stage has left of them.

    ``roster`` are those who announced keys, ``dealers`` those who dealt shares, ``survivors`` those whose masked
    vectors came, ``signers`` those who signed the survivors; each is None until its stage has closed.
    """

    run_id: str
    round: int
    number: int
    group: int
    terms: AttemptTerms
    members: tuple[str, ...]
    roster: Roster | None = None
    dealers: tuple[str, ...] | None = None
    survivors: tuple[str, ...] | None = None
    signers: tuple[str, ...] | None = None


class JobState(StrEnum):
    """Where a piece of work is."""

    PENDING = "pending"
    LEASED = "leased"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class Job:
    """Work for a worker; ``token`` counts its leases and fences off all but the newest.

    Its holder is ``worker`` of ``principal``, heard of under this token at ``renewed_at``, or not yet. ``result`` is
    the digest of the result that was taken.
    """

    id: str
    run_id: str
    round: int
    task: Task
    created_at: float
    state: JobState = JobState.PENDING
    version: int = 0
    token: int = 0
    worker: str | None = None
    result: str | None = None
    expires_at: float | None = None
    principal: str | None = None
    renewed_at: float | None = None


@dataclass(frozen=True)
class Blob:
    """A stored blob: its name (SHA-256), its size, and the checksum that finds a rotten disk (docs/adr/0005)."""

    digest: str
    bytes: int
    checksum: str


@dataclass(frozen=True)
class Member:
    """An agent by name: its public key, and the operator's signature over it (docs/protocol.md, "Identity").

    ``invitation`` is the digest of its one-time token. ``not_after`` and ``signature`` are of its membership
    certificate, whose other fields are the federation's id, ``name`` and ``key``.
    """

    name: str
    created_at: float
    changed_at: float
    state: MemberState = MemberState.INVITED
    version: int = 0
    key: str | None = None
    invitation: str | None = None
    invitation_expires_at: float | None = None
    not_after: int | None = None
    signature: str | None = None


@dataclass(frozen=True)
class LoggedEvent:
    """A line of a run's event log."""

    seq: int
    at: float
    kind: str
    round: int | None
    detail: Detail = field(default_factory=dict)
