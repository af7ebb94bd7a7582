"""Attempts that are interrupted: by agents that fall silent, by pauses, by restarts, and by their own end."""

import json
import threading
import weakref
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from bench.federation import ManualClock
from services.coordinator import schema
from services.coordinator.context import Context
from services.coordinator.masked_sums import ClosedAttempt, MaskedSums, closed_attempt
from services.coordinator.stages import _groups
from services.coordinator.unmasking import MaskedGroup, Unmasked, Unmasking
from shared.protocol.attempts import MaskedWanted, SharesWanted
from shared.protocol.membership import MemberState
from shared.protocol.rounds import STAGES, RoundState, RunState
from shared.protocol.secagg.coding import Coding
from shared.protocol.terms import LARGEST_GROUP, CohortTerms
from tests.coordinator.test_restart import Mortal, PowerCut
from tests.support.federations import RUN, begin, cancelled, coordinator, events_of, run_of, terms_of, work
from tests.support.players import FOUR, SECURE, STAGE_SECONDS, Player, Players, silent

FIVE = (*FOUR, "eve")
SEVEN = (*FIVE, "fay", "gus")


@pytest.fixture
def context(tmp_path: Path, clock: ManualClock) -> Iterator[Context]:
    """Open a coordinator."""
    with coordinator(tmp_path, clock) as opened:
        yield opened


def opened(context: Context, clock: ManualClock, *names: str, **changes: object) -> Players:
    """Return the members of a run whose first round is open."""
    players = Players(context, clock, *map(Player, names or FOUR))
    cohort = CohortTerms(min_count=3, max_count=len(players.all), min_seconds=10, max_seconds=60)
    begin(context, terms_of(**{**SECURE, "cohort": cohort, **changes}))
    return players


def left(context: Context) -> tuple[int, set[str]]:
    """Return how many messages of attempts are kept, and which blobs lie on the disk without being a run's."""
    with context.store.read() as tx:
        tables = (schema.attempt_messages, schema.attempts, schema.ready)
        count, *rows = [tx._rows.value(sa.select(sa.func.count()).select_from(table)) for table in tables]
        assert bool(count) is any(rows)
        named, run = tx.blobs.named(), tx.run(RUN)
        kept = {run.slm_adapter, run.llm_adapter} | {current.aggregate for current in tx.rounds(RUN)}
        kept |= {digest for current in tx.rounds(RUN) for digest in (current.slm_candidate, current.llm_candidate)}
        assert run.prepared is not None
        kept |= {run.prepared.slm.adapter, run.prepared.llm.adapter}
    folder = context.settings.data_dir / "blobs" / "sha256"
    there = {f"sha256:{path.parent.name}{path.name}" for path in folder.rglob("*") if path.is_file()}
    assert named <= there
    return int(count), there - kept


# --- agents that fall silent ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_an_agent_is_lost_at_a_stage(context: Context, clock: ManualClock, stage: str) -> None:
    """It costs the stage's time, and its update where its vector had not come; nothing is made again."""
    players = opened(context, clock)
    players.bend["bob", stage] = silent
    began = clock()
    assert players.play().state is RoundState.AGGREGATED
    assert players.round.attempt == 1
    assert clock() - began == STAGE_SECONDS
    there = FOUR if stage in {"consistency", "unmasking"} else ("ada", "cleo", "dan")
    assert np.array_equal(players.aggregate(), players.mean(there))


@pytest.mark.parametrize(
    "stages", [("keys", "shares"), ("shares", "masked"), ("masked", "unmasking"), ("keys", "keys")]
)
def test_as_many_are_lost_as_can_be(context: Context, clock: ManualClock, stages: tuple[str, str]) -> None:
    """Of seven two may be lost, at one stage or at two."""
    players = opened(context, clock, *SEVEN)
    for name, stage in zip(("bob", "eve"), stages, strict=True):
        players.bend[name, stage] = silent
    assert players.play().state is RoundState.AGGREGATED
    assert players.round.attempt == 1
    gone = {name for name, stage in zip(("bob", "eve"), stages, strict=True) if stage != "unmasking"}
    mean = np.mean([players.all[name].delta for name in SEVEN if name not in gone], axis=0)
    assert np.abs(players.aggregate() - mean).max() <= Coding(50.0, 7, weighted=False).error_bound(7) + 1e-7


