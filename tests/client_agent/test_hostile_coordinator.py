"""A coordinator that does whatever it likes, and an agent that sends nothing that could tell its update.

Each test is a way to come by one agent's update. What ada answers is decided by her real member, journal, folder and
policy; in each she says no, says why, and nothing leaves.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench.exchange import Member, deal_from
from bench.federation import key_of
from services.client_agent.policy import Policy
from shared.errors import AttemptRefused, FedCoLLMError
from shared.protocol.attempts import (
    AttemptPlace,
    ConsistencyWanted,
    Enlisted,
    MaskedWanted,
    ReleasedShares,
    SharesWanted,
    Summons,
    UnmaskingWanted,
)
from shared.protocol.digests import digest_of
from shared.protocol.identity import IdentityKey
from shared.protocol.secagg.attempt import Advert, AnnouncedKeys, KeysOfAttempt
from shared.protocol.secagg.member import announce
from tests.support.attempts import ME, NAMES, STAGES, TERMS, Play, enlisted
from tests.support.members import certificate

pytestmark = pytest.mark.anyio

WEIGHTED = TERMS.model_copy(update={"weighted": True, "content": "counts", "parameters": 0})


@pytest.fixture
def play(tmp_path: Path) -> Play:
    """Ada, who has trained an update, and an attempt that is about to open."""
    return Play(tmp_path / ME)


async def refused(play: Play, summons: Summons, code: str, words: str) -> None:
    """See that ada says no, by this code and in these words, and that nothing leaves her machine."""
    before = list(play.sent)
    with pytest.raises(FedCoLLMError, match=words) as caught:
        await play.member.answer(summons)
    assert caught.value.code == code
    assert play.sent == before


async def test_a_coordinator_that_keeps_the_protocol_is_answered(play: Play) -> None:
    """What the other tests bend is right as it is: five messages leave, and no more."""
    await play.to_the_end()
    assert [stage for stage, _ in play.sent] == [*STAGES]


# --- what an attempt is said to be ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"manifest": digest_of(b"altered")}, "the manifest of attempt 1"),
        ({"base_model": digest_of(b"another")}, "the base_model of attempt 1"),
        ({"adapter": digest_of(b"another")}, "the adapter of attempt 1"),
        ({"layout": digest_of(b"another")}, "the layout of attempt 1"),
        ({"clip_norm": 5000.0}, "the clip_norm of attempt 1 .* is 5000"),
        ({"fewest_parties": 4}, "the fewest_parties of attempt 1"),
        ({"most_parties": 2000}, "the most_parties of attempt 1"),
        ({"weighted": True, "total_count": 100}, "the weighted of attempt 1"),
        ({"parameters": 13}, "the parameters of attempt 1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
async def test_terms_that_do_not_fit_what_was_trained(play: Play, change: dict[str, object], words: str) -> None:
    """Two adapters: one agent is shown another model than the others, so that its part of the sum stands out.

    Or other terms: its numbers would stand out by their size, by their number, or by being another kind of number.
    """
    play.terms = TERMS.model_copy(update=change)
    await refused(play, play.keys(), "attempt_refused", words)


@pytest.mark.parametrize("threshold", [1, 2, 5])
async def test_a_lowered_threshold(play: Play, threshold: int) -> None:
    """With two shares, a coordinator and one other could undo everybody's masks; with five of four, nobody could."""
    play.terms = TERMS.model_copy(update={"threshold": threshold})
    await refused(play, play.keys(), "attempt_refused", f"a threshold of {threshold}, and with 4 members it must be 3")


async def test_more_members_than_the_run_allows(play: Play) -> None:
    """The sum of five could overflow what four were coded for."""
    play.terms = TERMS.model_copy(update={"members": 5, "threshold": 4})
    await refused(play, play.keys(), "attempt_refused", "5 members, and its run allows 3 to 4")


OF_FOUR = TERMS.model_copy(update={"fewest_parties": 4})


@pytest.mark.parametrize("change", [{"members": 3}, {"members": 3, "fewest_parties": 3}], ids=["below", "another"])
async def test_fewer_members_than_the_operator_has_signed(tmp_path: Path, change: dict[str, object]) -> None:
    """The coordinator picks who is in an attempt, and may not pick fewer than the run's cohort.min_count."""
    play = Play(tmp_path, terms=OF_FOUR)
    play.terms = OF_FOUR.model_copy(update=change)
    words = "the fewest_parties of attempt 1 .* is 3, and .* trained for 4" if len(change) > 1 else "allows 4 to 4"
    await refused(play, play.keys(), "attempt_refused", words)


