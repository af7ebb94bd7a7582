"""A coordinator that shows its members different things, or asks for more than it may, gets a refusal or noise."""

from collections.abc import Sequence

import numpy as np
import pytest

from bench.exchange import Member, agree, attempt_terms, deal_from, masked_vector
from shared.errors import AttemptRefused, SignatureInvalid
from shared.protocol.digests import digest_of
from shared.protocol.identity import IdentityKey
from shared.protocol.membership import CERTIFICATE, MembershipCertificate, SignedCertificate, require_member
from shared.protocol.secagg.attempt import Roster, require_dealers, require_roster, require_survivors, require_terms
from shared.protocol.secagg.masks import Mask, Ring, add_masks
from shared.protocol.secagg.member import (
    announce,
    open_shares,
    require_consistent,
    shares_to_release,
    sign_survivors,
)
from shared.protocol.secagg.sealing import own_mask_key

NAMES = ("agent-1", "agent-2", "agent-3", "agent-4")
PARAMETERS = 4_000
TERMS = attempt_terms(len(NAMES), PARAMETERS)


@pytest.fixture
def members() -> list[Member]:
    """Return four members with fresh secrets."""
    return [Member(name) for name in NAMES]


def roster_shown(members: Sequence[Member], **change: object) -> Roster:
    """Return the roster of terms that differ in something; all its keys are signed for it."""
    return agree(TERMS.model_copy(update=change), members, ())


def bits_of(vector: Ring) -> float:
    """Return which part of a vector's bits are ones: a half in noise."""
    return float(np.unpackbits(vector.view(np.uint8)).mean())


def test_another_adapter_shown_to_one_member_makes_noise_of_the_sum(members: list[Member]) -> None:
    """Even if the coordinator had every member's own mask: the pair masks of two contexts do not cancel."""
    rosters = [roster_shown(members)] * 3 + [roster_shown(members, adapter=digest_of(b"another"))]
    total: Ring = np.zeros(PARAMETERS, dtype=np.uint32)
    for roster, member in zip(rosters, members, strict=True):
        total += masked_vector(np.zeros(PARAMETERS, dtype=np.uint32), roster, member, NAMES)
        own = own_mask_key(member.secrets.own_mask, roster.context, member.name)
        add_masks(total, [Mask(own, negative=True)])
    assert abs(bits_of(total) - 0.5) < 5 * 0.5 / np.sqrt(32 * PARAMETERS)


@pytest.mark.parametrize(
    "change",
    [
        {"adapter": digest_of(b"another")},
        {"attempt": 2},
        {"clip_norm": 2.0},
        {"fewest_parties": 4},
        {"manifest": digest_of(b"altered")},
        {"total_count": 100},
    ],
    ids=lambda change: next(iter(change)),
)
def test_who_was_shown_something_else_is_noticed_by_the_others(
    members: list[Member], change: dict[str, object]
) -> None:
    """It cannot read their shares, nor they its own, and its signature over the survivors is none of theirs."""
    one, other = roster_shown(members), roster_shown(members, **change)
    dealt = {member.name: deal_from(one, member) for member in members[:3]}
    dealt["agent-4"] = deal_from(other, members[3])
    shares, unreadable = open_shares(
        one, "agent-1", members[0].secrets, {name: dealt[name]["agent-1"] for name in NAMES[1:]}
    )
    assert unreadable == ("agent-4",)
    assert shares.keys() == {"agent-2", "agent-3"}
    shares, unreadable = open_shares(
        other, "agent-4", members[3].secrets, {name: dealt[name]["agent-4"] for name in NAMES[:3]}
    )
    assert unreadable == NAMES[:3]
    signatures = {
        member.name: sign_survivors(roster, member.identity, NAMES)
        for roster, member in zip([one] * 3 + [other], members, strict=True)
    }
    with pytest.raises(SignatureInvalid, match="what agent-4 was told"):
        require_consistent(one, NAMES, signatures)
    with pytest.raises(SignatureInvalid, match="what agent-1 was told"):
        require_consistent(other, NAMES, signatures)


def test_two_stories_of_the_survivors_are_refused(members: list[Member]) -> None:
    """To half of them agent-4 has survived, to half it has not: no story has enough signatures."""
    roster = roster_shown(members)
    stories = {name: NAMES if name in NAMES[:2] else NAMES[:3] for name in NAMES[:3]}
    signatures = {member.name: sign_survivors(roster, member.identity, stories[member.name]) for member in members[:3]}
    for story in (NAMES, NAMES[:3]):
        told = {name: signature for name, signature in signatures.items() if stories[name] == story}
        with pytest.raises(AttemptRefused, match="3 must have been told the same"):
            require_consistent(roster, story, told)
        with pytest.raises(SignatureInvalid, match="was told of the survivors"):
            require_consistent(roster, story, signatures)