@pytest.mark.parametrize("stage", STAGES[:4])
def test_too_many_are_lost_and_come_back(context: Context, clock: ManualClock, stage: str) -> None:
    """The attempt is made again, with fresh keys; whoever was silent is asked whether it is there, and is in it."""
    players = opened(context, clock)
    for name in ("bob", "cleo"):
        players.bend[name, stage] = silent
    players.play(until=RoundState.OPEN, attempt=1)
    before = {name: player.secrets for name, player in players.all.items()}
    assert context.rounds.wanted("ada").assignment is None
    assert context.rounds.wanted("bob").assignment is not None
    players.bend.clear()
    assert players.play().state is RoundState.AGGREGATED
    assert players.round.attempt == 2
    assert np.array_equal(players.aggregate(), players.mean(FOUR))
    assert all(player.secrets != before[name] for name, player in players.all.items())


def test_too_many_are_lost_after_shares_have_left(context: Context, clock: ManualClock) -> None:
    """Nothing is made again: two sums that differ by one agent would tell its update."""
    players = opened(context, clock)
    for name in ("bob", "cleo"):
        players.bend[name, "unmasking"] = silent
    ended = players.play()
    assert (ended.state, ended.attempt) == (RoundState.ABORTED, 1)
    assert ended.reason == "at the stage unmasking 2 of 4 answered, and 3 are needed"


def test_five_failed_attempts_end_the_round(context: Context, clock: ManualClock) -> None:
    """Who is ready every time and then says nothing costs so much, and no more; the next round is as any other."""
    players = opened(context, clock)
    for name in ("bob", "cleo"):
        players.bend[name, "keys"] = silent
    ended = players.play()
    assert (ended.state, ended.attempt) == (RoundState.ABORTED, 5)
    assert ended.reason == "at the stage keys 2 of 4 answered, and 3 are needed"
    assert players.round.number == 2
    players.bend.clear()
    assert players.play().state is RoundState.AGGREGATED


@pytest.mark.parametrize("stage", ["keys", "shares", "masked"])
def test_a_cohort_that_has_become_too_small_is_not_gone_on_with(
    context: Context, clock: ManualClock, stage: str
) -> None:
    """As many as the threshold are there, and fewer than the operator wants in a sum: agents would refuse them."""
    players = opened(
        context, clock, *FIVE, cohort=CohortTerms(min_count=5, max_count=5, min_seconds=10, max_seconds=60)
    )
    players.bend["bob", stage] = silent
    players.play(until=RoundState.OPEN, attempt=1)
    assert events_of(context)[-1].detail["reason"] == f"at the stage {stage} 4 of 5 answered, and 5 are needed"
    players.bend.clear()
    assert players.play().state is RoundState.AGGREGATED


def test_a_cohort_that_may_be_split_is_counted_as_a_whole(context: Context, clock: ManualClock) -> None:
    """43 would be enough for a group; the operator wants 44 in the sum, and one has not come."""
    names = [f"agent-{number:02}" for number in range(44)]
    cohort = CohortTerms(min_count=44, max_count=LARGEST_GROUP + 1, min_seconds=10, max_seconds=60)
    players = opened(context, clock, *names, cohort=cohort)
    players.bend["agent-07", "keys"] = silent
    players.play(until=RoundState.OPEN, attempt=1)
    reason = "at the stage keys 43 answered in all groups, and the cohort's min_count is 44"
    assert events_of(context)[-1].detail["reason"] == reason


@pytest.mark.parametrize("stage", ["consistency", "unmasking"])
def test_who_is_lost_after_its_vector_came_is_in_the_sum(context: Context, clock: ManualClock, stage: str) -> None:
    """The operator wants five in the sum, and five are; four of them are enough to undo its masks."""
    cohort = CohortTerms(min_count=5, max_count=5, min_seconds=10, max_seconds=60)
    players = opened(context, clock, *FIVE, cohort=cohort)
    players.bend["bob", stage] = silent
    assert players.play().state is RoundState.AGGREGATED
    assert (players.round.attempt, players.round.accepted) == (1, 5)


