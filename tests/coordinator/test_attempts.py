"""Agents that do not keep the protocol of an attempt: told why, named in the audit log, and survived by the others."""

import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.federation import ManualClock, key_of
from services.coordinator.context import Context
from shared.errors import BlobMissing, NotAllowed, RoundClosed, UpdateConflict
from shared.protocol.attempts import AttemptPlace, DealtShares, ReleasedShares, SignedSurvivors
from shared.protocol.digests import digest_of
from shared.protocol.identity import to_text
from shared.protocol.rounds import RoundState
from shared.protocol.secagg.attempt import Advert, AttemptTerms, KeysOfAttempt
from shared.protocol.secagg.coding import LARGEST, SLOTS, Statistics
from shared.protocol.secagg.masks import Ring
from shared.protocol.secagg.member import announce, deal, sign_survivors
from shared.protocol.secagg.sealing import AttemptSecrets
from shared.protocol.terms import CohortTerms
from tests.support.federations import RUN, begin, coordinator, store, terms_of, work
from tests.support.players import FOUR, SECURE, Bend, Message, Player, Players, silent

OTHERS = ("ada", "cleo", "dan")
FIVE = (*FOUR, "eve")
PLACE = AttemptPlace(run_id=RUN, round=1, attempt=1)
SHARE = to_text(bytes(33))


@pytest.fixture
def context(tmp_path: Path, clock: ManualClock) -> Iterator[Context]:
    """Open a coordinator."""
    with coordinator(tmp_path, clock) as opened:
        yield opened


@pytest.fixture
def players(context: Context, clock: ManualClock) -> Players:
    """Four members of a run whose first round is open."""
    return opened(context, clock)


def opened(context: Context, clock: ManualClock, *everybody: Player, **changes: object) -> Players:
    """Return the members of a run whose first round is open."""
    players = Players(context, clock, *everybody)
    cohort = CohortTerms(min_count=3, max_count=len(players.all), min_seconds=10, max_seconds=60)
    begin(context, terms_of(**{**SECURE, "cohort": cohort, **changes}))
    return players


def test_everybody_is_in_the_sum(players: Players) -> None:
    """What the other tests bend is right as it is: to the last bit, with nobody refused or accused."""
    assert players.play().state is RoundState.AGGREGATED
    assert np.array_equal(players.aggregate(), players.mean(FOUR))
    assert not players.refused
    assert not players.accused()
    assert players.round.refused == 0


# --- a message that is refused --------------------------------------------------------------------------------------


def keys(name: str = "bob", *, of: str = "bob", terms: dict[str, object] | None = None, **changes: str) -> Bend:
    """Announce keys under a name, signed with the key ``of`` somebody, for terms that differ, or bent."""

    def bend(player: Player, _: Message) -> Message:
        assert player.terms is not None
        shown = player.terms.model_copy(update=terms or {})
        announced = announce(shown, name, key_of(of), player.secrets).keys.model_copy(update=changes)
        signature = key_of(of).sign("attempt-keys", KeysOfAttempt(terms=shown, keys=announced))
        return Advert(keys=announced, signature=signature)

    return bend


def shares(**for_whom: str | None) -> Bend:
    """Deal somebody what is for another, or nothing."""

    def bend(_: Player, dealt: Message) -> Message:
        assert isinstance(dealt, DealtShares)
        sealed = dealt.sealed | {name: dealt.sealed[whose] for name, whose in for_whom.items() if whose}
        return DealtShares(sealed={name: text for name, text in sealed.items() if for_whom.get(name, name)})

    return bend


def resized(words: int) -> Bend:
    """Send a vector of another length."""
    return lambda _, vector: vector[: 4 * words] if words < 0 else vector + bytes(words)


def signed(**changes: object) -> Bend:
    """Bend what is signed."""
    return lambda _, message: message.model_copy(update=changes)


