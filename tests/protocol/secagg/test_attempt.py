"""An attempt's terms and roster: what is refused, and that its context stands for all of it."""

import re

import pytest
from pydantic import BaseModel, ValidationError

from bench.exchange import Member, agree, attempt_terms
from shared.errors import AttemptRefused, KeyInvalid, SignatureInvalid
from shared.protocol.digests import digest_of
from shared.protocol.identity import to_text
from shared.protocol.secagg.attempt import (
    Advert,
    AnnouncedKeys,
    AttemptTerms,
    KeysOfAttempt,
    Roster,
    fewest_parties,
    require_advert,
    require_dealers,
    require_roster,
    require_survivors,
    require_terms,
    threshold_of,
)
from shared.protocol.secagg.coding import Coding
from shared.protocol.secagg.member import announce
from shared.protocol.terms import LARGEST_GROUP, CohortTerms

NAMES = ("agent-1", "agent-2", "agent-3", "agent-4")
TERMS = attempt_terms(4, 3)
MEMBERS = [Member(name) for name in NAMES]
ROSTER = agree(TERMS, MEMBERS, ())


OTHERS = {
    re.compile(r"sha256:.*"): digest_of(b"other"),
    re.compile(r"ed25519:.*"): Member("other").identity.public,
    re.compile(r"[A-Za-z0-9_-]{86}"): Member("other").identity.sign("attempt-keys", TERMS),
    re.compile(r"[A-Za-z0-9_-]{43}"): to_text(bytes([7] * 32)),
    re.compile(r"updates"): "counts",
    re.compile(r"[a-z0-9-]+"): "other",
}


def changed(value: float | str) -> float | str:
    """Return another value of the same kind, which a field of that kind takes."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return next(other for form, other in OTHERS.items() if form.fullmatch(value))
    return value + 1


def with_change(document: BaseModel, field: str) -> BaseModel:
    """Return a document that differs in one field."""
    return document.model_copy(update={field: changed(getattr(document, field))})


def roster_of(*adverts: Advert, terms: AttemptTerms = TERMS) -> Roster:
    """Return a roster that the coordinator might show."""
    return Roster(terms=terms, adverts=adverts)


@pytest.mark.parametrize("field", AttemptTerms.model_fields)
def test_the_context_changes_with_every_term(field: str) -> None:
    """Two members who are shown different terms make masks that do not cancel."""
    other = AttemptTerms.model_validate(with_change(TERMS, field).model_dump())
    assert roster_of(*ROSTER.adverts, terms=other).context != ROSTER.context


def test_terms_say_how_updates_are_coded() -> None:
    """With the clip, for as many parties as the run may have."""
    assert TERMS.coding == Coding(TERMS.clip_norm, TERMS.most_parties, TERMS.weighted)


@pytest.mark.parametrize("place", range(len(NAMES)))
@pytest.mark.parametrize("field", [*AnnouncedKeys.model_fields, "signature"])
def test_the_context_changes_with_every_field_of_every_member(field: str, place: int) -> None:
    """And with who the members are."""
    advert = ROSTER.adverts[place]
    if field == "signature":
        other = with_change(advert, field)
    else:
        other = advert.model_copy(update={"keys": with_change(advert.keys, field)})
    adverts = list(ROSTER.adverts)
    adverts[place] = Advert.model_validate(other.model_dump())
    assert roster_of(*adverts).context != ROSTER.context
    assert roster_of(*(each for each in ROSTER.adverts if each is not advert)).context != ROSTER.context


def test_the_context_is_that_of_the_content() -> None:
    """The same roster read from its text has the same context, of 32 bytes."""
    read = Roster.model_validate_json(ROSTER.model_dump_json())
    assert read.context == ROSTER.context
    assert len(read.context) == 32
    assert read.holders == {name: holder for holder, name in enumerate(NAMES, 1)}


@pytest.mark.parametrize("members", range(3, 200))
def test_the_threshold_is_above_two_thirds(members: int) -> None:
    """So that two sets of that size have more than a third in common: more than may be hostile."""
    threshold = threshold_of(members)
    assert 3 * threshold > 2 * members
    assert threshold <= members
    assert 3 * (2 * threshold - members) > members


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"members": 3, "most_parties": 4, "threshold": 4}, "threshold of 4"),
        ({"members": 5, "threshold": 4}, "5 members, and its run allows 3 to 4"),
        ({"fewest_parties": 5, "most_parties": 6}, "4 members, and its run allows 5 to 6"),
        ({"threshold": 2}, "threshold of 2, and with 4 members it must be 3"),
        ({"threshold": 1}, "threshold of 1"),
        ({"threshold": 5}, "threshold of 5"),
    ],
)
def test_terms_that_cannot_keep_a_secret_are_refused(change: dict[str, object], why: str) -> None:
    """Too many for their numbers to be added, a threshold that is too low, or one that nobody can reach."""
    with pytest.raises(AttemptRefused, match=why):
        require_terms(TERMS.model_copy(update=change))


@pytest.mark.parametrize("threshold", [3, 4])
def test_a_higher_threshold_may_be_asked_for(threshold: int) -> None:
    """It protects better, and survives fewer losses."""
    require_terms(TERMS.model_copy(update={"threshold": threshold}))


@pytest.mark.parametrize("field", ["members", "fewest_parties", "most_parties"])
def test_two_are_no_cohort(field: str) -> None:
    """Each would know the other's update from the sum."""
    with pytest.raises(ValidationError, match=field):
        AttemptTerms.model_validate({**TERMS.model_dump(), field: 2})
    with pytest.raises(AttemptRefused, match="2 members"):
        require_terms(TERMS.model_copy(update={"members": 2}))


