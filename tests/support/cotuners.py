"""Co-tuners without models that keep the rules of the real one, and whose effect can be told from the outside."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from bench.no_op import SCORE, NoOpCoTuner
from services.coordinator.worker.cotuner import Cotuned, PreparedPair
from shared.protocol.codec import decode, encode
from shared.protocol.messages import RoundScores
from shared.protocol.questions import Answers
from shared.protocol.tensors import Layout
from shared.protocol.terms import RunTerms
from shared.protocol.work import PreparedDigests


class AddingCoTuner:
    """Adds one to theta and to omega, and scores the SLM by a list of losses (1.0 when that is at its end)."""

    def __init__(self, slm_layout: Layout, llm_layout: Layout, losses: Iterable[float] = ()) -> None:
        self._slm_layout = slm_layout
        self._llm_layout = llm_layout
        self._losses = iter(losses)
        self.cotunings = 0
        self._no_op = NoOpCoTuner(slm_layout, llm_layout)

    def prepare(
        self, terms: RunTerms, *, slm_into: Path, llm_into: Path, require_lease: Callable[[], None]
    ) -> PreparedPair:
        """Write adapters of zeros."""
        return self._no_op.prepare(terms, slm_into=slm_into, llm_into=llm_into, require_lease=require_lease)

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
        """Add one."""
        self.cotunings += 1
        for layout, source, into in ((self._slm_layout, slm, slm_into), (self._llm_layout, llm, llm_into)):
            tensors = decode(source.read_bytes(), layout)
            into.write_bytes(encode({name: values + np.float32(1) for name, values in tensors.items()}))
        return Cotuned(steps=1, losses={"slm_loss": 1.0})

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
        """Read the next loss from the list."""
        scored = SCORE.model_copy(update={"loss": next(self._losses, SCORE.loss)})
        return RoundScores(slm_aggregated=SCORE, slm=scored, llm=SCORE)

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
        """Say who is asked."""
        return self._no_op.ask(terms, prepared=prepared, slm=slm, llm=llm, prompt=prompt, max_new_tokens=max_new_tokens)
