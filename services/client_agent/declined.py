"""Which runs an agent declines, and what it says of why: nothing that depends on its data or on its own policy.

Its own organisation sees the whole reason, on the status page and in the log.
The operator chooses what runs ask for. If a refusal said that there are too few examples, or which rule of the policy
was broken, a row of runs would find out how many there are, and how strict it is.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from services.client_agent.status import DeclinedRun
from shared.errors import (
    AttemptRefused,
    BaseModelMismatch,
    CardInvalid,
    CertificateExpired,
    FedCoLLMError,
    FederationMismatch,
    KeyInvalid,
    LoraMismatch,
    LoraTargetMissing,
    ManifestMismatch,
    ManifestUnsigned,
    ModelError,
    PolicyRefused,
    SignatureInvalid,
    TokenizerMismatch,
    TooFewExamples,
)
from shared.protocol.membership import UNUSABLE, UNWILLING
from shared.protocol.messages import MOST_DECLINED

# What follows from the run, and from which models this agent has: whoever made the run may know it.
TOLD = (
    BaseModelMismatch,
    TokenizerMismatch,
    LoraMismatch,
    LoraTargetMissing,
    ManifestUnsigned,
    ManifestMismatch,
    SignatureInvalid,
    CardInvalid,
    CertificateExpired,
    FederationMismatch,
    KeyInvalid,
)
REFUSALS = (*TOLD, ModelError, TooFewExamples, PolicyRefused, AttemptRefused)


class Declined:
    """The runs that come last."""

    def __init__(self, runs: dict[str, DeclinedRun], *, clock: Callable[[], float]) -> None:
        """Keep them in ``runs``, by run, newest refusal last; ``clock`` gives the seconds since 1970."""
        self._runs = runs
        self._clock = clock

    @property
    def told(self) -> dict[str, str]:
        """Of each run the word that the coordinator is told."""
        return {run_id: run.told for run_id, run in self._runs.items()}

    @contextmanager
    def unless_done(self, run_id: str, *, holding: bool = False) -> Iterator[None]:
        """Do something for a run, or hold its adapter (``holding``); where that is refused, the run is declined.

        It is tried again when nobody else wants this agent: what was wrong may have been put right meanwhile.
        """
        try:
            yield
        except REFUSALS as error:
            self._runs.pop(run_id, None)
            self._runs[run_id] = DeclinedRun(
                run_id=run_id,
                code=error.code,
                reason=str(error),
                at=datetime.fromtimestamp(self._clock(), UTC),
                told=_word(error, holding=holding),
            )
            if len(self._runs) > MOST_DECLINED:
                del self._runs[next(iter(self._runs))]
            raise
        self._runs.pop(run_id, None)


def _word(error: FedCoLLMError, *, holding: bool) -> str:
    if isinstance(error, TOLD):
        return error.code
    return UNUSABLE if holding else UNWILLING