@pytest.mark.parametrize(
    ("least", "most", "fewest"),
    [
        (3, 3, 3),
        (50, LARGEST_GROUP, 50),
        (LARGEST_GROUP, LARGEST_GROUP, LARGEST_GROUP),
        (3, LARGEST_GROUP + 1, 3),
        (50, LARGEST_GROUP + 1, 43),
        (1000, 1000, 43),
    ],
)
def test_as_many_are_in_an_attempt_as_the_run_wants_in_a_round(least: int, most: int, fewest: int) -> None:
    """Where the cohort may be split, a group may be as small as half of what one can have, and lose a third of it."""
    cohort = CohortTerms(min_count=least, max_count=most, min_seconds=1, max_seconds=2)
    assert fewest_parties(cohort) == fewest


def test_no_group_of_a_split_cohort_is_below_what_its_agents_want() -> None:
    """Groups are as even as can be: each survives as many losses as any attempt of its size."""
    for agents in range(LARGEST_GROUP + 1, 10 * LARGEST_GROUP):
        smallest = agents // -(-agents // LARGEST_GROUP)
        cohort = CohortTerms(min_count=agents, max_count=agents, min_seconds=1, max_seconds=2)
        assert threshold_of(smallest) >= fewest_parties(cohort)


def test_fewer_than_the_run_wants_are_refused_at_each_stage() -> None:
    """Four are; a threshold of three would be content with three."""
    terms = TERMS.model_copy(update={"fewest_parties": 4})
    roster = agree(terms, MEMBERS, ())
    with pytest.raises(AttemptRefused, match="3 members, and its run allows 4 to 4"):
        require_terms(terms.model_copy(update={"members": 3}))
    with pytest.raises(AttemptRefused, match="names 3 members, and 4 to 4 different ones"):
        require_roster(roster_of(*roster.adverts[1:], terms=terms))
    with pytest.raises(AttemptRefused, match="beside agent-1 itself they must be 3 or more"):
        require_dealers(roster, NAMES[1:3], me="agent-1")
    with pytest.raises(AttemptRefused, match="they must be 4 or more"):
        require_survivors(roster, NAMES[:3], dealers=NAMES, me="agent-1")
    assert require_dealers(roster, NAMES[1:], me="agent-1") == NAMES
    assert require_survivors(roster, NAMES, dealers=NAMES, me="agent-1") == NAMES


