"""What the worker of a story goes through: a heartbeat in each piece of work, one that fails, a candidate too bad."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.coordinator.worker.cotuner import Cotuned, PreparedPair
from shared.protocol.messages import RoundScores
from shared.protocol.questions import Answers
from shared.protocol.terms import RunTerms
from tests.support.cotuners import AddingCoTuner
from tests.support.federations import LLM_LAYOUT, SLM_LAYOUT


class Heartbeats:
    """Has a worker send one heartbeat in each lease, at once, and tells when it was answered."""

    def __init__(self) -> None:
        self._answered = threading.Event()
        self._sent = False

    async def pause(self, _seconds: float) -> None:
        """Be the worker's pause: the first one of a lease is none, and the second one has no end."""
        if not self._sent:
            self._sent = True
            return
        self._sent = False
        self._answered.set()
        await asyncio.Event().wait()

    def heard(self, require_lease: Callable[[], None]) -> None:
        """Wait until the heartbeat of this lease was answered."""
        while not self._answered.wait(0.01):
            require_lease()
        self._answered.clear()


class QuirkyCoTuner:
    """Adds one to both adapters; what it does only once it remembers on the disk, as it may be killed in between."""

    def __init__(self, folder: Path, heard: Callable[[Callable[[], None]], None]) -> None:
        """``heard`` waits until the lease was renewed."""
        self._adding = AddingCoTuner(SLM_LAYOUT, LLM_LAYOUT)
        self._failed, self._refused = folder / "has-failed", folder / "was-refused"
        self._heard = heard

    def prepare(self, terms: RunTerms, *, require_lease: Callable[[], None], **paths: Path) -> PreparedPair:
        """Write adapters of zeros."""
        self._heard(require_lease)
        return self._adding.prepare(terms, require_lease=require_lease, **paths)

    def cotune(self, terms: RunTerms, *, require_lease: Callable[[], None], **given: Any) -> Cotuned:  # noqa: ANN401
        """Add one, but for the first time, when this machine's disk fails."""
        self._heard(require_lease)
        if not self._failed.exists():
            self._failed.touch()
            raise OSError("the disk of this machine fails, once")
        return self._adding.cotune(terms, require_lease=require_lease, **given)

    def evaluate(
        self,
        terms: RunTerms,
        *,
        slm: Path,
        require_lease: Callable[[], None],
        **given: Any,  # noqa: ANN401 - passed on
    ) -> RoundScores:
        """Score the first candidate of a run that has a gate so that it is refused, however often it is asked for."""
        self._heard(require_lease)
        scores = self._adding.evaluate(terms, slm=slm, require_lease=require_lease, **given)
        if not self._refused.exists():
            self._refused.write_text(slm.name)
        if not terms.gate.enabled or self._refused.read_text() != slm.name:
            return scores
        return scores.model_copy(update={"slm": scores.slm.model_copy(update={"loss": 9.0})})

    def ask(self, terms: RunTerms, **given: Any) -> Answers:  # noqa: ANN401 - passed on
        """Say who is asked."""
        return self._adding.ask(terms, **given)
