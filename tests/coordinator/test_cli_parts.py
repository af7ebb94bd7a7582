"""What a run is said to be at, and where its time is said to have gone."""

import pytest

from bench.federation import ManualClock, sign
from services.coordinator.cli.parts import PARTS, phase, time_spent
from services.coordinator.context import Context
from shared.protocol.rounds import RoundState
from shared.protocol.terms import CohortTerms
from tests.support.federations import RUN, begin, events_of, lease, result_of, run_of, submit, terms_of, work
from tests.support.players import SECURE, STAGE_SECONDS, Players, silent

LEASE_SECONDS = 30


def told(context: Context, clock: ManualClock) -> str:
    """The run's phase now."""
    return phase(run_of(context), context.lifecycle.rounds(RUN).rounds, events_of(context), now=clock())


def spent(context: Context) -> dict[str, float]:
    """The parts that took any time."""
    return {part: seconds for part, seconds in time_spent(events_of(context)).seconds.items() if seconds}


def aggregated(context: Context) -> None:
    """Play a run up to the moment when co-tuning is ordered."""
    begin(context, terms_of(rounds=2))
    submit(context, "ada", 1.0)
    submit(context, "bob", 2.0)
    context.rounds.reconcile()


# --- phases -------------------------------------------------------------------------------------------------------


def test_the_phase_says_what_the_run_is_at(context: Context, clock: ManualClock):
    """From draft to end, in words that an operator acts on."""
    context.lifecycle.create(RUN, terms_of(), actor="operator")
    assert told(context, clock) == "a draft: `fedcollm runs start run` starts it"
    context.lifecycle.start(RUN, actor="operator")
    granted = lease(context)
    clock.advance(65)
    assert told(context, clock) == "the worker loads and evaluates both models  1:05"
    context.work.complete(granted.job_id, granted.token, result_of(context, granted), actor="worker")
    assert told(context, clock) == "waits for the operator's signature: `fedcollm runs sign run --terms FILE`"
    sign(context, RUN)
    assert told(context, clock).startswith("round 1: 0 of 2 updates; ")
    submit(context, "ada")
    submit(context, "bob")
    assert told(context, clock) == "round 1: 2 of 2 updates"
    context.rounds.reconcile()
    work(context)
    lease(context)
    clock.advance(5)
    assert told(context, clock) == "round 1: evaluation  0:05"
    context.lifecycle.pause(RUN, actor="operator")
    assert told(context, clock) == "paused: `fedcollm runs start run` lets it go on"
    context.lifecycle.cancel(RUN, "enough", actor="operator")
    assert told(context, clock) == "stopped: enough"


def test_a_worker_that_is_missing_is_waited_for_by_name(context: Context, clock: ManualClock):
    """Before the first round, after an aggregation, and from when a worker's lease has run out."""
    context.lifecycle.create(RUN, terms_of(), actor="operator")
    context.lifecycle.start(RUN, actor="operator")
    clock.advance(80)
    assert told(context, clock) == "waits for a worker: none has taken the work for 1:20"
    work(context)
    submit(context, "ada")
    submit(context, "bob")
    context.rounds.reconcile()
    clock.advance(7)
    assert told(context, clock) == "round 1: waits for a worker: none has taken the work for 0:07"
    lease(context)
    clock.advance(LEASE_SECONDS)
    assert told(context, clock) == "round 1: co-tuning  0:30"
    context.rounds.reconcile()
    clock.advance(61)
    assert told(context, clock) == "round 1: waits for a worker: none has taken the work for 1:01"
    lease(context, "another")
    assert told(context, clock) == "round 1: co-tuning  0:00"


