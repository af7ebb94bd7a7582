"""Published adapters: which there are, and which of them the agents hold."""

from typing import Annotated

from pydantic import BaseModel, Field

from shared.protocol.digests import Digest
from shared.protocol.messages import PublishedAdapter, RoundScores
from shared.protocol.names import LAST_ROUND, RoundNumber, RunId
from shared.protocol.terms import FROZEN


class PublishedView(BaseModel):
    """An SLM adapter that a round has published, with the LLM adapter that was co-tuned with it."""

    run_id: RunId
    run_name: str
    round: RoundNumber
    slm_adapter: Digest
    llm_adapter: Digest
    bytes: Annotated[int, Field(ge=0)]
    published_at: float
    scores: RoundScores | None
    model_config = FROZEN


class AdapterList(BaseModel):
    """A page of published adapters, newest run and round first; ask again with ``before`` = ``next``."""

    adapters: tuple[PublishedView, ...]
    next: str | None = None
    model_config = FROZEN


class PromotionRequest(BaseModel):
    """The round whose adapter the agents are to hold."""

    run_id: RunId
    round: Annotated[int, Field(ge=1, le=LAST_ROUND)]
    model_config = FROZEN


class Promotion(BaseModel):
    """The adapter that agents hold once they have asked again.

    It is the newest published one, unless an operator has ``pinned`` another: an earlier one, or the one that stays
    when there are newer ones. Rounds begin from their own run's newest all the same.
    """

    held: PublishedAdapter | None
    pinned: bool
    model_config = FROZEN
