"""What the worker's loop asks of the models: a Protocol, so that the loop is tried without any."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import JsonValue

from shared.protocol.messages import BaseScores, RoundScores
from shared.protocol.questions import Answers
from shared.protocol.tensors import Layout
from shared.protocol.terms import RunTerms
from shared.protocol.work import PreparedDigests


@dataclass(frozen=True)
class PreparedBase:
    """A base model with its untrained LoRA: what it is, under which licence, and what its adapters look like."""

    base_digest: str
    layout: Layout
    adapter_config: Mapping[str, JsonValue]
    licence: str | None = None


@dataclass(frozen=True)
class PreparedPair:
    """The two models of a run before any tuning."""

    tokenizer_digest: str
    slm: PreparedBase
    llm: PreparedBase
    scores: BaseScores


@dataclass(frozen=True)
class Cotuned:
    """What a co-tuning did; losses are means in nats, and ``micro_batch`` is as in ``CotuneResult``."""

    steps: int
    losses: Mapping[str, float]
    micro_batch: int | None = None


class CoTuner(Protocol):
    """Everything that needs the models; adapters come and go as files.

    ``require_lease`` is called between steps, and raises LeaseLost once nobody waits for the result any more.
    """

    def prepare(
        self, terms: RunTerms, *, slm_into: Path, llm_into: Path, require_lease: Callable[[], None]
    ) -> PreparedPair:
        """Write theta^0 and omega^0, and evaluate them."""
        ...

    def cotune(
        self,
        terms: RunTerms,
        *,
        prepared: PreparedDigests,
        seed: int,
        slm: Path,
        llm: Path,
        slm_into: Path,
        llm_into: Path,
        checkpoint: Path,
        require_lease: Callable[[], None],
    ) -> Cotuned:
        """Write theta^{t+1} and omega^{t+1}, co-tuned from the adapters given.

        How far it has come is kept at ``checkpoint``, and what is kept there of the same co-tuning is gone on from.

        Raises:
            BaseModelMismatch, TokenizerMismatch: these are not the models that the run was prepared with.
        """
        ...

    def evaluate(
        self,
        terms: RunTerms,
        *,
        prepared: PreparedDigests,
        slm_aggregated: Path,
        slm: Path,
        llm: Path,
        require_lease: Callable[[], None],
    ) -> RoundScores:
        """Evaluate the SLM after aggregation, and both models after co-tuning; raise as ``cotune`` does."""
        ...

    def ask(
        self,
        terms: RunTerms,
        *,
        prepared: PreparedDigests,
        slm: Path,
        llm: Path,
        prompt: str,
        max_new_tokens: int,
    ) -> Answers:
        """Let both models go on from a prompt, with these adapters and without any; raise as ``cotune`` does."""
        ...