@pytest.mark.parametrize(
    ("cohort", "accepted", "waited", "said"),
    [
        ((1, 3, 3600, 86400), 0, 80, "0 of 3 updates; waits 58:40 for all, and then goes on with 1"),
        ((1, 3, 3600, 86400), 2, 80, "2 of 3 updates; goes on without the rest in 58:40"),
        ((1, 3, 3600, 86400), 0, 7200, "0 of 3 updates; needs 1, or gives up in 22:00:00"),
        ((2, 3, 3600, 86400), 1, 80, "1 of 3 updates; waits 58:40 for all, and then goes on with 2"),
        ((3, 3, 3600, 86400), 2, 80, "2 of 3 updates; needs 3, or gives up in 23:58:40"),
    ],
)
def test_an_open_round_says_what_it_waits_for_and_how_long(
    cohort: tuple[int, int, float, float],
    accepted: int,
    waited: float,
    said: str,
    context: Context,
    clock: ManualClock,
):
    """The closing rule, as it applies to what has come so far."""
    least, most, shortest, longest = cohort
    begin(
        context,
        terms_of(cohort=CohortTerms(min_count=least, max_count=most, min_seconds=shortest, max_seconds=longest)),
    )
    for agent in ("ada", "bob")[:accepted]:
        submit(context, agent)
    clock.advance(waited)
    assert told(context, clock) == f"round 1: {said}"
    assert len(told(context, clock)) <= 80


def test_what_ended_a_wait_is_not_waited_for_when_a_run_goes_on(context: Context, clock: ManualClock):
    """A worker that holds the work over a pause still has it; one that nobody holds is waited for from then on."""
    aggregated(context)
    lease(context)
    context.lifecycle.pause(RUN, actor="operator")
    clock.advance(10)
    context.lifecycle.start(RUN, actor="operator")
    assert told(context, clock) == "round 1: co-tuning  0:00"
    clock.advance(LEASE_SECONDS)
    context.rounds.reconcile()
    context.lifecycle.pause(RUN, actor="operator")
    clock.advance(3600)
    context.lifecycle.start(RUN, actor="operator")
    clock.advance(5)
    assert told(context, clock) == "round 1: waits for a worker: none has taken the work for 0:05"


# --- where the time went ------------------------------------------------------------------------------------------


def test_each_part_has_its_own_time(context: Context, clock: ManualClock):
    """What is waited for a worker is no co-tuning and no evaluation."""
    context.lifecycle.create(RUN, terms_of(), actor="operator")
    context.lifecycle.start(RUN, actor="operator")
    for wait, doing in ((1, 2), (4, 8), (16, 32)):
        clock.advance(wait)
        granted = lease(context)
        clock.advance(doing)
        context.work.complete(granted.job_id, granted.token, result_of(context, granted), actor="worker")
        if doing == 2:
            clock.advance(500)
            sign(context, RUN)
            submit(context, "ada")
            clock.advance(50)
            submit(context, "bob")
            context.rounds.reconcile()
    context.rounds.reconcile()
    clock.advance(1000)
    assert spent(context) == {"prepare": 2, "open": 50, "aggregated": 1 + 4 + 16, "cotuning": 8, "evaluating": 32}
    assert set(time_spent([]).seconds) == set(PARTS)


def test_masking_is_a_part_of_its_own(context: Context, clock: ManualClock):
    """All stages of an attempt together; after one that failed, the round is open again."""
    players = Players(context, clock)
    begin(context, terms_of(**SECURE))
    clock.advance(20)
    players.bend["bob", "shares"] = players.bend["cleo", "shares"] = silent
    players.play(until=RoundState.SHARES)
    clock.advance(5)
    assert told(context, clock).startswith("round 1: agents mask their updates, and the sum is unmasked  0:0")
    players.bend.clear()
    assert players.play().state is RoundState.AGGREGATED
    assert players.round.attempt == 2
    assert spent(context)["open"] == 20
    assert spent(context)["masking"] >= STAGE_SECONDS


def test_the_time_of_a_worker_that_was_killed_is_waiting(context: Context, clock: ManualClock):
    """What it computed is lost, and then it was dead: only the lease that bore fruit is co-tuning."""
    aggregated(context)
    lease(context)
    clock.advance(LEASE_SECONDS)
    context.rounds.reconcile()
    clock.advance(70)
    granted = lease(context, "another")
    clock.advance(6)
    context.work.complete(granted.job_id, granted.token, result_of(context, granted), actor="worker")
    assert spent(context) == {"aggregated": LEASE_SECONDS + 70, "cotuning": 6}


def test_a_pause_is_nobodys_time(context: Context, clock: ManualClock):
    """A night in which the operator slept is in no part."""
    begin(context)
    clock.advance(5)
    context.lifecycle.pause(RUN, actor="operator")
    clock.advance(30_000)
    context.lifecycle.start(RUN, actor="operator")
    clock.advance(6)
    submit(context, "ada")
    submit(context, "bob")
    context.rounds.reconcile()
    assert spent(context) == {"open": 11}
