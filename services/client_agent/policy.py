"""What this agent is willing to do, whatever a coordinator asks; decided here, and by nobody else.

A refusal names its rule, as it is called in the settings.
"""

from typing import Annotated

from pydantic import BaseModel, Field

from shared.errors import PolicyRefused
from shared.protocol.digests import Digest
from shared.protocol.manifest import Manifest
from shared.protocol.secagg.attempt import AttemptTerms, fewest_parties, threshold_of
from shared.protocol.terms import FROZEN, SMALLEST_COHORT


class Policy(BaseModel):
    """The rules of one organisation."""

    smallest_cohort: Annotated[
        int,
        Field(
            ge=SMALLEST_COHORT,
            description="This agent's update goes into sums of at least so many, itself included, or nowhere.",
        ),
    ] = SMALLEST_COHORT
    smallest_threshold: Annotated[
        int, Field(ge=1, description="So many agents must be needed to undo a mask; more than two thirds always are.")
    ] = SMALLEST_COHORT
    base_models: Annotated[
        tuple[Digest, ...] | None,
        Field(
            description="Digests of the base models that may be trained; left out, the one that is installed here.",
            examples=[[f"sha256:{'0' * 64}"]],
        ),
    ] = None
    largest_update_norm: Annotated[
        float | None,
        Field(
            gt=0,
            allow_inf_nan=False,
            examples=[50.0],
            description="The most that an update may change, as an L2 norm: what a run clips to may not be above it. "
            "Updates that the coordinator can read (allow_plaintext) are not clipped, and this says nothing of them.",
        ),
    ] = None
    most_rounds_a_day: Annotated[
        int | None, Field(ge=0, description="In so many rounds this agent takes part within 24 hours.", examples=[10])
    ] = None
    largest_adapter_bytes: Annotated[
        int,
        Field(gt=0, description="The most that is fetched of one adapter, which a run's manifest gives the size of."),
    ] = 1 << 32
    allow_plaintext: Annotated[
        bool, Field(description="Send updates that the coordinator can read, in runs with PlaintextAggregation.")
    ] = False
    allow_shared_aggregate: Annotated[
        bool,
        Field(
            description="Take part in runs whose members may fetch the mean of their updates (share_aggregate): each "
            "of them then learns the sum of the others' updates, this agent's among them."
        ),
    ] = False
    model_config = FROZEN

    def require_run(self, manifest: Manifest) -> None:
        """Raise PolicyRefused unless this agent may train for a run."""
        label = f"run {manifest.run_id}"
        if self.base_models is not None and manifest.slm_digest not in self.base_models:
            raise PolicyRefused(f"policy.base_models does not name {manifest.slm_digest}, the base model of {label}")
        if manifest.share_aggregate and not self.allow_shared_aggregate:
            raise PolicyRefused(
                f"policy.allow_shared_aggregate is false, and {label} has share_aggregate: each of its members learns "
                "the sum of the others' updates"
            )
        if manifest.aggregation == "PlaintextAggregation":
            if not self.allow_plaintext:
                raise PolicyRefused(
                    f"policy.allow_plaintext is false, and {label} has PlaintextAggregation: its coordinator could "
                    "read this agent's updates"
                )
            return
        if self.largest_update_norm is not None and manifest.masking.clip_norm > self.largest_update_norm:
            raise PolicyRefused(
                f"policy.largest_update_norm is {self.largest_update_norm:g}, and {label} clips updates to "
                f"{manifest.masking.clip_norm:g}"
            )
        fewest = fewest_parties(manifest.cohort)
        if fewest < self.smallest_cohort:
            raise PolicyRefused(
                f"policy.smallest_cohort is {self.smallest_cohort}, and {label} has sums of as few as {fewest}"
            )
        if threshold_of(fewest) < self.smallest_threshold:
            raise PolicyRefused(
                f"policy.smallest_threshold is {self.smallest_threshold}, and in {label} as few as "
                f"{threshold_of(fewest)} can undo a mask"
            )

    def require_adapter(self, size: int, manifest: Manifest) -> None:
        """Raise PolicyRefused if an adapter of a run has more bytes than this machine makes room for."""
        if size > self.largest_adapter_bytes:
            raise PolicyRefused(
                f"policy.largest_adapter_bytes is {self.largest_adapter_bytes}, and an adapter of run "
                f"{manifest.run_id} has {size}"
            )

    def require_rounds(self, within_a_day: int) -> None:
        """Raise PolicyRefused if this agent has taken part in as many rounds of the last 24 hours as it may."""
        if self.most_rounds_a_day is not None and within_a_day >= self.most_rounds_a_day:
            raise PolicyRefused(
                f"policy.most_rounds_a_day is {self.most_rounds_a_day}, and this agent has taken part in "
                f"{within_a_day} within 24 hours: the next may wait"
            )

    def require_attempt(self, terms: AttemptTerms) -> None:
        """Raise PolicyRefused unless this agent may take part in an attempt of this size and threshold."""
        self.require_cohort(terms.members, terms)
        if terms.threshold < self.smallest_threshold:
            raise PolicyRefused(
                f"policy.smallest_threshold is {self.smallest_threshold}, and {terms.label} has {terms.threshold}"
            )

    def require_cohort(self, count: int, terms: AttemptTerms) -> None:
        """Raise PolicyRefused if ``count``, at whatever stage, is less than this agent wants to hide among."""
        if count < self.smallest_cohort:
            raise PolicyRefused(
                f"policy.smallest_cohort is {self.smallest_cohort}, and in {terms.label} there are {count}"
            )