def released(change: Callable[[dict[str, str], dict[str, str]], tuple[dict[str, str], dict[str, str]]]) -> Bend:
    """Bend what is released."""

    def bend(_: Player, message: Message) -> Message:
        assert isinstance(message, ReleasedShares)
        own_masks, mask_secrets = change(dict(message.own_masks), dict(message.mask_secrets))
        return ReleasedShares(own_masks=own_masks, mask_secrets=mask_secrets)

    return bend


REFUSED: dict[str, tuple[str, Bend, str, str]] = {
    "another's identity": ("keys", keys("cleo", of="cleo"), "message_invalid", "are of cleo, and bob has sent them"),
    "another's name": ("keys", keys("cleo"), "message_invalid", "are of cleo, and bob has sent them"),
    "another's key": ("keys", keys(of="cleo"), "message_invalid", "under its own key"),
    "other terms": ("keys", keys(terms={"threshold": 1}), "signature_invalid", "the keys of bob for attempt 1"),
    "another attempt's": ("keys", keys(terms={"attempt": 2}), "signature_invalid", "the keys of bob for attempt 1"),
    "a mask key of low order": ("keys", keys(mask_key="A" * 43), "key_invalid", "no X25519 key"),
    "an encryption key of low order": ("keys", keys(encryption_key="A" * 43), "key_invalid", "no X25519 key"),
    "shares for itself": ("shares", shares(bob="cleo"), "message_invalid", "for each of the 3 other members"),
    "no shares for one": ("shares", shares(cleo=None), "message_invalid", "for each of the 3 other members"),
    "shares for a stranger": ("shares", shares(eve="cleo"), "message_invalid", "for each of the 3 other members"),
    "a vector that is too short": ("masked", resized(-1), "blob_truncated", "has 100 bytes, and 104"),
    "a vector that is too long": ("masked", resized(1), "blob_too_large", "has 105 bytes, and 104"),
    "no signature": ("consistency", signed(signature="A" * 86), "signature_invalid", "what bob was told"),
    "a stranger's shares": ("consistency", signed(unreadable=("eve",)), "message_invalid", "cannot read are those"),
    "its own shares": ("consistency", signed(unreadable=("bob",)), "message_invalid", "cannot read are those"),
    "one share too few": (
        "unmasking",
        released(lambda own, lost: ({name: own[name] for name in OTHERS}, lost)),
        "message_invalid",
        "4 survivors and of the mask secrets of 0 lost",
    ),
    "no share": (
        "unmasking",
        released(lambda _, lost: ({}, lost)),
        "message_invalid",
        "of each whose shares bob could",
    ),
    "both shares": (
        "unmasking",
        released(lambda own, _: (own, {"ada": own["ada"]})),
        "message_invalid",
        "and of nobody else",
    ),
}


@pytest.mark.parametrize(("stage", "bend", "code", "words"), REFUSED.values(), ids=REFUSED)
def test_a_message_that_is_not_what_it_must_be(players: Players, stage: str, bend: Bend, code: str, words: str) -> None:
    """Its sender is told, counted and in the audit log; the others end the round without it."""
    players.bend["bob", stage] = bend
    assert players.play().state is RoundState.AGGREGATED
    assert {(name, told) for name, told, _ in players.refused} == {("bob", code)}
    assert all(re.search(words, why) for _, _, why in players.refused)
    assert players.round.refused == len(players.refused)
    assert players.told("attempt.refused") == [("bob", {"code": code})] * len(players.refused)
    # Whoever is lost after its vector has come is in the sum all the same.
    assert np.array_equal(players.aggregate(), players.mean(FOUR if stage in {"consistency", "unmasking"} else OTHERS))


def test_whoever_is_refused_again_and_again_does_not_fill_the_log(players: Players) -> None:
    """Each refusal leaves one entry, of the first few in a round; all are counted, and the next round logs anew."""
    players.play(until=RoundState.MASKED)
    players.bend["bob", "masked"] = resized(1)
    before = players.context.audit.head().head.seq
    for _ in range(20):
        assert not players.act("bob")
    assert players.context.audit.head().head.seq == before + 8
    assert players.told("attempt.refused") == [("bob", {"code": "blob_too_large"})] * 8
    assert players.round.refused == 20
    for name in OTHERS:
        players.bend[name, "unmasking"] = silent
    assert players.play().state is RoundState.ABORTED
    players.play(until=RoundState.MASKED)
    assert not players.act("bob")
    assert len(players.told("attempt.refused")) == 9