async def test_a_cohort_that_shrinks_below_what_the_operator_has_signed(tmp_path: Path) -> None:
    """Four are asked for keys; of three, as many as the threshold, roster, dealers and survivors are refused alike."""
    play = Play(tmp_path, terms=OF_FOUR)
    await play.until("shares")
    members = SharesWanted(place=play.place, members=play.shares().members[:3])
    await refused(play, members, "attempt_refused", "names 3 members, and 4 to 4")
    await play.member.answer(play.shares())
    wanted = play.masked()
    dealt = MaskedWanted(place=play.place, sealed={name: wanted.sealed[name] for name in ("bob", "cleo")})
    await refused(play, dealt, "attempt_refused", "must be 3 or more of the other members")
    await play.member.answer(wanted)
    survivors = ConsistencyWanted(place=play.place, survivors=("ada", "bob", "cleo"))
    await refused(play, survivors, "attempt_refused", "they must be 4 or more")
    await play.member.answer(play.consistency())
    await play.member.answer(play.unmasking())
    assert [stage for stage, _ in play.sent] == [*STAGES]


@pytest.mark.parametrize("field", ["run_id", "round", "attempt"])
async def test_terms_of_another_attempt_than_is_asked_for(play: Play, field: str) -> None:
    """Keys that are signed for one attempt would be used in another."""
    other = {"run_id": "another", "round": 2, "attempt": 2}[field]
    wanted = play.keys().model_copy(update={"terms": TERMS.model_copy(update={field: other})})
    await refused(play, wanted, "attempt_refused", "came for attempt 1 of round 1 of run run in in-memory")


async def test_terms_of_another_federation(play: Play) -> None:
    """The same name may have another key there."""
    play.terms = TERMS.model_copy(update={"federation": "elsewhere"})
    await refused(play, play.keys(), "attempt_refused", "in elsewhere came for .* in in-memory")


async def test_an_attempt_for_a_round_that_was_not_trained_for(play: Play) -> None:
    """What lies here is of round 1, and is no update of round 2 or of another run."""
    play.terms = TERMS.model_copy(update={"round": 2})
    await refused(play, play.keys(), "attempt_refused", "trained nothing for attempt 1 of round 2 of run run")
    play.terms = TERMS.model_copy(update={"run_id": "another"})
    await refused(play, play.keys(), "attempt_refused", "trained nothing for attempt 1 of round 1 of run another")


async def test_terms_that_change_while_an_attempt_goes_on(play: Play) -> None:
    """A second signature for the same attempt could be shown to whoever is to be told another story."""
    await play.member.answer(play.keys())
    play.terms = TERMS.model_copy(update={"group": 1})
    await refused(play, play.keys(), "attempt_refused", "the terms of attempt 1 .* are not those .* shown before")


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (Policy(smallest_cohort=5), "policy.smallest_cohort is 5, and in attempt 1 .* there are 4"),
        (Policy(smallest_threshold=4), "policy.smallest_threshold is 4, and attempt 1 .* has 3"),
    ],
    ids=["cohort", "threshold"],
)
async def test_less_than_this_organisation_wants(tmp_path: Path, policy: Policy, words: str) -> None:
    """The rule that it breaks is named as in the settings."""
    play = Play(tmp_path, policy=policy)
    await refused(play, play.keys(), "policy_refused", words)


# --- who the members are said to be ---------------------------------------------------------------------------------


def showing(play: Play, name: str, change: Callable[[Enlisted], Enlisted]) -> SharesWanted:
    """Return the members with one of them bent."""
    members = [change(each) if each.advert.keys.agent == name else each for each in play.shares().members]
    return SharesWanted(place=play.place, members=tuple(members))


def certified(**changes: object) -> Callable[[Enlisted], Enlisted]:
    """Return what gives a member another certificate."""

    def change(each: Enlisted) -> Enlisted:
        keys = each.advert.keys
        fields = {"name": keys.agent, "key": keys.identity, **changes}
        return each.model_copy(update={"membership": certificate(**fields)})

    return change