def test_whoever_is_silent_in_the_same_way_leaves_the_same_bytes(tmp_path: Path, clock: ManualClock) -> None:
    """Keys are drawn anew, the integers are not, and their sums are exact: of the same seeds comes the same adapter."""
    digests = set()
    for turn in range(2):
        with coordinator(tmp_path / str(turn), clock) as context:
            players = opened(context, clock)
            players.bend |= {("bob", "masked"): silent, ("cleo", "unmasking"): silent}
            digests.add(players.play().aggregate)
    assert len(digests) == 1


# --- members that are revoked ---------------------------------------------------------------------------------------


def leave(players: Players, name: str, how: str = "revoked") -> None:
    """Let one be a member no more, whose requests are refused from now on."""
    with players.context.store.write() as tx:
        member = tx.members.get(name)
        gone = {"revoked": {"state": MemberState.REVOKED}, "over": {"not_after": int(players.clock()) - 1}}[how]
        tx.members.change(member, replace(member, **gone), actor="operator")
    players.bend |= {(name, stage): silent for stage in ("ready", *STAGES)}


@pytest.mark.parametrize("how", ["revoked", "over"])
def test_who_is_a_member_no_more_is_not_gathered(context: Context, clock: ManualClock, how: str) -> None:
    """Though it had said that it is ready; the others wait for nobody in its place, and lose no time by it."""
    players = opened(context, clock, *FIVE)
    for name in FOUR:
        assert players.act(name)
    leave(players, "bob", how)
    context.rounds.reconcile()
    assert players.round.accepted == 3
    assert players.act("eve")
    clock.advance(10)
    context.rounds.reconcile()
    with context.store.read() as tx:
        assert [attempt.members for attempt in tx.attempts.of(players.round)] == [("ada", "cleo", "dan", "eve")]
    began = clock()
    assert players.play().state is RoundState.AGGREGATED
    assert (players.round.attempt, clock()) == (1, began)


def test_a_cohort_that_was_revoked_is_none(context: Context, clock: ManualClock) -> None:
    """No attempt is opened among fewer than the operator wants."""
    players = opened(context, clock)
    for name in FOUR:
        assert players.act(name)
    leave(players, "bob")
    leave(players, "dan")
    clock.advance(61)
    context.rounds.reconcile()
    ended = players.numbered(1)
    assert (ended.state, ended.attempt) == (RoundState.ABORTED, 0)
    assert "only 2 of at least 3 agents had an update" in (ended.reason or "")


@pytest.mark.parametrize("stage", STAGES)
def test_a_member_that_is_revoked_in_an_attempt_is_silent_from_then_on(
    context: Context, clock: ManualClock, stage: str
) -> None:
    """Where its certificate would have to be shown, the attempt is made again without it."""
    players = opened(context, clock)
    players.play(until=RoundState(stage))
    leave(players, "bob")
    assert players.play().state is RoundState.AGGREGATED
    assert players.round.attempt == (2 if stage == "shares" else 1)
    there = FOUR if stage in {"consistency", "unmasking"} else ("ada", "cleo", "dan")
    assert np.array_equal(players.aggregate(), players.mean(there))
    assert players.round.refused == 0


@pytest.mark.parametrize("announced", ["keys", "shares"])
def test_nobody_is_shown_the_certificate_of_who_was_revoked(
    context: Context, clock: ManualClock, announced: str
) -> None:
    """It has announced its keys, and the others wait until there is an attempt without it."""
    players = opened(context, clock)
    players.play(until=RoundState(announced))
    if announced == "keys":
        for name in FOUR:
            if name == "dan":
                leave(players, "bob")
            assert players.act(name)
    else:
        leave(players, "bob")
    assert players.round.state is RoundState.SHARES
    assert context.rounds.wanted("ada").summons is None
    context.rounds.reconcile()
    assert events_of(context)[-1].detail["reason"] == "at the stage shares 1 of its members were members no more"
    players.play(until=RoundState.SHARES, attempt=2)
    summons = context.rounds.wanted("ada").summons
    assert isinstance(summons, SharesWanted)
    assert [each.membership.certificate.name for each in summons.members] == ["ada", "cleo", "dan"]
    assert players.play().state is RoundState.AGGREGATED


# --- weighted means -------------------------------------------------------------------------------------------------