def test_who_is_late_again_and_again_does_not_fill_the_log(players: Players) -> None:
    """The cohort is full, and whoever says that it is ready too is told so as often as it does."""
    players.play(until=RoundState.KEYS)
    for _ in range(20):
        with pytest.raises(RoundClosed):
            players.context.attempts.ready("zoe", RUN, 1)
    assert players.told("update.late") == [("zoe", {})] * 8
    assert players.round.late == 20


def test_a_message_that_is_mended_is_taken(players: Players) -> None:
    """Who was refused may send the right one while the stage lasts, and loses nothing."""
    players.play(until=RoundState.MASKED)
    players.bend["bob", "masked"] = resized(1)
    assert not players.act("bob")
    del players.bend["bob", "masked"]
    assert players.act("bob")
    assert players.play().state is RoundState.AGGREGATED
    assert np.array_equal(players.aggregate(), players.mean(FOUR))


# --- a message that came before, or comes when it should not --------------------------------------------------------


STAGES_SENT = ("keys", "shares", "masked", "consistency", "unmasking")


def kept(into: dict[str, Message]) -> Callable[[str], Bend]:
    """Return what keeps honest messages, by their stages, and lets them go."""

    def at(stage: str) -> Bend:
        def bend(_: Player, message: Message) -> Message:
            into.setdefault(stage, message)
            return message

        return bend

    return at


@pytest.mark.parametrize("stage", STAGES_SENT)
def test_the_same_message_again_changes_nothing(players: Players, stage: str) -> None:
    """Its answer may have been lost on the way, and the stage may be over by then."""
    said: dict[str, Message] = {}
    players.bend["bob", stage] = kept(said)(stage)
    players.play(until=RoundState(stage))
    assert players.act("bob")
    before = players.round
    assert players.send("bob", PLACE, stage, said[stage])
    assert players.round == before
    assert players.play().state is RoundState.AGGREGATED
    assert np.array_equal(players.aggregate(), players.mean(FOUR))
    assert players.round.refused == 0


@pytest.mark.parametrize(
    ("stage", "other"),
    [
        ("keys", keys()),
        ("shares", shares(ada="cleo", cleo="ada")),
        ("masked", lambda _, vector: vector[::-1]),
        ("consistency", signed(unreadable=("ada",))),
        ("unmasking", released(lambda own, lost: (dict.fromkeys(own, SHARE), lost))),
    ],
)
def test_a_second_message_of_a_stage_is_a_conflict(players: Players, stage: str, other: Bend) -> None:
    """A second vector, another signature, other keys: the first counts, and who has sent another is counted."""
    said: dict[str, Message] = {}
    players.bend["bob", stage] = kept(said)(stage)
    players.play(until=RoundState(stage))
    assert players.act("bob")
    player = players.all["bob"]
    player.secrets = AttemptSecrets.generate() if stage == "keys" else player.secrets
    assert not players.send("bob", PLACE, stage, other(player, said[stage]))
    assert players.refused == [("bob", "update_conflict", players.refused[0][2])]
    assert players.told("attempt.refused") == [("bob", {"code": "update_conflict"})]
    assert players.round.refused == 1


def test_a_message_out_of_turn_is_nobodys_fault(players: Players) -> None:
    """Too early or too late: whoever is slow sends such ones too, so it is told where the round is, and not counted."""
    said: dict[str, Message] = {}
    for stage in STAGES_SENT:
        players.bend["bob", stage] = kept(said)(stage)
    assert players.play().state is RoundState.AGGREGATED
    again = {name: Player(name) for name in FOUR}
    players.all |= again
    early = AttemptPlace(run_id=RUN, round=1, attempt=2)
    for stage in STAGES_SENT:
        assert not players.send("bob", early, stage, said[stage])
    assert {code for _, code, _ in players.refused} == {"round_closed"}
    assert players.round.refused == 0