async def test_invented_members(play: Play) -> None:
    """The classic break: all but one are the coordinator's own, and the sum is that one's update and nothing else.

    They are consistent, they sign whatever is wanted; but the operator has certified none of them.
    """
    await play.member.answer(play.keys())
    coordinator = IdentityKey.generate()
    invented = [Member(name) for name in play.others]
    adverts = [announce(TERMS, each.name, each.identity, each.secrets) for each in invented]
    members = [
        Enlisted(advert=each, membership=certificate(each.keys.agent, each.keys.identity, operator=coordinator))
        for each in adverts
    ]
    wanted = SharesWanted(place=play.place, members=(play.shares().members[0], *members))
    await refused(play, wanted, "signature_invalid", "the membership certificate of bob .* does not have the signature")


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (certified(operator=key_of("mallory")), "signature_invalid", "the membership certificate of bob"),
        (certified(not_after=1_600_000_000), "certificate_expired", "the membership certificate of bob .* is over"),
        (certified(federation="elsewhere"), "federation_mismatch", "of bob .* is of elsewhere, and this is in-memory"),
        (certified(name="eve"), "attempt_refused", "bob takes part .* with the certificate of eve"),
        (certified(key=key_of("eve").public), "attempt_refused", "bob .* nobody has certified that key for it"),
    ],
    ids=["another operator", "expired", "another federation", "another name", "another key"],
)
async def test_a_member_without_a_certificate_of_its_own(
    play: Play, change: Callable[[Enlisted], Enlisted], code: str, words: str
) -> None:
    """One is as bad as all: the coordinator needs as many as the threshold, and gets none."""
    await play.member.answer(play.keys())
    await refused(play, showing(play, "bob", change), code, words)


@pytest.mark.parametrize("field", ["encryption_key", "mask_key", "commitment"])
async def test_swapped_keys(play: Play, field: str) -> None:
    """The coordinator in the middle: its own key in place of bob's would let it read what is sealed for bob."""
    await play.member.answer(play.keys())
    mine = Member("bob", key_of("bob"))
    other = announce(TERMS, "bob", IdentityKey.generate(), mine.secrets).keys

    def swap(each: Enlisted) -> Enlisted:
        keys = each.advert.keys.model_copy(update={field: getattr(other, field)})
        return each.model_copy(update={"advert": each.advert.model_copy(update={"keys": keys})})

    await refused(play, showing(play, "bob", swap), "signature_invalid", "the keys of bob for attempt 1")


async def test_keys_that_were_signed_for_another_attempt(play: Play) -> None:
    """Replayed: whoever has learnt the secrets of that attempt would know those of this one."""
    old = announce(TERMS, "bob", key_of("bob"), play.others["bob"].secrets)
    play.next_attempt()
    await play.member.answer(play.keys())
    wanted = showing(play, "bob", lambda each: each.model_copy(update={"advert": old}))
    await refused(play, wanted, "signature_invalid", "the keys of bob for attempt 2")


@pytest.mark.parametrize("field", ["mask_key", "encryption_key", "commitment"])
async def test_two_members_that_share_a_key(play: Play, field: str) -> None:
    """Two names for one: it would count twice towards the threshold."""
    await play.member.answer(play.keys())
    bob = play.roster.keys["bob"]
    dan = play.others["dan"]
    keys = announce(TERMS, "dan", dan.identity, dan.secrets).keys.model_copy(update={field: getattr(bob, field)})
    await refused(play, showing(play, "dan", lambda _: signed_again(keys)), "attempt_refused", f"the same {field}")


async def test_two_members_with_one_identity(play: Play) -> None:
    """The operator has certified the same key under two names: one organisation, and two shares."""
    await play.member.answer(play.keys())
    dan = announce(TERMS, "dan", key_of("bob"), play.others["dan"].secrets)
    await refused(play, showing(play, "dan", lambda _: enlisted(dan)), "attempt_refused", "the same identity")


def signed_again(keys: AnnouncedKeys) -> Enlisted:
    """Return a member that has signed these keys."""
    signature = key_of(keys.agent).sign("attempt-keys", KeysOfAttempt(terms=TERMS, keys=keys))
    return enlisted(Advert(keys=keys, signature=signature))


async def test_this_agents_own_keys_changed(play: Play) -> None:
    """In the place of ada is somebody who has her key, or an older message of hers: not what she has just said."""
    await play.member.answer(play.keys())
    other = announce(TERMS, ME, key_of(ME), Member(ME).secrets)
    wanted = showing(play, ME, lambda _: enlisted(other))
    await refused(play, wanted, "attempt_refused", "the keys that this agent announced .* are not in its roster")


async def test_this_agent_is_not_among_the_members(play: Play) -> None:
    """It would seal shares of its secrets for a circle that it is not of."""
    await play.member.answer(play.keys())
    wanted = SharesWanted(place=play.place, members=play.shares().members[1:])
    await refused(play, wanted, "attempt_refused", "the keys that this agent announced .* are not in its roster")