def weighted(context: Context, clock: ManualClock) -> Players:
    """Return four that weigh 1 to 4, in a weighted run whose first round is open."""
    everybody = [Player(name, examples=number) for number, name in enumerate(FOUR, 1)]
    players = Players(context, clock, *everybody)
    begin(context, terms_of(**SECURE, weighting="examples"))
    return players


def weighted_mean(players: Players, *names: str) -> np.ndarray:
    """Return the mean of these players' updates, weighted by their examples."""
    there = [players.all[name] for name in names]
    return np.average([player.delta for player in there], axis=0, weights=[player.examples for player in there])


@pytest.mark.parametrize("stage", STAGES)
def test_an_agent_is_lost_while_counts_are_summed(context: Context, clock: ManualClock, stage: str) -> None:
    """Who has unmasked the sum of the counts is in the second attempt, and nobody else, whosever count is in it."""
    players = weighted(context, clock)
    players.bend["bob", stage] = silent
    players.play(until=RoundState.KEYS, attempt=2)
    players.bend.clear()
    assert players.play().state is RoundState.AGGREGATED
    assert players.round.attempt == 2
    there = ("ada", "cleo", "dan")
    np.testing.assert_allclose(players.aggregate(), weighted_mean(players, *there), atol=1e-6)
    assert context.rounds.wanted("bob").assignment is None


@pytest.mark.parametrize(("stage", "state"), [("consistency", RoundState.OPEN), ("unmasking", RoundState.ABORTED)])
def test_too_few_have_unmasked_the_counts(context: Context, clock: ManualClock, stage: str, state: RoundState) -> None:
    """Four are enough to undo masks, and too few for the sum that the operator wants of the updates."""
    cohort = CohortTerms(min_count=5, max_count=5, min_seconds=10, max_seconds=60)
    players = opened(context, clock, *FIVE, cohort=cohort, weighting="examples")
    players.bend["bob", stage] = silent
    current = players.play(until=RoundState.OPEN, attempt=1)
    assert (current.state, current.attempt) == (state, 1)
    reasons = [current.reason, *(event.detail.get("reason") for event in events_of(context))]
    assert f"at the stage {stage} 4 of 5 answered, and 5 are needed" in reasons


@pytest.mark.parametrize("stage", STAGES)
def test_an_agent_is_lost_after_counts_were_summed(context: Context, clock: ManualClock, stage: str) -> None:
    """The others are weighted by the same total, and the mean is theirs; no count is summed a second time."""
    players = weighted(context, clock)
    players.play(until=RoundState.KEYS, attempt=2)
    players.bend["bob", stage] = silent
    assert players.play().state is RoundState.AGGREGATED
    assert players.round.attempt == 2
    there = FOUR if stage in {"consistency", "unmasking"} else ("ada", "cleo", "dan")
    np.testing.assert_allclose(players.aggregate(), weighted_mean(players, *there), atol=1e-6)


def test_two_are_lost_after_counts_were_summed(context: Context, clock: ManualClock) -> None:
    """Three weigh more than two, and of two each would learn the other's: the round comes to nothing at once."""
    players = weighted(context, clock)
    players.play(until=RoundState.KEYS, attempt=2)
    for name in ("bob", "cleo"):
        players.bend[name, "masked"] = silent
    ended = players.play()
    assert (ended.state, ended.attempt) == (RoundState.ABORTED, 2)
    assert "only 2 of at least 3 agents had an update" in (ended.reason or "")


def test_who_is_not_among_the_counts_is_in_no_later_attempt(context: Context, clock: ManualClock) -> None:
    """Its weight is not in the total by which all are divided, though it had said that it is ready."""
    names = SEVEN[:6]
    players = Players(context, clock, *(Player(name, examples=number) for number, name in enumerate(names, 1)))
    cohort = CohortTerms(min_count=3, max_count=6, min_seconds=10, max_seconds=60)
    begin(context, terms_of(**{**SECURE, "cohort": cohort}, weighting="examples"))
    players.bend["bob", "masked"] = silent
    players.play(until=RoundState.KEYS, attempt=2)
    players.bend = {("ada", "keys"): silent, ("cleo", "keys"): silent}
    players.play(until=RoundState.KEYS, attempt=3)
    with context.store.read() as tx:
        assert [attempt.members for attempt in tx.attempts.of(players.round)] == [("dan", "eve", "fay")]
    assert players.play().state is RoundState.AGGREGATED
    np.testing.assert_allclose(players.aggregate(), weighted_mean(players, "dan", "eve", "fay"), atol=1e-6)


