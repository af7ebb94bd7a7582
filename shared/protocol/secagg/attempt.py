"""What an attempt is: its terms, the keys that its members announce, and the context that binds all of it.

An attempt is one masked exchange among the ready agents of a round (Bonawitz et al. 2017, with an active adversary).
Its context is a hash of everything that its members were shown. It salts every key that they derive, so that members
who were shown different things make masks that do not cancel: nobody can read a sum that they did not agree on.
"""

import hashlib
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, Field, StringConstraints

from shared.errors import AttemptRefused
from shared.protocol.codec import canonical_header
from shared.protocol.digests import Digest, digest_of
from shared.protocol.identity import PublicKey, Signature, Signed, canonical_json, require_signatures
from shared.protocol.names import PrincipalName, RoundNumber, RunId
from shared.protocol.secagg.coding import Coding
from shared.protocol.secagg.sealing import require_agreeable
from shared.protocol.tensors import Layout
from shared.protocol.terms import FROZEN, LARGEST_GROUP, SMALLEST_COHORT, CohortTerms

# 32 bytes as they travel: base64 for URLs, without padding.
Bytes32: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{43}$")]
AttemptNumber: TypeAlias = Annotated[int, Field(ge=1, le=1_000_000)]
Content: TypeAlias = Literal["updates", "counts"]


def threshold_of(members: int) -> int:
    """Return how many members can undo a mask: more than two thirds, so that less than a third may be hostile."""
    return 2 * members // 3 + 1