async def test_a_shrunken_roster(play: Play) -> None:
    """Four were asked for keys, and two are said to have come."""
    await play.member.answer(play.keys())
    wanted = SharesWanted(place=play.place, members=play.shares().members[:2])
    await refused(play, wanted, "attempt_refused", "the roster of attempt 1 .* names 2 members, and 3 to 4")


@pytest.mark.parametrize("order", [(0, 0, 1, 2), (3, 2, 1, 0)], ids=["one twice", "another order"])
async def test_members_out_of_order(play: Play, order: tuple[int, ...]) -> None:
    """The order says who holds which share; with two orders a share would count as two."""
    await play.member.answer(play.keys())
    members = play.shares().members
    wanted = SharesWanted(place=play.place, members=tuple(members[place] for place in order))
    await refused(play, wanted, "attempt_refused", "different ones in the order of their names")


async def test_a_roster_that_this_organisation_finds_too_small(tmp_path: Path) -> None:
    """Four are asked for keys, as its policy wants; three come."""
    play = Play(tmp_path, policy=Policy(smallest_cohort=4))
    await play.member.answer(play.keys())
    wanted = SharesWanted(place=play.place, members=play.shares().members[:3])
    await refused(play, wanted, "policy_refused", "policy.smallest_cohort is 4, and in attempt 1 .* there are 3")


async def test_other_members_when_asked_again(play: Play) -> None:
    """Shares for a second circle would be shares of the same secrets: with both, fewer than t are enough."""
    await play.until("masked")
    wanted = SharesWanted(place=play.place, members=play.shares().members[:3])
    await refused(play, wanted, "attempt_refused", "the members of attempt 1 .* are not those .* shown before")


# --- who is said to have dealt --------------------------------------------------------------------------------------


async def test_dealers_that_are_no_members(play: Play) -> None:
    """A mask that is shared with nobody would stay in the sum, or be known to the coordinator alone."""
    wanted = await play.until("masked")
    sealed = {**wanted.sealed, "eve": wanted.sealed["bob"]}
    await refused(
        play, MaskedWanted(place=play.place, sealed=sealed), "attempt_refused", "dealt by bob, cleo, dan, eve"
    )


async def test_dealers_that_include_this_agent(play: Play) -> None:
    """Nobody has sealed anything for itself."""
    wanted = await play.until("masked")
    sealed = {**wanted.sealed, ME: wanted.sealed["bob"]}
    await refused(
        play, MaskedWanted(place=play.place, sealed=sealed), "attempt_refused", "must be 2 or more of the other"
    )


@pytest.mark.parametrize("count", [0, 1])
async def test_too_few_dealers(play: Play, count: int) -> None:
    """A shrunken cohort: with one other, the sum is two updates, and the other knows its own."""
    wanted = await play.until("masked")
    sealed = dict(list(wanted.sealed.items())[:count])
    await refused(
        play, MaskedWanted(place=play.place, sealed=sealed), "attempt_refused", "must be 2 or more of the other"
    )


async def test_fewer_dealers_than_this_organisation_wants(tmp_path: Path) -> None:
    """As many as the threshold, and less than its policy says."""
    play = Play(tmp_path, policy=Policy(smallest_cohort=4))
    wanted = await play.until("masked")
    sealed = {name: wanted.sealed[name] for name in ("bob", "cleo")}
    summons = MaskedWanted(place=play.place, sealed=sealed)
    await refused(play, summons, "policy_refused", "policy.smallest_cohort is 4, and in attempt 1 .* there are 3")


async def test_a_second_masked_vector(play: Play) -> None:
    """The difference of two vectors of one attempt is the masks of the dealers that were left out, or of an update.

    Asked again as before, ada sends the same bytes; asked otherwise, none.
    """
    wanted = await play.until("masked")
    await play.member.answer(wanted)
    first = play.outbox.last("masked")
    sealed = {name: wanted.sealed[name] for name in ("bob", "cleo")}
    summons = MaskedWanted(place=play.place, sealed=sealed)
    await refused(play, summons, "attempt_refused", "the sealed shares of attempt 1 .* are not those .* shown before")
    play.restart()
    await play.member.answer(wanted)
    assert play.outbox.last("masked") == first


async def test_a_vector_that_was_damaged_is_not_made_anew(play: Play) -> None:
    """Training again gives other numbers: the difference of the two vectors would be the difference of two updates."""
    await play.until("consistency")
    play.state.journal.vector(play.place).write_bytes(b"rotten")
    await refused(play, play.masked(), "attempt_refused", "the masked vector of attempt 1 .* was damaged")


