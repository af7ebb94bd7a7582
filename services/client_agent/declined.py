"""Which runs an agent declines, and what it says of why: nothing that depends on its data or on its own policy.

The operator chooses what runs ask for. If a refusal said that there are too few examples, or which rule of the policy
was broken, a row of runs would find out how many there are, and how strict it is.
"""

from collections.abc import Iterator
from contextlib import contextmanager

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
    """The runs that come last, newest refusal last, each with the word that the coordinator is told."""

    def __init__(self) -> None:
        self.told: dict[str, str] = {}

    @contextmanager
    def unless_done(self, run_id: str, *, holding: bool = False) -> Iterator[None]:
        """Do something for a run, or hold its adapter (``holding``); where that is refused, the run is declined.

        It is tried again when nobody else wants this agent: what was wrong may have been put right meanwhile.
        """
        try:
            yield
        except REFUSALS as error:
            self.told.pop(run_id, None)
            self.told[run_id] = _word(error, holding=holding)
            if len(self.told) > MOST_DECLINED:
                del self.told[next(iter(self.told))]
            raise
        self.told.pop(run_id, None)


def _word(error: FedCoLLMError, *, holding: bool) -> str:
    if isinstance(error, TOLD):
        return error.code
    return UNUSABLE if holding else UNWILLING