def fewest_parties(cohort: CohortTerms) -> int:
    """Return how many must be in an attempt, and in its sum, by the terms of a run.

    Of a cohort that may be split, the smallest group has half of ``LARGEST_GROUP`` and its sum the threshold of that.
    """
    if cohort.max_count <= LARGEST_GROUP:
        return cohort.min_count
    return min(cohort.min_count, threshold_of(LARGEST_GROUP // 2))


def layout_digest(layout: Layout) -> str:
    """Return the digest of a layout: of the header that all blobs of it begin with."""
    return digest_of(canonical_header(layout))


class AttemptTerms(BaseModel):
    """What is known of an attempt when it opens; ``members`` is how many agents are asked for keys.

    ``fewest_parties`` and ``most_parties`` are what the run allows: how many may be in an attempt and in its sum.
    ``content`` is updates, or the counts by which updates will be weighted; ``total_count`` is what these added up to.
    """

    federation: PrincipalName
    run_id: RunId
    round: RoundNumber
    attempt: AttemptNumber
    group: Annotated[int, Field(ge=0)]
    content: Content
    manifest: Digest
    base_model: Digest
    adapter: Digest
    layout: Digest
    parameters: Annotated[int, Field(ge=0)]
    clip_norm: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    fewest_parties: Annotated[int, Field(ge=SMALLEST_COHORT, le=LARGEST_GROUP)]
    most_parties: Annotated[int, Field(ge=SMALLEST_COHORT, le=LARGEST_GROUP)]
    weighted: bool
    total_count: Annotated[int, Field(ge=0)] = 0
    members: Annotated[int, Field(ge=SMALLEST_COHORT)]
    threshold: Annotated[int, Field(ge=1)]
    model_config = FROZEN

    @property
    def coding(self) -> Coding:
        """How updates become integers."""
        return Coding(self.clip_norm, self.most_parties, self.weighted)

    @property
    def smallest_sum(self) -> int:
        """How many vectors there must be in its sum: so many can unmask it, and the run wants no fewer in it."""
        return max(self.threshold, self.fewest_parties)

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"attempt {self.attempt} of round {self.round} of run {self.run_id}"


class AnnouncedKeys(BaseModel):
    """A member's keys of one attempt: to seal shares for it, to agree on masks, and a commitment to its own mask."""

    agent: PrincipalName
    identity: PublicKey
    encryption_key: Bytes32
    mask_key: Bytes32
    commitment: Bytes32
    model_config = FROZEN


class KeysOfAttempt(BaseModel):
    """What a member signs at the first stage."""

    terms: AttemptTerms
    keys: AnnouncedKeys
    model_config = FROZEN


class Advert(BaseModel):
    """A member's keys with its signature; the first message of an attempt."""

    keys: AnnouncedKeys
    signature: Signature
    model_config = FROZEN


class Roster(BaseModel):
    """The members of an attempt in the order of their names, which is that of their shares: the first holds f(1)."""

    terms: AttemptTerms
    adverts: tuple[Advert, ...]
    model_config = FROZEN

    @cached_property
    def keys(self) -> Mapping[str, AnnouncedKeys]:
        """Each member's keys."""
        return {advert.keys.agent: advert.keys for advert in self.adverts}

    @cached_property
    def holders(self) -> Mapping[str, int]:
        """Each member's number as a holder of shares."""
        return {advert.keys.agent: place for place, advert in enumerate(self.adverts, 1)}

    @cached_property
    def context(self) -> bytes:
        """The 32 bytes that stand for everything above."""
        return hashlib.sha256(b"fedcollm-attempt-v1\n" + canonical_json(self)).digest()


class Survivors(BaseModel):
    """Whose masked vectors the coordinator has, as one member was told; what it signs before anything is unmasked."""

    context: Bytes32
    survivors: tuple[PrincipalName, ...]
    model_config = FROZEN


def require_terms(terms: AttemptTerms) -> None:
    """Raise AttemptRefused unless a cohort of this size and threshold can keep a secret."""
    if not terms.fewest_parties <= terms.members <= terms.most_parties:
        raise AttemptRefused(
            f"{terms.label} has {terms.members} members, and its run allows {terms.fewest_parties} to "
            f"{terms.most_parties}"
        )
    if not threshold_of(terms.members) <= terms.threshold <= terms.members:
        raise AttemptRefused(
            f"{terms.label} has a threshold of {terms.threshold}, and with {terms.members} members it must be "
            f"{threshold_of(terms.members)} or more: a coordinator could show two parts of them two stories"
        )


def require_roster(roster: Roster) -> None:
    """Raise unless these are distinct members with distinct, signed keys, as many as a sum must have or more.

    Who of them is certified, ``membership`` says.

    Raises:
        AttemptRefused: they are too few, too many, out of order or not distinct.
        SignatureInvalid: a member's keys are not signed by its own identity for this attempt.
    """
    terms, names = roster.terms, [advert.keys.agent for advert in roster.adverts]
    if names != sorted(set(names)) or not terms.smallest_sum <= len(names) <= terms.members:
        raise AttemptRefused(
            f"the roster of {terms.label} names {len(names)} members, and {terms.smallest_sum} to {terms.members} "
            "different ones in the order of their names are what it must have"
        )
    for field in ("identity", "encryption_key", "mask_key", "commitment"):
        if len({getattr(keys, field) for keys in roster.keys.values()}) < len(names):
            raise AttemptRefused(f"two members of {terms.label} have the same {field}: one may stand in for another")
    require_signatures("attempt-keys", [_signed(terms, advert) for advert in roster.adverts])


def require_advert(terms: AttemptTerms, advert: Advert) -> None:
    """Raise unless the keys are signed and can be used: one member's bad key would stop all the others.

    Raises:
        SignatureInvalid: they are not signed by the identity that they name, for this attempt.
        KeyInvalid: one of them is no key to agree with.
    """
    require_signatures("attempt-keys", [_signed(terms, advert)])
    for public in (advert.keys.encryption_key, advert.keys.mask_key):
        require_agreeable(public)


def _signed(terms: AttemptTerms, advert: Advert) -> Signed:
    what = f"the keys of {advert.keys.agent} for {terms.label}"
    return Signed(advert.keys.identity, KeysOfAttempt(terms=terms, keys=advert.keys), advert.signature, what)


def require_dealers(roster: Roster, others: Iterable[str], *, me: str) -> tuple[str, ...]:
    """Return the members who have dealt shares, this one among them, if it may mask its vector towards them.

    Raises:
        AttemptRefused: with this member they are fewer than a sum must have, or not all are of the roster.
    """
    names, least = set(others), roster.terms.smallest_sum
    if not names <= roster.keys.keys() - {me} or len(names) + 1 < least:
        raise AttemptRefused(
            f"the shares of {roster.terms.label} are said to be dealt by {', '.join(sorted(names)) or 'nobody'}: "
            f"beside {me} itself they must be {least - 1} or more of the other members"
        )
    return tuple(sorted({*names, me}))


def require_survivors(roster: Roster, survivors: Iterable[str], *, dealers: Iterable[str], me: str) -> tuple[str, ...]:
    """Return the survivors in the order of their names, if this member may sign and unmask their sum.

    Raises:
        AttemptRefused: they are fewer than a sum must have, or not all among those whose shares are dealt, or without
            this member, whose vector is there.
    """
    names, terms = tuple(sorted(set(survivors))), roster.terms
    if len(names) < terms.smallest_sum or me not in names or not set(names) <= set(dealers):
        raise AttemptRefused(
            f"the survivors of {terms.label} are said to be {', '.join(names) or 'nobody'}: they must be "
            f"{terms.smallest_sum} or more of the members who have dealt shares, and {me} among them"
        )
    return names