def test_one_is_lost_and_then_another_in_attempts_of_one_round(context: Context, clock: ManualClock) -> None:
    """Between the two passes bob is gone, within the second eve: the third is among the rest, by the same total."""
    players = Players(context, clock, *(Player(name, examples=number) for number, name in enumerate(FIVE, 1)))
    cohort = CohortTerms(min_count=3, max_count=5, min_seconds=10, max_seconds=60)
    begin(context, terms_of(**{**SECURE, "cohort": cohort}, weighting="examples"))
    players.play(until=RoundState.KEYS, attempt=2)
    total = players.round.total_count
    players.bend |= {("bob", "keys"): silent, ("eve", "masked"): silent}
    assert players.play().state is RoundState.AGGREGATED
    assert players.round.attempt == 3
    assert players.round.total_count == total == 2 * 15
    np.testing.assert_allclose(players.aggregate(), weighted_mean(players, "ada", "cleo", "dan"), atol=1e-6)


def test_whoever_weighs_almost_everything_is_lost_after_counts_were_summed(
    context: Context, clock: ManualClock
) -> None:
    """Shares of a millionth have too few levels: no such mean is published, and the next round counts anew."""
    players = weighted(context, clock)
    players.all["dan"].examples = 10**6
    players.play(until=RoundState.KEYS, attempt=2)
    players.bend["dan", "masked"] = silent
    ended = players.play()
    assert ended.state is RoundState.ABORTED
    assert "mean_too_coarse: the 3 agents whose updates came weigh 6 of the 2000012" in (ended.reason or "")
    players.bend.clear()
    players.all["dan"].examples = 4
    assert players.play().state is RoundState.AGGREGATED
    np.testing.assert_allclose(players.aggregate(2), weighted_mean(players, *FOUR), atol=1e-6)


# --- pauses, restarts, ends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_a_pause_in_the_middle_of_a_stage_is_nobodys_silence(context: Context, clock: ManualClock, stage: str) -> None:
    """While it lasts nobody is summoned and nothing closes; what comes is taken; then the stage has its time again."""
    players = opened(context, clock)
    players.play(until=RoundState(stage))
    assert players.act("ada")
    wanted = context.rounds.wanted("bob").summons
    assert wanted is not None
    context.lifecycle.pause(RUN, actor="operator")
    assert context.rounds.wanted("cleo").summons is None
    clock.advance(1000 * STAGE_SECONDS)
    context.rounds.reconcile()
    message = players.all["bob"].answer(wanted)
    assert players.send("bob", wanted.place, wanted.stage, message)
    assert players.round.state is RoundState(stage)
    context.lifecycle.start(RUN, actor="operator")
    context.rounds.reconcile()
    assert players.round.state is RoundState(stage)
    assert players.play().state is RoundState.AGGREGATED
    assert players.round.attempt == 1
    assert np.array_equal(players.aggregate(), players.mean(FOUR))


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_is_complete_in_a_pause_closes_after_it(context: Context, clock: ManualClock, stage: str) -> None:
    """Its last message came while nothing may go on."""
    players = opened(context, clock)
    players.play(until=RoundState(stage))
    summoned = {name: context.rounds.wanted(name).summons for name in FOUR}
    context.lifecycle.pause(RUN, actor="operator")
    for name, wanted in summoned.items():
        assert wanted is not None
        assert players.send(name, wanted.place, wanted.stage, players.all[name].answer(wanted))
    context.rounds.reconcile()
    assert players.round.state is RoundState(stage)
    context.lifecycle.start(RUN, actor="operator")
    assert players.play().state is RoundState.AGGREGATED
    assert players.round.attempt == 1


