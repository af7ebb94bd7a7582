"""A whole attempt of secure aggregation in memory: the protocol's own functions, no wire, no store and no clock."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from shared.protocol.digests import digest_of
from shared.protocol.identity import IdentityKey
from shared.protocol.secagg.attempt import (
    AttemptTerms,
    Roster,
    require_dealers,
    require_roster,
    require_survivors,
    require_terms,
    threshold_of,
)
from shared.protocol.secagg.masks import Ring
from shared.protocol.secagg.member import (
    announce,
    deal,
    mask,
    open_shares,
    require_consistent,
    shares_to_release,
    sign_survivors,
)
from shared.protocol.secagg.sealing import AttemptSecrets, Shares
from shared.protocol.secagg.unmasking import Masks, Released, masks_left, remove
from shared.protocol.terms import SMALLEST_COHORT

NOTHING = digest_of(b"")


@dataclass(frozen=True)
class Lost:
    """Who falls silent before which stage's message."""

    keys: Collection[str] = ()
    shares: Collection[str] = ()
    masked: Collection[str] = ()
    consistency: Collection[str] = ()
    unmasking: Collection[str] = ()


@dataclass
class Member:
    """One member: its identity, its secrets, and the shares that it holds."""

    name: str
    identity: IdentityKey = field(default_factory=IdentityKey.generate)
    secrets: AttemptSecrets = field(default_factory=AttemptSecrets.generate)
    shares: dict[str, Shares] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What came of an attempt: the sum of the survivors' vectors, and what led to it."""

    total: Ring
    roster: Roster
    survivors: tuple[str, ...]
    masked: Mapping[str, Ring]
    left: Masks


def attempt_terms(members: int, parameters: int, *, most_parties: int | None = None) -> AttemptTerms:
    """Return the terms of an attempt of a run that there is nowhere."""
    return AttemptTerms(
        federation="bench",
        run_id="bench",
        round=1,
        attempt=1,
        group=0,
        content="updates",
        manifest=NOTHING,
        base_model=NOTHING,
        adapter=NOTHING,
        layout=NOTHING,
        parameters=parameters,
        clip_norm=1.0,
        fewest_parties=SMALLEST_COHORT,
        most_parties=most_parties or members,
        weighted=False,
        members=members,
        threshold=threshold_of(members),
    )


def exchange(vectors: Mapping[str, Ring], lost: Lost = Lost()) -> Outcome:
    """Add up vectors, of which some fall silent on the way, as the coordinator and its agents would."""
    terms = attempt_terms(len(vectors), next(iter(vectors.values())).size)
    members = {name: Member(name) for name in sorted(vectors)}
    roster = agree(terms, members.values(), lost.keys)
    dealt = {name: deal_from(roster, members[name]) for name in roster.holders if name not in lost.shares}
    dealers = tuple(dealt)
    for name in dealers:
        sealed = {dealer: shares[name] for dealer, shares in dealt.items() if dealer != name}
        require_dealers(roster, sealed, me=name)
        shares, unreadable = open_shares(roster, name, members[name].secrets, sealed)
        members[name].shares |= shares
        if unreadable:
            raise RuntimeError(f"{name} cannot read the shares of {unreadable}")
    masked = {name: masked_vector(vectors[name], roster, members[name], dealers) for name in dealers}
    masked = {name: vector for name, vector in masked.items() if name not in lost.masked}
    survivors = tuple(masked)
    signatures = {
        name: sign_survivors(
            roster, members[name].identity, require_survivors(roster, survivors, dealers=dealers, me=name)
        )
        for name in survivors
        if name not in lost.consistency
    }
    released = {}
    for name in signatures.keys() - set(lost.unmasking):
        require_consistent(roster, survivors, signatures)
        released[name] = Released(*shares_to_release(members[name].shares, survivors=survivors, dealers=dealers))
    left = masks_left(roster, dealt=dealt, survivors=survivors, released=released)
    total: Ring = np.zeros(terms.parameters, dtype=np.uint32)
    for vector in masked.values():
        total += vector
    remove(left.masks, total)
    return Outcome(total, roster, survivors, masked, left)


def agree(terms: AttemptTerms, members: Collection[Member], silent: Collection[str]) -> Roster:
    """Return the roster of those who announce their keys, checked as each of them checks it."""
    require_terms(terms)
    adverts = [announce(terms, each.name, each.identity, each.secrets) for each in members if each.name not in silent]
    roster = Roster(terms=terms, adverts=tuple(adverts))
    require_roster(roster)
    return roster


def deal_from(roster: Roster, member: Member) -> dict[str, str]:
    """Return a member's sealed shares, and give it its own."""
    sealed, own = deal(roster, member.name, member.secrets)
    member.shares[member.name] = own
    return sealed


def masked_vector(vector: Ring, roster: Roster, member: Member, dealers: Collection[str]) -> Ring:
    """Return a masked copy of a member's vector."""
    copy = vector.copy()
    mask(copy, roster, member.name, member.secrets, dealers=dealers)
    return copy