# --- who is said to have survived -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("survivors", "words"),
    [
        ((), "said to be nobody"),
        (("ada", "bob"), "said to be ada, bob: they must be 3 or more"),
        (("ada", "ada", "bob", "bob"), "said to be ada, bob: they must be 3 or more"),
        (("ada", "bob", "eve"), "must be 3 or more of the members who have dealt"),
        (("bob", "cleo", "dan"), "and ada among them"),
    ],
    ids=["nobody", "too few", "too few, twice", "one who has not dealt", "not this agent"],
)
async def test_survivors_that_cannot_be(play: Play, survivors: tuple[str, ...], words: str) -> None:
    """A shrunken sum; or one in which ada is not, though her vector is there: her pair masks would be undone."""
    await play.until("consistency")
    await refused(play, ConsistencyWanted(place=play.place, survivors=survivors), "attempt_refused", words)


async def test_fewer_survivors_than_this_organisation_wants(tmp_path: Path) -> None:
    """As many as the threshold, and less than its policy says."""
    play = Play(tmp_path, policy=Policy(smallest_cohort=4))
    await play.until("consistency")
    wanted = ConsistencyWanted(place=play.place, survivors=("ada", "bob", "cleo"))
    await refused(play, wanted, "policy_refused", "policy.smallest_cohort is 4, and in attempt 1 .* there are 3")


async def test_equivocated_survivors(play: Play) -> None:
    """First dan has survived, then he has not: a signature over each would let each story be unmasked."""
    await play.until("unmasking")
    wanted = ConsistencyWanted(place=play.place, survivors=("ada", "bob", "cleo"))
    await refused(play, wanted, "attempt_refused", "the survivors of attempt 1 .* are not those .* shown before")


async def test_survivors_that_others_were_told_otherwise(play: Play) -> None:
    """To ada dan has survived, to the others he has not: she releases of b_dan, they of s_dan, and he is naked."""
    await play.until("unmasking")
    signatures = play.signed(NAMES, by=(ME,)) | play.signed(("ada", "bob", "cleo"), by=("bob", "cleo"))
    wanted = UnmaskingWanted(place=play.place, signatures=signatures)
    await refused(play, wanted, "signature_invalid", "what bob was told of the survivors of attempt 1")


async def test_too_few_signatures(play: Play) -> None:
    """Two of four may be a half that was told this story, while the other half was told another."""
    await play.until("unmasking")
    wanted = UnmaskingWanted(place=play.place, signatures=play.signed(NAMES, by=("ada", "bob")))
    await refused(play, wanted, "attempt_refused", "2 members have signed the survivors of attempt 1 .* and 3 must")


@pytest.mark.parametrize("name", ["eve", "dan"])
async def test_signatures_of_who_has_not_survived(play: Play, name: str) -> None:
    """A stranger's, or a lost member's, would count towards the threshold."""
    survivors = ("ada", "bob", "cleo")
    await play.until("consistency")
    await play.member.answer(ConsistencyWanted(place=play.place, survivors=survivors))
    signatures = play.signed(survivors, by=("ada", "bob", name))
    wanted = UnmaskingWanted(place=play.place, signatures=signatures)
    await refused(play, wanted, "signature_invalid", f"{name} has signed the survivors of attempt 1 .* and is none")


async def test_a_signature_under_another_name(play: Play) -> None:
    """One signature is not three."""
    await play.until("unmasking")
    signature = play.signed(NAMES)["bob"]
    wanted = UnmaskingWanted(place=play.place, signatures=dict.fromkeys(NAMES, signature))
    await refused(play, wanted, "signature_invalid", "what ada was told of the survivors")


async def test_signatures_of_another_attempt(play: Play) -> None:
    """Replayed: the same survivors were signed for the attempt before."""
    await play.until("unmasking")
    old = play.signed(NAMES)
    play.next_attempt()
    await play.until("unmasking")
    wanted = UnmaskingWanted(place=play.place, signatures=old)
    await refused(play, wanted, "signature_invalid", "what ada was told of the survivors of attempt 2")