def test_a_coordinator_that_restarts_after_every_message_goes_on(tmp_path: Path, clock: ManualClock) -> None:
    """Killed between any two messages, and before each pass of its reconciler: one attempt, and the sum of all four."""
    with coordinator(tmp_path, clock) as context:
        players = opened(context, clock)
    seen = set()
    for turn in range(100):
        with coordinator(tmp_path, clock) as context:
            players.context = context
            seen.add(players.round.state)
            if players.round.state is RoundState.AGGREGATED:
                break
            name = (*FOUR, None)[turn % 5]
            if name is None:
                context.rounds.reconcile()
            else:
                players.act(name)
            clock.advance(STAGE_SECONDS)  # the coordinator's absence is not the agents'
    with coordinator(tmp_path, clock) as context:
        players.context = context
        assert players.round.attempt == 1
        assert np.array_equal(players.aggregate(), players.mean(FOUR))
        context.rounds.reconcile()
        assert left(context) == (0, set())
    assert {RoundState.OPEN, *STAGES, RoundState.AGGREGATED} <= seen


@pytest.mark.slow
def test_a_coordinator_that_dies_at_any_commit_goes_on(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before each commit of an attempt, with its files and without its rows: one attempt, the same adapter."""
    mortal, digests = Mortal(monkeypatch), set()
    for die_before in range(100):
        mortal.commits, mortal.die_before = 0, None
        folder = tmp_path / str(die_before)
        with coordinator(folder, clock) as context:
            players = opened(context, clock)
            mortal.commits, mortal.die_before = 0, die_before or None
            with suppress(PowerCut):
                players.play()
        died, mortal.die_before = mortal.commits == die_before, None
        with coordinator(folder, clock) as context:
            players.context = context
            if players.numbered(1).state in {RoundState.OPEN, *STAGES}:
                players.play()
            assert players.numbered(1).attempt == 1
            digests.add(players.numbered(1).aggregate)
            context.rounds.reconcile()
            assert left(context) == (0, set())
        if die_before and not died:
            break
    else:
        pytest.fail("the coordinator always died")
    assert len(digests) == 1
    assert die_before > 25


@pytest.mark.parametrize("end", ["aggregated", "cancelled", "aborted"])
def test_what_was_sent_is_deleted_once_the_round_is_past_its_attempts(
    context: Context, clock: ManualClock, end: str
) -> None:
    """Masked vectors and messages, of attempts that failed too, and however the round ends."""
    players = opened(context, clock)
    for name in ("bob", "cleo"):
        players.bend[name, "consistency"] = silent
    players.play(until=RoundState.OPEN, attempt=1)
    players.bend.clear()
    players.play(until=RoundState.UNMASKING, attempt=2)
    messages, vectors = left(context)
    assert messages == 4 + 4 + 4 + 2 + 4 * 4
    assert len(vectors) == 8
    if end == "cancelled":
        cancelled(context)
    elif end == "aborted":
        players.bend |= {(name, "unmasking"): silent for name in FOUR}
        players.play()
    else:
        players.play()
    context.rounds.reconcile()
    assert left(context) == (0, set())


def test_what_was_sent_is_deleted_when_a_paused_run_is_cancelled(context: Context, clock: ManualClock) -> None:
    """Nothing of a run goes on while it is paused, but its end."""
    players = opened(context, clock)
    players.play(until=RoundState.CONSISTENCY)
    context.lifecycle.pause(RUN, actor="operator")
    context.rounds.reconcile()
    assert left(context)[0] > 0
    cancelled(context)
    context.rounds.reconcile()
    assert left(context) == (0, set())


def test_a_run_of_several_rounds_leaves_nothing_of_any(context: Context, clock: ManualClock) -> None:
    """Each round has its own attempts, and everybody is in each."""
    players = opened(context, clock, rounds=3)
    for _ in range(3):
        assert players.play().state is RoundState.AGGREGATED
        work(context)
        work(context)
        context.rounds.reconcile()
    assert run_of(context).state is RunState.FINISHED
    assert left(context) == (0, set())


# --- everything at once ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_closes_once_however_many_complete_it(context: Context, clock: ManualClock, stage: str) -> None:
    """All four answer at the same moment, while the reconciler looks as often as it can: one close, and one sum."""
    players = opened(context, clock)
    players.play(until=RoundState(stage))
    summoned = {name: context.rounds.wanted(name).summons for name in FOUR}
    messages = {name: players.all[name].answer(wanted) for name, wanted in summoned.items() if wanted is not None}
    start, ended = threading.Barrier(5), threading.Event()

    def send(name: str) -> bool:
        wanted = summoned[name]
        assert wanted is not None
        start.wait(10)
        return players.send(name, wanted.place, wanted.stage, messages[name])

    def look() -> None:
        start.wait(10)
        while not ended.is_set():
            context.rounds.reconcile()

    with ThreadPoolExecutor(5) as threads:
        looking = threads.submit(look)
        assert all(threads.map(send, FOUR))
        ended.set()
        looking.result(10)
    assert not players.refused
    assert players.play().state is RoundState.AGGREGATED
    assert players.round.attempt == 1
    assert np.array_equal(players.aggregate(), players.mean(FOUR))
    kinds = [event.kind for event in events_of(context)]
    assert all(kinds.count(f"round.{each}") == 1 for each in (*STAGES, "aggregated"))


class Meanwhile(MaskedSums):
    """Lets something happen while the sum is worked out, outside any transaction."""

    def __init__(self, inner: MaskedSums, happens: object) -> None:
        self._inner, self._happens = inner, happens

    def total(self, closed: ClosedAttempt) -> Unmasked:
        """Work it out, and let it happen."""
        unmasked = self._inner.total(closed)
        self._happens()
        return unmasked

    def aggregate(self, *args: object) -> object:
        """Do as ever."""
        return self._inner.aggregate(*args)


def test_a_run_that_is_cancelled_while_its_sum_is_worked_out_has_none(context: Context, clock: ManualClock) -> None:
    """The sum is of a round as it was: it is thrown away, with what it was made of."""
    players = opened(context, clock)
    players.play(until=RoundState.UNMASKING)
    context.rounds._sums = Meanwhile(context.rounds._sums, lambda: cancelled(context))
    ended = players.play()
    assert ended.state is RoundState.ABORTED
    assert ended.aggregate is None
    context.rounds.reconcile()
    messages, blobs = left(context)
    assert messages == 0
    assert len(blobs) == 1  # the sum itself, which no row names: the next start sweeps it away


def test_a_run_that_is_paused_while_its_sum_is_worked_out_keeps_it(context: Context, clock: ManualClock) -> None:
    """What is under way may finish; the sum is not worked out twice."""
    players = opened(context, clock)
    players.play(until=RoundState.UNMASKING)
    context.rounds._sums = Meanwhile(context.rounds._sums, lambda: context.lifecycle.pause(RUN, actor="operator"))
    assert players.play().state is RoundState.AGGREGATED
    assert np.array_equal(players.aggregate(), players.mean(FOUR))


def test_between_two_stages_nobody_is_sent_to_train_for_another_run(context: Context, clock: ManualClock) -> None:
    """A stage lasts seconds and a training minutes: who has answered waits for the next, and who was lost is free."""
    players = opened(context, clock)
    players.bend["bob", "keys"] = silent
    players.play(until=RoundState.KEYS)
    begin(context, terms_of(**SECURE), "other")
    assert players.act("ada")
    nothing = context.rounds.wanted("ada")
    assert (nothing.summons, nothing.assignment) == (None, None)
    players.play(until=RoundState.SHARES)
    assignment = context.rounds.wanted("bob").assignment
    assert assignment is not None
    assert assignment.run_id == "other"


# --- what is read of what was sent ----------------------------------------------------------------------------------


def test_a_group_does_not_depend_on_what_others_have_sent(context: Context, clock: ManualClock) -> None:
    """Messages of other groups are not looked at, by a member's polls nor by its group's sum: there may be many."""
    players = opened(context, clock)
    for stage in STAGES:
        players.play(until=RoundState(stage))
        with context.store.write() as tx:
            tx.attempts.add_message(players.round, stage, "zoe", "what no group of ours has sent")
    assert players.play().state is RoundState.AGGREGATED
    assert np.array_equal(players.aggregate(), players.mean(FOUR))


def test_a_member_reads_what_is_sealed_for_it_alone(context: Context, clock: ManualClock) -> None:
    """Of each dealt message its own part, whatever the others' is: together they grow with the square of a group."""
    players = opened(context, clock)
    players.play(until=RoundState.MASKED)
    table = schema.attempt_messages
    with context.store.write() as tx:
        current = players.round
        dealt = tx.attempts.messages(current, "shares", FOUR)
        for name, body in dealt.items():
            spoilt = {"sealed": json.loads(body)["sealed"] | {"cleo": None}}
            tx._rows.write(
                table.update().where(table.c.agent == name, table.c.stage == "shares").values(body=json.dumps(spoilt))
            )
    summons = context.rounds.wanted("ada").summons
    assert isinstance(summons, MaskedWanted)
    assert summons.sealed == {name: json.loads(dealt[name])["sealed"]["ada"] for name in FOUR if name != "ada"}


class OneByOne(Unmasking):
    """Sees that of all groups no more than two are there at once: the one before, and the next."""

    def __init__(self) -> None:
        self.seen: list[weakref.ref[MaskedGroup]] = []

    def total(self, groups: Iterable[MaskedGroup]) -> Unmasked:
        """Look at the groups, and add nothing up."""
        for group in groups:
            assert not any(before() for before in self.seen[:-1])
            self.seen.append(weakref.ref(group))
        return Unmasked(np.zeros(0, dtype=np.int64), frozenset())


def test_shares_are_read_a_group_at_a_time(context: Context, clock: ManualClock) -> None:
    """The memory of a sum does not grow with the number of groups."""
    players = opened(context, clock)
    players.play(until=RoundState.UNMASKING)
    with context.store.read() as tx:
        closed = closed_attempt(tx, players.round)
    unmasking = OneByOne()
    MaskedSums(context.store, context.blobs, unmasking).total(replace(closed, attempts=5 * closed.attempts))
    assert len(unmasking.seen) == 5


def test_a_masked_vector_that_has_rotted_is_found(context: Context, clock: ManualClock) -> None:
    """One bit of it would make another sum, which nobody could tell from the right one: the round is over."""
    players = opened(context, clock)
    players.play(until=RoundState.UNMASKING)
    with context.store.read() as tx:
        digest = tx.attempts.messages(players.round, RoundState.MASKED, ["bob"])["bob"]
    file = context.blobs.path(digest)
    content = file.read_bytes()
    file.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    ended = players.play()
    assert ended.state is RoundState.ABORTED
    assert (ended.reason or "").startswith(f"blob_corrupt: blob {digest} has changed on disk")


# --- groups ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("agents", "size", "groups"),
    [
        (3, 3, [3]),
        (128, 128, [128]),
        (129, 128, [64, 65]),
        (257, 128, [85, 86, 86]),
        (1000, 128, [125] * 8),
    ],
)
def test_groups_are_as_even_as_can_be(agents: int, size: int, groups: list[int]) -> None:
    """Everybody is in one, none is above the size, and none so small that it hides nobody."""
    names = [f"agent-{number}" for number in range(agents)]
    drawn = _groups(names, size)
    assert sorted(map(len, drawn)) == groups
    assert sorted(name for group in drawn for name in group) == sorted(names)
    if len(groups) > 1:
        assert _groups(names, size) != drawn  # a coordinator that keeps the protocol does not choose who is together


