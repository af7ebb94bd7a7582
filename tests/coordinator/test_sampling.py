"""Rounds that ask some of the members: who they are, that it stays so, and what becomes of the others."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.federation import ManualClock
from services.coordinator.context import Context
from shared.errors import NotAllowed, RoundClosed
from shared.protocol.rounds import RoundState, sample_of
from shared.protocol.terms import CohortTerms, RunTerms
from tests.support.federations import RUN, begin, coordinator, play_round, submit, terms_of
from tests.support.players import SECURE, Player, Players, silent

SIX = ("ada", "bob", "cleo", "dan", "eve", "fay")


def sampling(**changes: object) -> RunTerms:
    """Return terms by which a round asks three members, and closes with the updates of two."""
    cohort = {"min_count": 1, "max_count": 2, "min_seconds": 10, "max_seconds": 60, "sample_count": 3}
    return terms_of(cohort=CohortTerms.model_validate(cohort | changes), rounds=20)


def asked(context: Context, number: int = 1) -> list[str]:
    """Return the members that a round asks."""
    with context.store.read() as tx:
        sample = tx.round(RUN, number).sample
    assert sample is not None
    return list(sample)


@pytest.fixture
def six(tmp_path: Path, clock: ManualClock):
    """A coordinator with six members."""
    with coordinator(tmp_path / "coordinator", clock, agents=SIX) as opened:
        yield opened


def test_a_round_asks_its_sample_and_nobody_else(six: Context) -> None:
    """Who is not in it waits as if there were no round, and is told so where it sends something all the same."""
    begin(six, sampling())
    sample = asked(six)
    wanted = {name: six.rounds.wanted(name).assignment for name in SIX}
    assert len(sample) == 3
    assert [name for name in SIX if wanted[name] is not None] == sample
    for name in set(SIX) - set(sample):
        with pytest.raises(NotAllowed, match=f"round 1 of run {RUN} asks 3 members, and {name} is none of them"):
            submit(six, name)


def test_a_round_that_asks_more_than_it_takes_does_not_wait_for_the_slowest(six: Context) -> None:
    """It closes with the first two; the third is late, is told so, and is counted."""
    begin(six, sampling())
    first, second, slow = asked(six)
    submit(six, first)
    submit(six, second)
    six.rounds.reconcile()
    with pytest.raises(RoundClosed):
        submit(six, slow)
    view = six.lifecycle.rounds(RUN).rounds[0]
    assert (view.state, view.accepted, view.late) == (RoundState.AGGREGATED, 2, 1)


def test_a_sample_is_found_again_from_the_audit_log(six: Context) -> None:
    """The log names who is asked and who is not; the run's terms say the rest, so that nobody need believe it."""
    begin(six, sampling())
    line = next(line for line in six.audit.page(after=0, limit=500).entries if line.action == "round.sampled")
    members = [*line.detail["sample"], *line.detail["passed_over"]]
    assert sorted(members) == sorted(SIX)
    assert line.subject == f"run/{RUN}/round/1"
    assert sample_of(members, 3, run_id=RUN, run_seed=1, round_number=1) == line.detail["sample"] == asked(six)


def test_a_sample_outlives_the_coordinator_and_a_change_of_members(tmp_path: Path, clock: ManualClock) -> None:
    """Who was asked stays asked: one who comes later waits for the next round, wherever its name would have placed it.

    Without the row the members of now would be sampled, and an agent could train for a round that has dropped it.
    """
    with coordinator(tmp_path, clock, agents=SIX) as before:
        begin(before, sampling())
        sample = asked(before)
    later = [f"agent-{number}" for number in range(40)]
    assert sample_of([*SIX, *later], 3, run_id=RUN, run_seed=1, round_number=1) != sample
    with coordinator(tmp_path, clock, agents=[*SIX, *later]) as after:
        assert asked(after) == sample
        assert [name for name in [*SIX, *later] if after.rounds.wanted(name).assignment] == sample


def test_nobody_is_asked_who_is_no_member_now(six: Context, clock: ManualClock) -> None:
    """Revoked members are not drawn, and neither are those whose certificates are over."""
    six.membership.revoke("ada", "gone", actor="operator")
    with six.store.write() as tx:
        bob = tx.members.get("bob")
        tx.members.change(bob, replace(bob, not_after=int(clock()) - 1), actor="operator")
    begin(six, sampling(sample_count=6))
    assert asked(six) == ["cleo", "dan", "eve", "fay"]


def test_fewer_members_than_a_sample_are_all_asked(context: Context) -> None:
    """The round then goes on as one that asks all: with enough of them, after its shortest time."""
    begin(context, sampling(sample_count=50))
    assert asked(context) == ["ada", "bob", "cleo"]


def test_each_round_draws_anew_and_nobody_is_left_out_for_long() -> None:
    """Over many rounds everybody is asked about equally often: the hash of round and name decides, and no order."""
    drawn = Counter(
        name for number in range(1, 601) for name in sample_of(SIX, 2, run_id=RUN, run_seed=1, round_number=number)
    )
    assert drawn.keys() == set(SIX)
    assert all(150 < count < 250 for count in drawn.values()), drawn


def test_a_run_without_a_sample_asks_everybody(context: Context) -> None:
    """Its rounds have no sample, and its audit log no line about one."""
    begin(context)
    play_round(context, 1)
    with context.store.read() as tx:
        assert tx.round(RUN, 1).sample is None
    assert "round.sampled" not in {line.action for line in context.audit.page(after=0, limit=500).entries}


def test_what_a_straggler_has_trained_counts_if_the_attempt_is_made_again(context: Context, clock: ManualClock) -> None:
    """Five are asked and four taken; where two of these fall silent, the fifth takes a place with what it has."""
    players = Players(context, clock, *map(Player, SIX[:5]))
    cohort = CohortTerms(min_count=3, max_count=4, min_seconds=10, max_seconds=60, sample_count=5)
    begin(context, terms_of(**SECURE | {"cohort": cohort}))
    players.bend |= {("ada", "keys"): silent, ("bob", "keys"): silent}
    assert players.play(until=RoundState.KEYS).accepted == 4
    with pytest.raises(RoundClosed):
        context.attempts.ready("eve", RUN, 1)

    players.bend |= {("ada", "ready"): silent, ("bob", "ready"): silent}
    assert players.play().state is RoundState.AGGREGATED
    assert np.array_equal(players.aggregate(), players.mean(["cleo", "dan", "eve"]))
    assert (players.round.attempt, players.round.late) == (2, 1)