# --- what is asked for out of turn, or twice ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "wanted", "words"),
    [
        ("keys", "shares", "has no keys of attempt 1"),
        ("keys", "masked", "has no keys of attempt 1"),
        ("keys", "consistency", "has no keys of attempt 1"),
        ("keys", "unmasking", "has no keys of attempt 1"),
        ("shares", "masked", "has dealt no shares in attempt 1"),
        ("shares", "consistency", "has dealt no shares in attempt 1"),
        ("shares", "unmasking", "has dealt no shares in attempt 1"),
        ("masked", "consistency", "has sent no masked vector in attempt 1"),
        ("masked", "unmasking", "has signed no survivors of attempt 1"),
        ("consistency", "unmasking", "has signed no survivors of attempt 1"),
    ],
)
async def test_a_stage_before_its_turn(play: Play, stage: str, wanted: str, words: str) -> None:
    """Whatever a coordinator leaves out is what keeps it from telling two stories."""
    other = Play(play.folder.parent / "elsewhere")
    await other.until("unmasking")  # the same attempt, played elsewhere: what to ask for is known
    await play.until(stage)
    await refused(play, other.wanted(wanted), "attempt_refused", words)


async def test_both_shares_of_one_member(play: Play) -> None:
    """With b_dan and s_dan the coordinator could read dan's update: of each member one share leaves, and never both.

    Dan is said to have survived; ada releases of b_dan. Then he is said to be lost, with good signatures for it, which
    a hostile third of the members might give: she sends what she has sent.
    """
    first = await play.to_the_end()
    assert first.own_masks.keys() == {*NAMES}
    assert not first.mask_secrets
    await play.member.answer(play.unmasking(("ada", "bob", "cleo")))
    await play.member.answer(UnmaskingWanted(place=play.place, signatures={}))
    assert [message for stage, message in play.sent if stage == "unmasking"] == [first] * 3


async def test_the_share_of_the_lost_ones_mask_secret_and_not_of_its_own_mask(play: Play) -> None:
    """The other way round: dan is lost, and his own mask stays, should his vector be there after all."""
    survivors = ("ada", "bob", "cleo")
    await play.until("consistency")
    await play.member.answer(ConsistencyWanted(place=play.place, survivors=survivors))
    await play.member.answer(play.unmasking(survivors))
    released = play.outbox.last("unmasking")
    assert isinstance(released, ReleasedShares)
    assert released.own_masks.keys() == {*survivors}
    assert released.mask_secrets.keys() == {"dan"}
    await refused(play, play.consistency(), "attempt_refused", "the survivors of attempt 1 .* are not those")
    await play.member.answer(play.unmasking())
    assert play.outbox.last("unmasking") == released


@pytest.mark.parametrize("stage", ["keys", "shares", "masked"])
async def test_a_stage_again_after_the_shares_were_released(play: Play, stage: str) -> None:
    """The secrets are gone, and nothing that would need them is said any more."""
    await play.to_the_end()
    words = "has been in a sum" if stage == "keys" else "secrets of attempt 1 .* are gone"
    await refused(play, play.wanted(stage), "attempt_refused", words)


async def test_the_same_summons_again_gets_the_same_answer(play: Play) -> None:
    """Replay: a coordinator that has restarted, or that hopes for another answer, gets the same bytes at each stage."""
    for stage in STAGES:
        for _ in range(3):
            await play.member.answer(play.wanted(stage))
            play.restart()
    for stage in STAGES:
        first, *again = [message for at, message in play.sent if at == stage]
        assert again == [first] * 2


# --- between attempts and rounds ------------------------------------------------------------------------------------


async def test_another_attempt_after_the_sum_is_known(play: Play) -> None:
    """Differencing: the sum of four, and then the sum of those four without ada, would tell her update."""
    await play.to_the_end()
    play.next_attempt()
    await refused(play, play.keys(), "attempt_refused", "update of round 1 has been in a sum: two sums that differ")
    play.restart()
    await refused(play, play.keys(), "attempt_refused", "update of round 1 has been in a sum: two sums that differ")


async def test_two_attempts_of_a_round_at_once(play: Play) -> None:
    """Differencing again: the coordinator leaves the first unfinished, and comes back to it after the second.

    Ada has announced keys for the second: those of the first are gone, and she unmasks nobody in it.
    """
    first = await play.until("unmasking")
    assert isinstance(first, UnmaskingWanted)
    again = play.consistency()
    opened = play.keys()
    play.next_attempt()
    await play.until("consistency")
    await refused(play, first, "attempt_refused", "no keys of attempt 1 .* newest attempt of a round")
    await refused(play, again, "attempt_refused", "no keys of attempt 1 .* newest attempt of a round")
    await refused(play, opened, "attempt_refused", "attempt 1 of round 1 of run run is over")
    play.restart()
    await refused(play, first, "attempt_refused", "no keys of attempt 1 .* newest attempt of a round")