def test_vectors_that_come_side_by_side_leave_one(players: Players) -> None:
    """Each was begun before any had come in whole: the first is taken, and the others do not stay on the disk."""
    players.play(until=RoundState.MASKED)
    blobs, desk = players.context.blobs, players.context.attempts
    contents = [bytes([number]) * 104 for number in range(4)]
    slots = [desk.masked_slot("bob", PLACE, digest=digest_of(each), size=104) for each in contents]
    for content, slot in zip(contents, slots, strict=True):
        assert slot is not None
        with blobs.receive(size=104) as incoming:
            desk.write(slot, incoming, content)
            with nullcontext() if content is contents[0] else pytest.raises(UpdateConflict):
                desk.keep_masked(slot, incoming, digest=digest_of(content))
    assert blobs.path(digest_of(contents[0])).read_bytes() == contents[0]
    for content in contents[1:]:
        with pytest.raises(BlobMissing):
            blobs.path(digest_of(content))
    assert players.round.refused == 3


def test_a_vector_that_is_stored_as_something_else_does_no_harm(players: Players) -> None:
    """Who sends the bytes of a blob that others need is refused, and the blob stays."""
    players.play(until=RoundState.MASKED)
    needed = bytes(range(104))
    digest = store(players.context, needed)
    assert not players.send("bob", PLACE, "masked", needed)
    assert [code for _, code, _ in players.refused] == ["message_invalid"]
    assert players.context.blobs.path(digest).read_bytes() == needed
    assert players.act("bob")


def test_a_vector_that_comes_in_too_late_does_not_stay(players: Players) -> None:
    """The stage closed while it was under way."""
    players.play(until=RoundState.MASKED)
    blobs, desk, late = players.context.blobs, players.context.attempts, bytes(104)
    slot = desk.masked_slot("bob", PLACE, digest=digest_of(late), size=104)
    assert slot is not None
    players.bend["bob", "masked"] = silent
    players.play(until=RoundState.CONSISTENCY)
    with blobs.receive(size=104) as incoming, pytest.raises(RoundClosed):
        desk.write(slot, incoming, late)
        desk.keep_masked(slot, incoming, digest=digest_of(late))
    with pytest.raises(BlobMissing):
        blobs.path(digest_of(late))
    assert players.round.refused == 0


def test_a_message_of_who_was_lost_is_not_waited_for(players: Players) -> None:
    """Whoever was silent at a stage is told so at the next, and has changed nothing."""
    players.bend["bob", "shares"] = silent
    players.play(until=RoundState.MASKED)
    assert not players.send("bob", PLACE, "masked", bytes(104))
    assert not players.send("zoe", PLACE, "masked", bytes(104))
    assert [code for _, code, _ in players.refused] == ["not_found"] * 2
    assert players.play().state is RoundState.AGGREGATED
    assert np.array_equal(players.aggregate(), players.mean(OTHERS))


@pytest.mark.parametrize(
    ("stage", "code", "barred"),
    [
        ("keys", "signature_invalid", False),
        ("shares", None, True),
        ("masked", "message_invalid", False),
        ("consistency", "signature_invalid", False),
    ],
)
def test_a_message_of_the_attempt_before(players: Players, stage: str, code: str | None, barred: bool) -> None:  # noqa: FBT001
    """Replayed: it is bound to its attempt by its signature or its context, or is stored already."""
    said: dict[str, Message] = {}
    for name in STAGES_SENT[:4]:
        players.bend["bob", name] = kept(said)(name)
    players.bend["ada", "consistency"] = players.bend["cleo", "consistency"] = silent
    players.play(until=RoundState.KEYS, attempt=2)
    players.bend = {("bob", stage): lambda _player, _message: said[stage]}
    assert players.play().state is RoundState.AGGREGATED
    assert {told for _, told, _ in players.refused} == ({code} if code else set())
    assert ("bob" in players.accused()) is barred
    assert np.array_equal(players.aggregate(), players.mean(FOUR if stage == "consistency" else OTHERS))
    assert players.round.attempt == (3 if barred else 2)


