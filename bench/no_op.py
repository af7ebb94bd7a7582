"""A trainer and a co-tuner that only move bytes: for timing rounds, and for tests of everything around training.

They keep the rules of the real ones: files in, files out, distinct updates, canonical blobs.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from services.client_agent.trainer import (
    Answer,
    LocalEvaluation,
    Measured,
    MeasureOrder,
    Progress,
    SpareTimeOrder,
    StandaloneOrder,
    Trained,
    TrainingOrder,
)
from services.client_agent.trainer_process import SyncTrainer
from services.coordinator.worker.cotuner import Cotuned, PreparedBase, PreparedPair
from shared.protocol.codec import encode, read_file
from shared.protocol.digests import digest_of
from shared.protocol.lora import AdapterConfig
from shared.protocol.messages import BaseScores, RoundScores, Score
from shared.protocol.questions import Answers, ModelName
from shared.protocol.tensors import Layout, Tensors
from shared.protocol.terms import LoraTerms, RunTerms
from shared.protocol.work import PreparedDigests

NO_MODEL = digest_of(b"no model")
SCORE = Score(accuracy=0.5, loss=1.0, examples=1, chance=0.25)


class NoOpTrainer:
    """Adds noise that depends on the order's seed, so that every update is another."""

    def __init__(self) -> None:
        self.trainings = 0

    def train(self, order: TrainingOrder, on_progress: Callable[[Progress], None]) -> Trained:
        """Write a shifted copy of the adapter."""
        self.trainings += 1
        on_progress(Progress(step=1, steps=1, loss=0.0))
        evaluation = evaluation_of(order.seed, order.manifest.evaluation_examples)
        return _shifted(order).model_copy(update={"evaluation": evaluation})

    def train_alone(self, order: StandaloneOrder, on_step: Callable[[], None]) -> Trained:
        """Write a shifted copy, of zeros without an adapter."""
        on_step()
        return _shifted(order)

    def measure(self, order: MeasureOrder, on_batch: Callable[[], None]) -> Measured:
        """Measure four examples, of which as many are right as the adapter's numbers happen to say."""
        on_batch()
        told = int.from_bytes(digest_of(encode(_tensors(order))).encode()[-4:], "big")
        return Measured(
            examples=NO_MODEL,
            left_out=0,
            completions=False,
            chance=0.25,
            right=tuple(told >> bit & 1 for bit in range(4)),
            tokens=(1, 1, 2, 2),
            losses=(0.5, 1.0, 1.5, 2.0 + told % 7),
        )


def _shifted(order: TrainingOrder | StandaloneOrder) -> Trained:
    shift = shift_of(order.seed)
    update = encode({name: values + shift for name, values in _tensors(order).items()})
    order.into.write_bytes(update)
    return Trained(digest=digest_of(update), examples=1 + order.seed % 100, steps=1, mean_loss=0.0)


def _tensors(order: TrainingOrder | StandaloneOrder | MeasureOrder) -> Tensors:
    """Return the adapter of an order, or the zeros that are theta^0 here."""
    layout = order.manifest.layout
    if order.adapter is None:
        return {name: np.zeros(shape, np.float32) for name, shape in layout.items()}
    return read_file(order.adapter, layout)


def shift_of(seed: int) -> np.float32:
    """Return what ``NoOpTrainer`` adds under this seed."""
    return np.float32(np.random.default_rng(seed).normal())


def evaluation_of(seed: int, examples: int) -> LocalEvaluation | None:
    """Return what ``NoOpTrainer`` tells of an evaluation on ``examples`` examples under this seed."""
    if not examples:
        return None
    return LocalEvaluation(loss=examples * (seed % 7 + 0.25), correct=seed % (examples + 1), total=examples)


def lora_of(layout: Layout, lora: LoraTerms) -> dict[str, JsonValue]:
    """Return the configuration of an adapter of this layout, as PEFT would say it."""
    return AdapterConfig(
        peft_type="LORA",
        task_type="CAUSAL_LM",
        base_model_name_or_path=None,
        inference_mode=True,
        peft_version="0",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=sorted({name.rpartition(".lora_")[0].rpartition(".")[2] for name in layout}),
        fan_in_fan_out=False,
        bias="none",
    ).model_dump()


class InProcess:
    """A Trainer that trains in the agent's own process."""

    def __init__(self, trainer: SyncTrainer) -> None:
        self._trainer = trainer

    async def train(self, order: TrainingOrder, on_progress: Callable[[Progress], None]) -> Trained:
        """Train at once."""
        return self._trainer.train(order, on_progress)

    async def between(self, order: SpareTimeOrder) -> Answer:
        """Train alone or measure at once."""
        if isinstance(order, MeasureOrder):
            return self._trainer.measure(order, lambda: None)
        return self._trainer.train_alone(order, lambda: None)


class NoOpCoTuner:
    """Hands the aggregate on as the candidate, with a loss that stays the same, which the gate lets through."""

    def __init__(self, slm_layout: Layout, llm_layout: Layout) -> None:
        self._slm_layout = slm_layout
        self._llm_layout = llm_layout

    def prepare(
        self,
        terms: RunTerms,
        *,
        slm_into: Path,
        llm_into: Path,
        require_lease: Callable[[], None],  # noqa: ARG002 - done at once
    ) -> PreparedPair:
        """Write adapters of zeros."""
        for layout, into in ((self._slm_layout, slm_into), (self._llm_layout, llm_into)):
            into.write_bytes(encode({name: np.zeros(shape, np.float32) for name, shape in layout.items()}))
        return PreparedPair(
            tokenizer_digest=NO_MODEL,
            slm=PreparedBase(NO_MODEL, self._slm_layout, lora_of(self._slm_layout, terms.slm_lora)),
            llm=PreparedBase(NO_MODEL, self._llm_layout, lora_of(self._llm_layout, terms.llm_lora)),
            scores=BaseScores(slm=SCORE, llm=SCORE),
        )

    def cotune(
        self,
        terms: RunTerms,  # noqa: ARG002 - no models
        *,
        prepared: PreparedDigests,  # noqa: ARG002
        seed: int,  # noqa: ARG002
        slm: Path,
        llm: Path,
        slm_into: Path,
        llm_into: Path,
        checkpoint: Path,  # noqa: ARG002
        require_lease: Callable[[], None],  # noqa: ARG002
    ) -> Cotuned:
        """Copy."""
        slm_into.write_bytes(slm.read_bytes())
        llm_into.write_bytes(llm.read_bytes())
        return Cotuned(steps=0, losses={})

    def evaluate(
        self,
        terms: RunTerms,  # noqa: ARG002
        *,
        prepared: PreparedDigests,  # noqa: ARG002
        slm_aggregated: Path,  # noqa: ARG002
        slm: Path,  # noqa: ARG002
        llm: Path,  # noqa: ARG002
        require_lease: Callable[[], None],  # noqa: ARG002
    ) -> RoundScores:
        """Invent scores."""
        return RoundScores(slm_aggregated=SCORE, slm=SCORE, llm=SCORE)

    def ask(
        self,
        terms: RunTerms,  # noqa: ARG002
        *,
        prepared: PreparedDigests,  # noqa: ARG002
        slm: Path,  # noqa: ARG002
        llm: Path,  # noqa: ARG002
        prompt: str,
        max_new_tokens: int,  # noqa: ARG002
    ) -> Answers:
        """Say who is asked."""
        return {name: f"{name} was asked: {prompt}" for name in ModelName}