def test_a_roster_of_all_or_of_a_threshold_is_taken() -> None:
    """Who has not announced keys is left out."""
    require_roster(ROSTER)
    require_roster(roster_of(*ROSTER.adverts[1:]))
    for advert in ROSTER.adverts:
        require_advert(TERMS, advert)


@pytest.mark.parametrize(
    "places",
    [(0, 1), (), (3, 2, 1, 0), (0, 1, 2, 2), (0, 1, 2, 3, 4)],
    ids=["below the threshold", "nobody", "out of order", "twice the same", "more than were asked"],
)
def test_a_roster_of_others_than_the_asked_is_refused(places: tuple[int, ...]) -> None:
    """The shares' numbers are the places in it, and the threshold is one for so many members."""
    another = Member("agent-5")
    adverts = (*ROSTER.adverts, announce(TERMS, another.name, another.identity, another.secrets))
    with pytest.raises(AttemptRefused, match="the roster of attempt 1 of round 1 of run bench names"):
        require_roster(roster_of(*(adverts[place] for place in places)))


@pytest.mark.parametrize("field", ["identity", "encryption_key", "mask_key", "commitment"])
def test_two_members_with_the_same_key_are_refused(field: str) -> None:
    """One may stand in for the other, even if both have signed."""
    first, second, *others = ROSTER.adverts
    keys = second.keys.model_copy(update={field: getattr(first.keys, field)})
    with pytest.raises(AttemptRefused, match=f"the same {field}"):
        require_roster(roster_of(first, second.model_copy(update={"keys": keys}), *others))


@pytest.mark.parametrize("field", [name for name in AnnouncedKeys.model_fields if name != "agent"])
def test_keys_that_their_member_has_not_signed_are_refused(field: str) -> None:
    """Whoever hands them on cannot change one of them."""
    first, *others = ROSTER.adverts
    forged = first.model_copy(update={"keys": with_change(first.keys, field)})
    with pytest.raises(SignatureInvalid, match="the keys of agent-1 for attempt 1"):
        require_roster(roster_of(forged, *others))
    with pytest.raises(SignatureInvalid):
        require_advert(TERMS, forged)


@pytest.mark.parametrize("field", AttemptTerms.model_fields)
def test_keys_are_signed_for_one_attempt(field: str) -> None:
    """Keys of another attempt, or for other terms, are none of this one."""
    with pytest.raises(SignatureInvalid):
        require_advert(with_change(TERMS, field), ROSTER.adverts[0])  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["encryption_key", "mask_key"])
def test_a_signed_key_that_nobody_can_agree_with_is_refused(field: str) -> None:
    """Its own member has made it so, and every other member would have to give up."""
    keys = ROSTER.adverts[0].keys.model_copy(update={field: to_text(bytes(32))})
    signature = MEMBERS[0].identity.sign("attempt-keys", KeysOfAttempt(terms=TERMS, keys=keys))
    with pytest.raises(KeyInvalid):
        require_advert(TERMS, Advert(keys=keys, signature=signature))


def test_survivors_are_taken_in_the_order_of_their_names() -> None:
    """All of them sign the same text."""
    taken = require_survivors(ROSTER, ["agent-4", "agent-1", "agent-2"], dealers=NAMES, me="agent-1")
    assert taken == ("agent-1", "agent-2", "agent-4")


@pytest.mark.parametrize(
    ("survivors", "dealers", "me"),
    [
        (NAMES[:2], NAMES, "agent-1"),
        ((), NAMES, "agent-1"),
        (NAMES[1:], NAMES, "agent-1"),
        (NAMES, NAMES[:3], "agent-1"),
        ((*NAMES, "agent-5"), NAMES, "agent-1"),
    ],
    ids=["below the threshold", "nobody", "without me", "one that has dealt no shares", "one that is no member"],
)
def test_survivors_whose_sum_could_tell_something_are_refused(
    survivors: tuple[str, ...], dealers: tuple[str, ...], me: str
) -> None:
    """A sum of too few, or of some whose masks this member has not made."""
    with pytest.raises(AttemptRefused, match="the survivors of attempt 1 of round 1 of run bench"):
        require_survivors(ROSTER, survivors, dealers=dealers, me=me)