# --- what cannot be seen in one message alone -----------------------------------------------------------------------


def test_two_that_share_a_key_are_barred(context: Context, clock: ManualClock) -> None:
    """All others would refuse such a roster, and nobody could go on: the attempt is made again without the two."""
    players = opened(context, clock, *map(Player, FIVE))
    shared = announce(TERMS_OF_NOBODY, "bob", key_of("bob"), AttemptSecrets.generate()).keys.mask_key
    players.bend["bob", "keys"] = keys("bob", of="bob", mask_key=shared)
    players.bend["eve", "keys"] = keys("eve", of="eve", mask_key=shared)
    assert players.play().state is RoundState.AGGREGATED
    assert players.accused() == dict.fromkeys(("bob", "eve"), "it has announced the same mask_key as another")
    assert players.round.attempt == 2
    assert np.allclose(players.aggregate(), np.mean([players.all[name].delta for name in OTHERS], axis=0), atol=1e-6)


TERMS_OF_NOBODY = AttemptTerms(
    federation="f",
    run_id="r",
    round=1,
    attempt=1,
    group=0,
    content="updates",
    **dict.fromkeys(("manifest", "base_model", "adapter", "layout"), f"sha256:{'0' * 64}"),
    parameters=1,
    clip_norm=1.0,
    fewest_parties=3,
    most_parties=3,
    weighted=False,
    members=3,
    threshold=3,
)


def garbage(*holders: str) -> Bend:
    """Deal what nobody can read to these members."""

    def bend(_: Player, dealt: Message) -> Message:
        assert isinstance(dealt, DealtShares)
        return DealtShares(sealed=dealt.sealed | dict.fromkeys(holders, "A" * 195))

    return bend


def in_attempt(number: int, bend: Bend) -> Bend:
    """Keep the protocol in the other attempts."""

    def bent(player: Player, message: Message) -> Message | None:
        assert player.terms is not None
        return bend(player, message) if player.terms.attempt == number else message

    return bent


def test_garbage_that_is_dealt_to_everybody(players: Players) -> None:
    """Too few can read it to undo its dealer's masks: it is barred, and the attempt made again without it."""
    players.bend["bob", "shares"] = garbage(*OTHERS)
    assert players.play().state is RoundState.AGGREGATED
    assert players.accused() == {"bob": "it is one side of 3 disputes over shares that cannot be read"}
    assert players.round.attempt == 2
    assert players.round.refused == 1
    assert np.array_equal(players.aggregate(), players.mean(OTHERS))


def test_garbage_and_then_silence(players: Players) -> None:
    """Who is not there when it is accused is barred all the same, and is not asked again."""
    players.bend["bob", "shares"] = garbage(*OTHERS)
    players.bend["bob", "consistency"] = silent
    assert players.play().state is RoundState.AGGREGATED
    assert players.accused().keys() == {"bob"}
    assert np.array_equal(players.aggregate(), players.mean(OTHERS))


def test_who_is_barred_takes_no_part_in_the_round_any_more(players: Players) -> None:
    """It is told why, and asked for nothing; in the next round it is as any other."""
    players.bend["bob", "shares"] = garbage(*OTHERS)
    players.play(until=RoundState.SHARES, attempt=2)
    assert players.context.rounds.wanted("bob").assignment is None
    assert players.context.rounds.wanted("bob").summons is None
    with pytest.raises(NotAllowed, match="bob takes no part in round 1 of run run any more: it is one side of 3"):
        players.context.attempts.ready("bob", RUN, 1)


def test_garbage_that_is_dealt_to_one(players: Players) -> None:
    """As many as the threshold can read the rest, and the round has the sum of all four."""
    players.bend["bob", "shares"] = garbage("ada")
    assert players.play().state is RoundState.AGGREGATED
    assert players.round.attempt == 1
    assert np.array_equal(players.aggregate(), players.mean(FOUR))


