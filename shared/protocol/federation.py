"""A federation at a glance, for operators and viewers: counts of its agents, its workers, and who asks."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from shared.protocol.identity import PublicKey
from shared.protocol.membership import MemberState
from shared.protocol.names import PrincipalName, RoundNumber, RunId
from shared.protocol.terms import FROZEN, RunTerms

# An agent or a worker polls at least this often while it has nothing to do; whoever was heard of since is there.
HEARD_WITHIN_SECONDS = 60.0


class Reader(BaseModel):
    """Who asks, as the coordinator knows them."""

    name: PrincipalName
    role: Literal["operator", "viewer"]
    model_config = FROZEN


class AgentCounts(BaseModel):
    """How many agents there are: by state, how many of the approved were heard of lately, and with which software.

    An agent that trains is not heard of until it has finished.
    """

    states: dict[MemberState, int]
    heard: Annotated[int, Field(ge=0)]
    versions: dict[str, int]
    model_config = FROZEN


class WorkUnderWay(BaseModel):
    """What a worker has leased."""

    kind: str
    run_id: RunId
    round: RoundNumber
    model_config = FROZEN


class WorkerView(BaseModel):
    """A worker that has asked for work since the coordinator started; its name is its own word."""

    name: str
    principal: PrincipalName
    version: str | None
    heard_at: float
    work: WorkUnderWay | None
    model_config = FROZEN


class FederationView(BaseModel):
    """One coordinator and its federation; ``now`` is the coordinator's clock, by which all its times are."""

    federation: PrincipalName
    operator_key: PublicKey
    fingerprint: str
    version: str
    protocol: int
    started_at: float
    now: float
    you: Reader
    agents: AgentCounts
    workers: tuple[WorkerView, ...]
    model_config = FROZEN


class PresetList(BaseModel):
    """Terms by name, to begin a run's from."""

    presets: tuple[RunTerms, ...]
    model_config = FROZEN
