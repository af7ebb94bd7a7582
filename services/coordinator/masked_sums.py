"""From an attempt whose shares are released to the sum of its updates, checked, and to the round's aggregate."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from services.coordinator.blobs import adapter_chunks
from services.coordinator.ports import Blobs, Store
from services.coordinator.records import Attempt, Blob, Round
from services.coordinator.transaction import Transaction
from services.coordinator.unmasking import MaskedGroup, Unmasked, Unmasking
from shared.errors import MeanTooCoarse, SumImplausible
from shared.protocol.attempts import DealtShares, ReleasedShares
from shared.protocol.codec import canonical_header
from shared.protocol.messages import AgentsEvaluation
from shared.protocol.rounds import RoundState
from shared.protocol.secagg.attempt import AttemptTerms
from shared.protocol.secagg.coding import MICRO, SLOTS, Statistics, decode_mean, decode_statistics, l2_norm
from shared.protocol.secagg.unmasking import Released
from shared.protocol.tensors import Layout, parameter_count

# Rounding adds to the norm of a mean; a hundredth of the bound is far more than it can.
NORM_SLACK = 1.01

# What a number of the mean may be wrong by, of the clip norm. Above it is only a weighted mean of n parties that weigh
# less than n/2147 of what was counted (docs/adr/0013).
LARGEST_ERROR = 1e-6


@dataclass(frozen=True)
class ClosedAttempt:
    """An attempt that can be unmasked: its round, its groups, and the survivors' vectors."""

    round: Round
    attempts: Sequence[Attempt]
    vectors: dict[str, Blob]

    @property
    def survivors(self) -> list[str]:
        """Whose updates are in the sum."""
        return [name for attempt in self.attempts for name in attempt.survivors or ()]

    @property
    def parties(self) -> int:
        """How many updates are in the sum."""
        return len(self.survivors)


@dataclass(frozen=True)
class Aggregate:
    """What came of the updates of a round: the aggregate, and what travelled beside it."""

    blob: Blob
    error_bound: float | None
    evaluation: AgentsEvaluation | None


def closed_attempt(tx: Transaction, current: Round) -> ClosedAttempt:
    """Read what the stages of an attempt have left, but for the shares, which grow with the square of a group."""
    attempts = tx.attempts.of(current)
    survivors = [name for attempt in attempts for name in attempt.survivors or ()]
    masked = tx.attempts.messages(current, RoundState.MASKED, survivors)
    return ClosedAttempt(current, attempts, {name: tx.blob(digest) for name, digest in masked.items()})