def test_signatures_of_another_attempt_do_not_count(members: list[Member]) -> None:
    """The same survivors of the first attempt were signed for that one."""
    first, second = roster_shown(members), roster_shown(members, attempt=2)
    signatures = {member.name: sign_survivors(first, member.identity, NAMES) for member in members}
    with pytest.raises(SignatureInvalid):
        require_consistent(second, NAMES, signatures)


@pytest.mark.parametrize("field", ["encryption_key", "mask_key", "commitment"])
def test_a_key_in_the_middle_is_refused(members: list[Member], field: str) -> None:
    """The coordinator's own key in place of a member's is not signed by that member."""
    mine = Member("agent-2")
    advert = announce(TERMS, mine.name, mine.identity, mine.secrets)
    first, second, *others = roster_shown(members).adverts
    keys = second.keys.model_copy(update={field: getattr(advert.keys, field)})
    swapped = Roster(terms=TERMS, adverts=(first, second.model_copy(update={"keys": keys}), *others))
    with pytest.raises(SignatureInvalid, match="the keys of agent-2"):
        require_roster(swapped)


def test_a_member_under_a_key_of_the_coordinators_is_no_member(members: list[Member]) -> None:
    """Signed by itself it is consistent, and so is an invented member: the operator's certificate is what it lacks."""
    operator, coordinator = IdentityKey.generate(), IdentityKey.generate()
    invented = Member("agent-2")
    roster = agree(TERMS, [members[0], invented, *members[2:]], ())
    certificate = MembershipCertificate(
        federation=TERMS.federation, name="agent-2", key=roster.keys["agent-2"].identity, not_after=2**40
    )
    signed = SignedCertificate(certificate=certificate, signature=coordinator.sign(CERTIFICATE, certificate))
    with pytest.raises(SignatureInvalid, match="the membership certificate of agent-2"):
        require_member(signed, operator_key=operator.public, federation=TERMS.federation, now=0)


@pytest.mark.parametrize("threshold", [1, 2])
def test_a_lowered_threshold_is_refused(threshold: int) -> None:
    """With two shares a coordinator and one other could undo everybody's masks."""
    with pytest.raises(AttemptRefused, match="threshold"):
        require_terms(TERMS.model_copy(update={"threshold": threshold}))


def test_a_shrunken_cohort_is_refused_at_each_stage(members: list[Member]) -> None:
    """Terms, roster, dealers and survivors below the threshold, each."""
    with pytest.raises(AttemptRefused, match="2 members"):
        require_terms(TERMS.model_copy(update={"members": 2, "threshold": 2}))
    roster = roster_shown(members)
    with pytest.raises(AttemptRefused, match="the roster"):
        require_roster(Roster(terms=TERMS, adverts=roster.adverts[:2]))
    with pytest.raises(AttemptRefused, match="the shares"):
        require_dealers(roster, NAMES[1:2], me="agent-1")
    with pytest.raises(AttemptRefused, match="the survivors"):
        require_survivors(roster, NAMES[:2], dealers=NAMES, me="agent-1")


def test_a_vector_that_came_too_late_stays_masked(members: list[Member]) -> None:
    """Its member counts as lost, so its pair masks can be undone; its own mask cannot, and is all that it needs."""
    roster = roster_shown(members)
    for member in members:
        deal_from(roster, member)
    late: Ring = np.zeros(PARAMETERS, dtype=np.uint32)
    late = masked_vector(late, roster, members[3], NAMES)
    own_masks, mask_secrets = shares_to_release(
        dict.fromkeys(NAMES, members[0].shares["agent-1"]), survivors=NAMES[:3], dealers=NAMES
    )
    assert "agent-4" in mask_secrets
    assert "agent-4" not in own_masks
    pairs = masked_vector(np.zeros(PARAMETERS, dtype=np.uint32), roster, members[3], NAMES)
    add_masks(pairs, [Mask(own_mask_key(members[3].secrets.own_mask, roster.context, "agent-4"), negative=True)])
    assert abs(bits_of(late - pairs) - 0.5) < 5 * 0.5 / np.sqrt(32 * PARAMETERS)