async def test_a_new_attempt_has_nothing_of_the_old_one(play: Play) -> None:
    """Fresh keys, fresh masks, the same integers: what was learnt of one attempt is of no use in the next."""
    await play.until("consistency")
    play.next_attempt()
    await play.until("consistency")
    old, new = [message for stage, message in play.sent if stage == "keys"]
    assert isinstance(old, Advert)
    assert isinstance(new, Advert)
    for name in ("encryption_key", "mask_key", "commitment"):
        assert getattr(old.keys, name) != getattr(new.keys, name)
    vectors = [np.frombuffer(message, "<u4") for stage, message in play.sent if stage == "masked"]
    assert not (vectors[0] == vectors[1]).any()


async def test_a_round_before_one_whose_sum_is_known(play: Play) -> None:
    """Going back, the coordinator would have an update of the same adapter in a sum without the one in that."""
    play.terms = TERMS.model_copy(update={"round": 2})
    play.train()
    await play.to_the_end()
    play.terms = TERMS
    play.train()
    await refused(play, play.keys(), "attempt_refused", "round 1 of run run is asked for, and .* update of round 2")


async def test_training_again_does_not_make_a_spent_round_good(play: Play) -> None:
    """Assigned again with another adapter, the round is over all the same."""
    await play.to_the_end()
    play.train()
    play.next_attempt()
    await refused(play, play.keys(), "attempt_refused", "has been in a sum")


# --- weighted means -------------------------------------------------------------------------------------------------


async def test_counts_of_a_run_that_has_none(play: Play) -> None:
    """How many examples an organisation has is nobody's business in an unweighted run."""
    play.terms = TERMS.model_copy(update={"content": "counts", "parameters": 0})
    await refused(play, play.keys(), "attempt_refused", "asks for counts, and nothing in its run is weighted")


async def test_counts_with_numbers_beside_them(tmp_path: Path) -> None:
    """A sum of updates, asked for as if it were one of counts, would leave the round open for another."""
    play = Play(tmp_path, terms=WEIGHTED)
    play.terms = WEIGHTED.model_copy(update={"parameters": 14})
    await refused(play, play.keys(), "attempt_refused", "the parameters of attempt 1 .* is 14")


async def test_counts_asked_twice(tmp_path: Path) -> None:
    """Two sums of counts that differ by one agent tell what it has added, and so about how many examples it has."""
    play = Play(tmp_path, terms=WEIGHTED)
    await play.to_the_end()
    play.next_attempt()
    await refused(play, play.keys(), "attempt_refused", "count of round 1 has been in a sum")
    play.train(blinded_count=17)  # the round is assigned again, and another number drawn
    await refused(play, play.keys(), "attempt_refused", "count of round 1 has been in a sum")


def weighing(play: Play, total_count: int) -> None:
    """Let the coordinator open the attempt whose updates are weighted."""
    play.next_attempt(content="updates", parameters=14, total_count=total_count)


async def test_weighted_updates_are_masked_once_their_counts_are_known(tmp_path: Path) -> None:
    """What the tests around this one bend is right as it is, and after it the round is over."""
    play = Play(tmp_path, terms=WEIGHTED)
    await play.to_the_end()
    weighing(play, 100)
    await play.to_the_end()
    assert [stage for stage, _ in play.sent] == [*STAGES] * 2
    weighing(play, 100)
    await refused(play, play.keys(), "attempt_refused", "update of round 1 has been in a sum")


@pytest.mark.parametrize("total", [0, 1, 8, 11])
async def test_a_total_that_is_less_than_this_agents_own_count(tmp_path: Path, total: int) -> None:
    """Its share would be above 1, and its update louder than all others in the sum. It has told 12, of 9 examples."""
    play = Play(tmp_path, terms=WEIGHTED)
    await play.to_the_end()
    weighing(play, total)
    await refused(play, play.keys(), "attempt_refused", f"add up to {total}, less than this agent has told")


async def test_a_total_that_changes(tmp_path: Path) -> None:
    """One total after the other: below which of them ada refuses would be her count. The first one counts."""
    play = Play(tmp_path, terms=WEIGHTED)
    await play.to_the_end()
    weighing(play, 100)
    await play.member.answer(play.keys())
    for total in (50, 25, 12, 6):
        weighing(play, total)
        words = f"add up to {total}, and were said to add up to 100 before"
        await refused(play, play.keys(), "attempt_refused", words)
    weighing(play, 100)
    await play.to_the_end()


async def test_a_total_that_was_refused_counts_too(tmp_path: Path) -> None:
    """Else a coordinator could begin with totals that are too small, and come nearer."""
    play = Play(tmp_path, terms=WEIGHTED)
    await play.to_the_end()
    weighing(play, 5)
    await refused(play, play.keys(), "attempt_refused", "add up to 5, less than this agent has told")
    weighing(play, 100)
    await refused(play, play.keys(), "attempt_refused", "add up to 100, and were said to add up to 5 before")