def test_a_member_that_says_it_can_read_nothing(players: Players) -> None:
    """Three are there, so that each must read all. It accuses three, and is in as many disputes: it goes."""
    players.bend["bob", "consistency"] = lambda _, signed: signed.model_copy(update={"unreadable": OTHERS})
    players.bend["dan", "consistency"] = in_attempt(1, silent)
    assert players.play().state is RoundState.AGGREGATED
    assert players.accused() == {"bob": "it is one side of 3 disputes over shares that cannot be read"}
    assert players.round.attempt == 2
    assert players.context.rounds.wanted("bob").assignment is None


def test_a_wrong_share(players: Players) -> None:
    """It is not what its dealer has sealed: its holder is named, and as many as the threshold finish the round."""
    players.bend["bob", "unmasking"] = released(lambda own, lost: (dict.fromkeys(own, SHARE), lost))
    assert players.play().state is RoundState.AGGREGATED
    assert players.accused() == {"bob": "it has released a wrong share"}
    assert players.round.refused == 1
    assert np.array_equal(players.aggregate(), players.mean(FOUR))


def test_a_wrong_share_where_every_share_is_needed(players: Players) -> None:
    """Nothing can be made again once shares have left: the round comes to nothing, because of whom its reason says."""
    players.bend["bob", "unmasking"] = released(lambda own, lost: (own | {"ada": SHARE}, lost))
    players.bend["dan", "consistency"] = silent
    ended = players.play()
    assert ended.state is RoundState.ABORTED
    assert "share_invalid: the mask of ada cannot be taken out" in (ended.reason or "")
    assert "who released wrong ones: bob" in (ended.reason or "")
    assert players.accused().keys() == {"bob"}


def test_shares_of_another_secret(players: Players) -> None:
    """Well sealed, with good hashes, and no shares of what was announced: seen at the end, and its dealer named."""

    def other(player: Player, _: Message) -> Message:
        assert player.roster is not None
        secrets = replace(AttemptSecrets.generate(), encryption=player.secrets.encryption)
        sealed, player.own = deal(player.roster, player.name, secrets)
        return DealtShares(sealed=sealed)

    players.bend["bob", "shares"] = other
    ended = players.play()
    assert ended.state is RoundState.ABORTED
    assert "the mask of bob cannot be taken out" in (ended.reason or "")
    assert players.accused().keys() == {"bob"}
    players.bend.clear()
    assert players.play().state is RoundState.AGGREGATED  # round 2, with everybody
    assert np.array_equal(players.aggregate(2), players.mean(FOUR))


# --- what cannot be seen in any message -----------------------------------------------------------------------------


class Poisoner(Player):
    """Adds what it likes to the sum, well masked."""

    numbers: Ring | None = None
    slots: dict[int, int] = {}  # noqa: RUF012 - a test's own

    def vector(self, terms: AttemptTerms) -> Ring:
        """Return its own numbers."""
        vector = super().vector(terms)
        if self.numbers is not None and terms.content == "updates":
            vector[:-SLOTS] = self.numbers
        for slot, word in self.slots.items():
            vector[-SLOTS + slot] = word % 2**32
        return vector


def poisoned(context: Context, clock: ManualClock, **changes: object) -> tuple[Players, Poisoner]:
    """Return four, of whom bob poisons."""
    bob = Poisoner("bob", examples=3)
    return opened(context, clock, *map(Player, ("ada", "cleo", "dan")), bob, **changes), bob