class MaskedSums:
    """Secure aggregation's part of ``RoundEngine``: everything between the last share and the aggregate."""

    def __init__(self, store: Store, blobs: Blobs, unmasking: Unmasking) -> None:
        self._store = store
        self._blobs = blobs
        self._unmasking = unmasking

    def total(self, closed: ClosedAttempt) -> Unmasked:
        """Return the sum over all groups; shares are read a group at a time, so that memory does not grow with them.

        Raises:
            ShareInvalid: a mask cannot be taken out of it.
            BlobMissing, BlobCorrupt: a masked vector is no longer what was stored.
        """
        for blob in closed.vectors.values():
            self._blobs.require_intact(blob)
        return self._unmasking.total(self._group(attempt, closed) for attempt in closed.attempts)

    @staticmethod
    def count(closed: ClosedAttempt, unmasked: Unmasked) -> int:
        """Return what the members' blinded counts add up to, or raise SumImplausible."""
        statistics = decode_statistics(unmasked.total[-SLOTS:])
        require_plausible(statistics, closed.attempts[0].terms, parties=closed.parties, evaluated=0)
        return statistics.weight

    def aggregate(
        self, closed: ClosedAttempt, unmasked: Unmasked, base: Blob, layout: Layout, evaluated: int
    ) -> Aggregate:
        """Store the adapter of the round with the mean of what its agents have changed added to it.

        ``evaluated`` is on how many examples each agent has evaluated.

        Raises:
            SumImplausible: the sum cannot have come from agents that keep the protocol.
            MeanTooCoarse: a number of the mean may be wrong by more than ``LARGEST_ERROR``.
            BlobMissing, BlobCorrupt: the adapter of the round is no longer what was stored.
        """
        terms = closed.attempts[0].terms
        parties = closed.parties
        statistics = decode_statistics(unmasked.total[-SLOTS:])
        require_plausible(statistics, terms, parties=parties, evaluated=evaluated)
        share = statistics.weight / terms.total_count if terms.weighted else 1.0
        bound = terms.coding.error_bound(parties, share)
        if bound > LARGEST_ERROR * terms.clip_norm:
            raise MeanTooCoarse(
                f"the {parties} agents whose updates came weigh {statistics.weight} of the {terms.total_count} that "
                f"were counted: their mean may be wrong by {bound / terms.clip_norm:.0e} of the clip norm, and "
                f"{LARGEST_ERROR:.0e} is allowed; the next round counts anew"
            )
        mean = decode_mean(unmasked.total[:-SLOTS], terms.coding, parties=parties, total_share=share)
        if (norm := l2_norm(mean)) > terms.clip_norm * NORM_SLACK:
            raise SumImplausible(
                f"the mean of {parties} updates has norm {norm:.3g}, and no mean of updates clipped to "
                f"{terms.clip_norm:g} has: at least one agent does not keep the protocol"
            )
        header, flat = canonical_header(layout), np.empty(parameter_count(layout), dtype=np.float32)
        flat = self._blobs.flat(base, skip=len(header), into=flat) + mean
        blob = self._blobs.put(adapter_chunks(header, flat), size=len(header) + flat.nbytes)
        return Aggregate(blob, bound, _evaluation(statistics))

    def _group(self, attempt: Attempt, closed: ClosedAttempt) -> MaskedGroup:
        assert attempt.roster is not None  # noqa: S101 - our own invariants: its stages have closed
        assert attempt.dealers is not None  # noqa: S101
        assert attempt.survivors is not None  # noqa: S101
        assert attempt.signers is not None  # noqa: S101
        with self._store.read() as tx:
            dealt = tx.attempts.messages(closed.round, RoundState.SHARES, attempt.dealers)
            released = tx.attempts.messages(closed.round, RoundState.UNMASKING, attempt.signers)
        return MaskedGroup(
            roster=attempt.roster,
            dealt={name: DealtShares.model_validate_json(body).sealed for name, body in dealt.items()},
            survivors=attempt.survivors,
            vectors=tuple(self._blobs.path(closed.vectors[name].digest) for name in attempt.survivors),
            released={name: _released(body) for name, body in released.items()},
        )


def require_plausible(statistics: Statistics, terms: AttemptTerms, *, parties: int, evaluated: int) -> None:
    """Raise SumImplausible unless statistics can be sums of what agents count, each on ``evaluated`` examples."""
    examples, loss = parties * evaluated, statistics.loss
    if statistics.total != examples or not 0 <= statistics.correct <= examples or loss < 0 or (loss and not examples):
        raise SumImplausible(
            f"the agents' evaluations add up to {statistics.correct} right answers of {statistics.total} and a loss of "
            f"{loss / MICRO:g}, and {parties} agents evaluate on {examples} examples in all: at least one does not "
            "keep the protocol"
        )
    # Each weighs 1 or more, and no more than it has told for the sum of the counts.
    least = parties if terms.weighted else 0
    most = math.inf if terms.content == "counts" else terms.total_count
    if not least <= statistics.weight <= most:
        raise SumImplausible(
            f"the updates of {parties} agents weigh {statistics.weight} in all, and {least} to {most} is what they can "
            "weigh: at least one agent does not keep the protocol"
        )


def _released(body: str) -> Released:
    shares = ReleasedShares.model_validate_json(body)
    return Released(shares.own_masks, shares.mask_secrets)


def _evaluation(statistics: Statistics) -> AgentsEvaluation | None:
    if not statistics.total:
        return None
    return AgentsEvaluation(
        examples=statistics.total,
        accuracy=statistics.correct / statistics.total,
        loss=statistics.loss / MICRO / statistics.total,
    )