@pytest.mark.slow
@pytest.mark.parametrize("weighting", ["unweighted", "examples"])
def test_sums_of_groups_add_up(context: Context, clock: ManualClock, weighting: str) -> None:
    """129 agents are two groups, each with its own keys and threshold; one of them is lost, and 128 are in the mean."""
    names = [f"agent-{number:03}" for number in range(LARGEST_GROUP + 1)]
    players = Players(context, clock, *(Player(name, examples=1 + place % 5) for place, name in enumerate(names)))
    cohort = CohortTerms(min_count=3, max_count=len(names), min_seconds=10, max_seconds=60)
    begin(context, terms_of(**{**SECURE, "cohort": cohort}, weighting=weighting))
    players.bend["agent-007", "masked"] = silent
    unmasking = players.play(until=RoundState.UNMASKING)
    with context.store.read() as tx:
        members = [attempt.terms.members for attempt in tx.attempts.of(unmasking)]
    assert players.play().state is RoundState.AGGREGATED
    assert sorted(members) == [64, 65]
    there = [name for name in names if name != "agent-007"]
    if weighting == "unweighted":
        mean = np.mean([players.all[name].delta for name in there], axis=0)
    else:
        mean = weighted_mean(players, *there)
    bound = players.numbered(1).error_bound
    assert bound is not None
    assert np.abs(players.aggregate() - mean).max() <= bound + 1e-6