def test_an_update_that_is_too_large(context: Context, clock: ManualClock) -> None:
    """The mean is longer than any mean of clipped updates: nobody can say whose it is, so the round is refused."""
    players, bob = poisoned(context, clock)
    bob.numbers = np.full(14, LARGEST // 2, dtype=np.uint32)
    ended = players.play()
    assert ended.state is RoundState.REFUSED
    assert "sum_implausible: the mean of 4 updates has norm" in (ended.reason or "")
    bob.numbers = None
    assert players.play().state is RoundState.AGGREGATED


EVALUATED = Statistics(loss=2_000_000, correct=3, total=4)


@pytest.mark.parametrize(
    ("slots", "words"),
    [
        ({3: 100}, "add up to 109 right answers of 16"),
        ({3: -10}, "add up to -1 right answers of 16"),
        ({6: 5}, "add up to 12 right answers of 17"),
        ({6: -4}, "add up to 12 right answers of 8"),
        ({0: -9_000_000}, "12 right answers of 16 and a loss of -1"),
        ({9: 1}, "the updates of 4 agents weigh 1 in all, and 0 to 0 is what they can weigh"),
        ({9: -1}, "weigh -1 in all"),
        ({8: 2**31}, "at least one does not keep the protocol"),
    ],
    ids=["right", "none right", "more", "fewer", "negative loss", "weight", "negative weight", "overflow"],
)
def test_statistics_that_cannot_be(context: Context, clock: ManualClock, slots: dict[int, int], words: str) -> None:
    """They are no sums of counts: the round is refused, at once, and the next one is as any other."""
    players, bob = poisoned(context, clock, evaluation_examples=4)
    for player in players.all.values():
        player.statistics = EVALUATED
    bob.slots = slots
    ended = players.play()
    assert ended.state is RoundState.REFUSED
    assert "sum_implausible: the " in (ended.reason or "")
    assert words in (ended.reason or "")
    bob.slots = {}
    assert players.play().state is RoundState.AGGREGATED


def test_a_loss_where_nobody_evaluates(context: Context, clock: ManualClock) -> None:
    """Of no examples there is no loss."""
    players, bob = poisoned(context, clock)
    bob.slots = {0: 1}
    assert "add up to 0 right answers of 0 and a loss of 1e-06" in (players.play().reason or "")


@pytest.mark.parametrize(
    ("slots", "words"),
    [({9: 2**16}, "and 4 to 12 is what they can weigh"), ({9: -3}, "weigh 0 in all, and 4 to 12")],
    ids=["more than it has told", "nothing"],
)
def test_weights_that_cannot_be(context: Context, clock: ManualClock, slots: dict[int, int], words: str) -> None:
    """Who weighs more than it has told would make all others lighter."""
    players, bob = poisoned(context, clock, weighting="examples")
    players.play(until=RoundState.KEYS, attempt=2)
    bob.slots = slots
    ended = players.play()
    assert ended.state is RoundState.REFUSED
    assert words in (ended.reason or "")


def test_evaluations_are_added_up(context: Context, clock: ManualClock) -> None:
    """What the tests above bend is right as it is."""
    everybody = (Player(name, statistics=EVALUATED) for name in FOUR)
    players = opened(context, clock, *everybody, evaluation_examples=4)
    assert players.play().state is RoundState.AGGREGATED
    evaluation = players.round.evaluation
    assert evaluation is not None
    assert (evaluation.examples, evaluation.accuracy, evaluation.loss) == (16, 0.75, 0.5)


def test_an_aggregate_is_shared_with_those_whose_updates_are_in_it(context: Context, clock: ManualClock) -> None:
    """Whoever was lost before its vector came has no part in the sum, and is not given it."""
    players = opened(context, clock, *map(Player, FOUR), share_aggregate=True)
    players.bend["dan", "masked"] = silent
    assert players.play().state is RoundState.AGGREGATED
    assert players.round.shared_with == ["ada", "bob", "cleo"]
    context.rounds.reconcile()  # forgets what was sent in the attempt
    work(context)
    work(context)
    told = {name: context.rounds.wanted(name).aggregate for name in FOUR}
    assert told == dict.fromkeys(FOUR[:3], players.round.aggregate) | {"dan": None}


def test_a_signature_is_over_what_was_told(players: Players) -> None:
    """A member that was told other survivors, by whoever stands in between, cannot be counted among the signers."""

    def other(player: Player, message: Message) -> Message:
        assert player.roster is not None
        assert isinstance(message, SignedSurvivors)
        return message.model_copy(update={"signature": sign_survivors(player.roster, key_of("bob"), OTHERS)})

    players.bend["bob", "consistency"] = other
    assert players.play().state is RoundState.AGGREGATED
    assert {code for _, code, _ in players.refused} == {"signature_invalid"}
