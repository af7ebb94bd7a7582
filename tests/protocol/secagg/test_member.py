"""A member's side: what it refuses, and that no two of its answers together give its update away."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.exchange import Member, agree, attempt_terms, deal_from
from shared.errors import AttemptRefused, KeyInvalid, SignatureInvalid
from shared.protocol.identity import from_text, to_text
from shared.protocol.secagg.attempt import Roster, require_dealers
from shared.protocol.secagg.member import mask, open_shares, require_consistent, shares_to_release, sign_survivors
from shared.protocol.secagg.sealing import Shares, commitment_to, public_of
from shared.protocol.secagg.shamir import combine

NAMES = ("agent-1", "agent-2", "agent-3", "agent-4")
MEMBERS = {name: Member(name) for name in NAMES}
ROSTER = agree(attempt_terms(4, 3), MEMBERS.values(), ())
DEALT = {name: deal_from(ROSTER, MEMBERS[name]) for name in NAMES}
ME = MEMBERS["agent-1"]
SEALED = {dealer: DEALT[dealer]["agent-1"] for dealer in NAMES[1:]}


def test_keys_are_those_of_the_secrets() -> None:
    """What is announced is the public half of what is kept."""
    keys = ROSTER.keys["agent-1"]
    assert keys.identity == ME.identity.public
    assert keys.encryption_key == public_of(ME.secrets.encryption)
    assert keys.mask_key == public_of(ME.secrets.mask)
    assert keys.commitment == commitment_to(ME.secrets.own_mask)


def test_dealt_shares_give_both_secrets_back() -> None:
    """Each of the others has its own, sealed, and the dealer keeps one of each."""
    held = {1: ME.shares["agent-1"]}
    for holder in NAMES[1:]:
        shares, unreadable = open_shares(
            ROSTER,
            holder,
            MEMBERS[holder].secrets,
            {dealer: DEALT[dealer][holder] for dealer in NAMES if dealer != holder},
        )
        assert not unreadable
        held[ROSTER.holders[holder]] = shares["agent-1"]
    assert DEALT["agent-1"].keys() == set(NAMES[1:])
    for some in ((1, 2, 3), (2, 3, 4)):
        assert combine({holder: held[holder].mask_secret for holder in some}) == ME.secrets.mask
        assert combine({holder: held[holder].own_mask for holder in some}) == ME.secrets.own_mask


def test_what_cannot_be_read_is_told_by_its_dealer() -> None:
    """Garbage, another holder's shares and another dealer's: the others' shares are there all the same."""
    for wrong in ("garbage", DEALT["agent-2"]["agent-3"], DEALT["agent-3"]["agent-1"]):
        shares, unreadable = open_shares(ROSTER, "agent-1", ME.secrets, {**SEALED, "agent-2": wrong})
        assert unreadable == ("agent-2",)
        assert shares.keys() == {"agent-3", "agent-4"}


@pytest.mark.parametrize(
    "dealers",
    [(), ("agent-2",), ("agent-2", "agent-3", "agent-5"), ("agent-1", "agent-2", "agent-3")],
    ids=["nobody", "below the threshold", "one that is no member", "this member itself"],
)
def test_dealers_among_whom_nothing_could_be_hidden_are_refused(dealers: tuple[str, ...]) -> None:
    """Before a vector is masked with them."""
    with pytest.raises(AttemptRefused, match="the shares of attempt 1 of round 1 of run bench are said to be dealt"):
        require_dealers(ROSTER, dealers, me="agent-1")


def test_masks_of_all_members_but_their_own_cancel() -> None:
    """A member's vector is masked towards each dealer, and once by itself."""
    total = np.zeros(9, dtype=np.uint32)
    vectors = []
    for name in NAMES:
        vector = np.zeros(9, dtype=np.uint32)
        mask(vector, ROSTER, name, MEMBERS[name].secrets, dealers=NAMES)
        vectors.append(vector)
        total += vector
    for name in NAMES:
        own = np.zeros(9, dtype=np.uint32)
        mask(own, ROSTER, name, MEMBERS[name].secrets, dealers=())
        total -= own
    assert not total.any()
    assert len(np.unique(vectors)) == 36


def test_a_key_that_cannot_be_agreed_with_stops_the_masking() -> None:
    """A coordinator that let it through gets no vector."""
    first, *others = ROSTER.adverts
    keys = first.keys.model_copy(update={"mask_key": to_text(bytes(32))})
    roster = Roster(terms=ROSTER.terms, adverts=(first.model_copy(update={"keys": keys}), *others))
    with pytest.raises(KeyInvalid):
        mask(np.zeros(3, dtype=np.uint32), roster, "agent-2", MEMBERS["agent-2"].secrets, dealers=NAMES)


def signatures(*names: str, survivors: tuple[str, ...] = NAMES) -> dict[str, str]:
    """Return what members sign who were told these survivors."""
    return {name: sign_survivors(ROSTER, MEMBERS[name].identity, survivors) for name in names}


def test_as_many_as_the_threshold_must_have_been_told_the_same() -> None:
    """Fewer could be one of two parts of the members that were told two stories."""
    require_consistent(ROSTER, NAMES, signatures(*NAMES))
    require_consistent(ROSTER, NAMES, signatures(*NAMES[:3]))
    for few in ((), NAMES[:2]):
        with pytest.raises(AttemptRefused, match=f"{len(few)} members have signed .* 3 must have been told"):
            require_consistent(ROSTER, NAMES, signatures(*few))


@pytest.mark.parametrize(
    "wrong",
    [
        signatures("agent-4", survivors=NAMES[:3]),
        {"agent-4": signatures("agent-3")["agent-3"]},
        {"agent-4": "A" * 86},
        {"agent-4": ""},
    ],
    ids=["of other survivors", "another's", "garbage", "nothing"],
)
def test_one_wrong_signature_is_enough_to_refuse(wrong: dict[str, str]) -> None:
    """Even where the threshold has signed: somebody was told something else, or somebody says so."""
    with pytest.raises(SignatureInvalid, match="what agent-4 was told of the survivors"):
        require_consistent(ROSTER, NAMES, signatures(*NAMES[:3]) | wrong)


def test_who_is_no_survivor_does_not_count() -> None:
    """Its signature is none of a survivor, whatever it is over."""
    told = NAMES[:3]
    with pytest.raises(SignatureInvalid, match=r"agent-4 has signed .* and is none of them"):
        require_consistent(ROSTER, told, signatures(*NAMES, survivors=told))


names = st.sets(st.sampled_from([*NAMES, "agent-5", "agent-6"]))


@given(names, names, names)
def test_both_shares_of_one_member_are_never_released(held: set[str], survivors: set[str], dealers: set[str]) -> None:
    """Whatever a coordinator says of who dealt and who survived."""
    shares = {name: Shares(f"s of {name}".encode(), f"b of {name}".encode()) for name in held}
    own_masks, mask_secrets = shares_to_release(shares, survivors=survivors, dealers=dealers)
    assert not own_masks.keys() & mask_secrets.keys()
    assert {name: from_text(text) for name, text in own_masks.items()} == {
        name: f"b of {name}".encode() for name in held & survivors
    }
    assert {name: from_text(text) for name, text in mask_secrets.items()} == {
        name: f"s of {name}".encode() for name in (held & dealers) - survivors
    }