async def test_a_round_that_is_trained_for_again_keeps_its_count_and_its_total(tmp_path: Path) -> None:
    """Assigned again from another adapter, with a new total each time: below which ada refuses would be her count.

    What she says she weighs is what she has told, whatever she has drawn or found meanwhile.
    """
    play = Play(tmp_path, terms=WEIGHTED)
    await play.to_the_end()
    weighing(play, 100)
    await play.member.answer(play.keys())
    weighing(play, 13)
    play.terms = play.terms.model_copy(update={"adapter": digest_of(b"another")})
    kept = play.train(examples=10, blinded_count=17)
    assert (kept.examples, kept.blinded_count, kept.total_count) == (9, 12, 100)
    play.restart()
    await refused(play, play.keys(), "attempt_refused", "add up to 13, and were said to add up to 100 before")
    weighing(play, 100)
    await play.to_the_end()


@pytest.mark.parametrize("damage", [Path.unlink, lambda note: note.write_bytes(b"{")], ids=["gone", "damaged"])
async def test_a_count_that_was_told_is_known_or_nothing_is_trained(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    """Updates of other runs may take an update's place: what ada would draw anew is not what is in the sum."""
    play = Play(tmp_path, terms=WEIGHTED)
    await play.to_the_end()
    damage(play.folder / "updates" / "run-1.json")
    with pytest.raises(AttemptRefused, match="this agent's count of round 1 has been in a sum"):
        play.train(blinded_count=17)
    play.terms = WEIGHTED.model_copy(update={"round": 2})
    play.train()
    await play.to_the_end()


async def test_updates_weighted_by_counts_that_nobody_asked_for(tmp_path: Path) -> None:
    """A total out of the air: it counts for nothing, and neither do the counts of the round before."""
    play = Play(tmp_path, terms=WEIGHTED)
    weighing(play, 100)
    await refused(play, play.keys(), "attempt_refused", "attempt 2 .* count of that round has been in no sum")
    play.next_attempt(content="counts", parameters=0, total_count=0)
    await play.to_the_end()
    weighing(play, 200)
    await play.to_the_end()
    play.terms = play.terms.model_copy(update={"round": 2})
    play.train()
    weighing(play, 200)
    await refused(play, play.keys(), "attempt_refused", "round 2 .* count of that round has been in no sum")


# --- what should not have come to ada at all -------------------------------------------------------------------------


async def test_what_has_been_in_a_sum_is_known_or_nothing_is_sent(play: Play) -> None:
    """A damaged note is no leave to begin anew."""
    await play.to_the_end()
    (play.folder / "spent.json").write_bytes(b'{"run": {"upd')
    play.next_attempt()
    await refused(play, play.keys(), "attempt_refused", "spent.json was damaged")


async def test_keys_that_nobody_can_agree_with(play: Play) -> None:
    """A point of low order makes every agreement the same: everybody would know the key of that mask."""
    await play.member.answer(play.keys())
    bob = play.others["bob"]
    keys = announce(TERMS, "bob", bob.identity, bob.secrets).keys.model_copy(update={"encryption_key": "A" * 43})
    await refused(play, showing(play, "bob", lambda _: signed_again(keys)), "key_invalid", "no X25519 key")


async def test_a_place_that_was_never_opened(play: Play) -> None:
    """A million attempts later, nothing is known of it."""
    await play.until("masked")
    place = AttemptPlace(run_id="run", round=1, attempt=1_000_000)
    wanted = play.masked().model_copy(update={"place": place})
    await refused(play, wanted, "attempt_refused", "no keys of attempt 1000000")


async def test_shares_that_ada_cannot_read_are_told_of_and_not_released(play: Play) -> None:
    """Sealed for another attempt, or altered on the way: she says whose, signs, and has nothing of his to give."""
    wanted = await play.until("masked")
    old = Play(play.folder.parent / "elsewhere")
    await old.until("masked")
    sealed = {**wanted.sealed, "dan": deal_from(old.roster, old.others["dan"])[ME]}
    await play.member.answer(MaskedWanted(place=play.place, sealed=sealed))
    await play.member.answer(play.consistency())
    assert play.outbox.last("consistency").unreadable == ("dan",)
    await play.member.answer(play.unmasking())
    assert play.outbox.last("unmasking").own_masks.keys() == {"ada", "bob", "cleo"}
