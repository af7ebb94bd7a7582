import pytest

from bench.federation import ManualClock
from services.coordinator.context import Context
from shared.errors import NotFound, RoundClosed
from shared.protocol.messages import RoundScores
from shared.protocol.rounds import RoundState, RunState
from shared.protocol.terms import CohortTerms, GateTerms
from shared.protocol.work import EvaluateResult
from tests.support.federations import (
    AGENTS,
    RUN,
    begin,
    cancelled,
    kinds,
    lease,
    play_round,
    result_of,
    run_of,
    score,
    submit,
    terms_of,
    work,
)


def states(context: Context) -> list[RoundState]:
    """Return the states of the run's rounds, oldest first."""
    return [current.state for current in context.lifecycle.rounds(RUN).rounds]


def newest(context: Context) -> int:
    """Return the number of the newest round."""
    return run_of(context).round


def test_a_run_finishes_after_its_published_rounds(context: Context) -> None:
    """Three rounds asked for, three rounds published, and not one more opened."""
    begin(context, terms_of(rounds=3))
    for number in (1, 2, 3):
        assert newest(context) == number
        play_round(context, number)
    assert states(context) == [RoundState.PUBLISHED] * 3
    assert run_of(context).state is RunState.FINISHED
    assert run_of(context).published.round == 3
    context.rounds.reconcile()
    assert newest(context) == 3
    assert context.rounds.wanted("ada").assignment is None


def test_a_round_goes_through_its_states_in_order(context: Context) -> None:
    """The event log tells the whole story, once, in order."""
    begin(context)
    play_round(context, 1)
    assert kinds(context) == [
        "run.draft",
        "run.warning",
        "run.running",
        "work.leased",
        "work.done",
        "run.prepared",
        "run.signed",
        "round.open",
        "update.accepted",
        "update.accepted",
        "round.aggregated",
        "work.leased",
        "round.cotuning",
        "work.done",
        "round.evaluating",
        "work.leased",
        "work.done",
        "round.published",
        "run.finished",
    ]


def test_the_view_of_a_round_says_where_its_time_went(context: Context, clock: ManualClock) -> None:
    """Seconds in each state add up to the time from opening to end."""
    begin(context)
    clock.advance(2)
    submit(context, "ada")
    submit(context, "bob")
    context.rounds.reconcile()
    clock.advance(3)
    held = lease(context)
    clock.advance(4)
    context.work.complete(held.job_id, held.token, result_of(context, held), actor="worker")
    clock.advance(5)
    work(context)
    (view,) = context.lifecycle.rounds(RUN).rounds
    assert view.seconds == {"open": 2, "aggregated": 3, "cotuning": 4, "evaluating": 5}
    assert view.ended_at is not None
    assert view.ended_at - view.opened_at == 14
    assert view.aggregate_bytes is not None


def test_a_refused_candidate_is_forgotten(context: Context) -> None:
    """The gate refuses a worse theta: the next round starts from theta^t and omega^t, under another number."""
    begin(context, terms_of(rounds=2))
    play_round(context, 1, loss=0.5)
    with context.store.read() as tx:
        before = tx.run(RUN)
    play_round(context, 2, loss=0.75)
    with context.store.read() as tx:
        after, refused, reopened = tx.run(RUN), tx.round(RUN, 2), tx.round(RUN, 3)
    assert refused.state is RoundState.REFUSED
    assert "0.7500" in refused.reason
    assert refused.scores.slm.loss == 0.75
    assert (after.slm_adapter, after.llm_adapter) == (before.slm_adapter, before.llm_adapter)
    assert (reopened.slm_adapter, reopened.llm_adapter) == (before.slm_adapter, before.llm_adapter)
    assignment = context.rounds.wanted("ada").assignment
    assert assignment.round == 3
    assert assignment.adapter == before.slm_adapter


@pytest.mark.parametrize(
    ("gate", "loss", "expected"),
    [
        (GateTerms(enabled=True), 1.0, RoundState.PUBLISHED),  # as good as the published one
        (GateTerms(enabled=True), 1.0001, RoundState.REFUSED),
        (GateTerms(enabled=True, tolerance=0.1), 1.05, RoundState.PUBLISHED),
        (GateTerms(enabled=True, tolerance=0.1), 1.2, RoundState.REFUSED),
        (GateTerms(enabled=False), 9.0, RoundState.PUBLISHED),
    ],
)
def test_the_gate_compares_with_what_is_published(
    gate: GateTerms, loss: float, expected: RoundState, context: Context
) -> None:
    """A candidate is refused when its loss is above the published adapter's by more than the tolerance."""
    begin(context, terms_of(gate=gate, rounds=2))
    play_round(context, 1, loss=loss)
    assert states(context)[0] is expected


def test_small_steps_add_up_over_rounds(context: Context) -> None:
    """What the gate does not stop: each candidate is compared with the one before it, so a tolerance is one a round.

    With the tolerance 0, which the terms have unless they say otherwise, there is no step back at all.
    """
    begin(context, terms_of(gate=GateTerms(tolerance=0.1), rounds=9))
    for number, loss in enumerate((1.1, 1.2, 1.3), start=1):
        play_round(context, number, loss=loss)
    assert states(context) == [*[RoundState.PUBLISHED] * 3, RoundState.OPEN]
    play_round(context, 4, loss=1.41)
    assert states(context)[3] is RoundState.REFUSED
    assert GateTerms() == GateTerms(enabled=True, tolerance=0)


def test_the_gate_looks_at_the_slm_alone(context: Context) -> None:
    """What it does not stop either: an LLM that has become worse goes with an SLM that has not."""
    begin(context)
    for agent in AGENTS:
        submit(context, agent)
    context.rounds.reconcile()
    work(context)
    granted = lease(context)
    scores = RoundScores(slm_aggregated=score(9.0), slm=score(1.0), llm=score(9.0))
    context.work.complete(granted.job_id, granted.token, EvaluateResult(scores=scores), actor="worker")
    assert states(context) == [RoundState.PUBLISHED]


def test_three_rounds_in_a_row_that_come_to_nothing_fail_the_run(context: Context) -> None:
    """The run ends with the last round's reason instead of training for ever."""
    begin(context, terms_of(rounds=9))
    for number in (1, 2, 3):
        play_round(context, number, loss=2.0)
    ended = run_of(context)
    assert ended.state is RunState.FAILED
    assert "3 rounds in a row came to nothing" in ended.reason
    assert "2.0000" in ended.reason
    assert states(context) == [RoundState.REFUSED] * 3


def test_a_published_round_forgives_two_that_came_to_nothing(context: Context) -> None:
    """Only failures in a row count."""
    begin(context, terms_of(rounds=9))
    for number, loss in enumerate((2.0, 2.0, 1.0, 2.0, 2.0), start=1):
        play_round(context, number, loss=loss)
    assert run_of(context).state is RunState.RUNNING
    play_round(context, 6, loss=2.0)
    assert run_of(context).state is RunState.FAILED


def test_a_round_with_too_few_agents_is_aborted_in_the_end(context: Context, clock: ManualClock) -> None:
    """At the longest time with fewer than the minimum: aborted, with who is missing by count, and a new round."""
    begin(context, terms_of(cohort=CohortTerms(min_count=2, max_count=3, min_seconds=0, max_seconds=60)))
    submit(context, "ada")
    clock.advance(59.9)
    context.rounds.reconcile()
    assert states(context) == [RoundState.OPEN]
    clock.advance(0.1)
    context.rounds.reconcile()
    assert states(context) == [RoundState.ABORTED, RoundState.OPEN]
    assert "only 1 of at least 2 agents" in context.lifecycle.rounds(RUN).rounds[0].reason
    assert context.rounds.wanted("ada").assignment.round == 2


def test_three_deserted_rounds_fail_the_run(context: Context, clock: ManualClock) -> None:
    """When nobody comes any more the run says so and ends."""
    begin(context)
    for _ in range(3):
        clock.advance(60)
        context.rounds.reconcile()
    assert run_of(context).state is RunState.FAILED
    assert states(context) == [RoundState.ABORTED] * 3


def test_a_round_closes_with_the_rest_when_an_agent_disappears(context: Context, clock: ManualClock) -> None:
    """One of two agents is enough by the terms: after the least time the round goes on without the other."""
    begin(context)
    submit(context, "ada")
    context.rounds.reconcile()
    assert states(context) == [RoundState.OPEN]
    clock.advance(10)
    context.rounds.reconcile()
    assert states(context) == [RoundState.AGGREGATED]


def test_a_late_update_is_counted_and_changes_nothing(context: Context, clock: ManualClock) -> None:
    """The agent is told to go on, the view counts it, and the aggregate stays what it was."""
    begin(context)
    submit(context, "ada")
    clock.advance(10)
    context.rounds.reconcile()
    with context.store.read() as tx:
        aggregate = tx.round(RUN, 1).aggregate
    with pytest.raises(RoundClosed, match="ask what is wanted"):
        submit(context, "bob")
    (view,) = context.lifecycle.rounds(RUN).rounds
    assert (view.accepted, view.refused, view.late) == (1, 0, 1)
    assert "update.late" in kinds(context)
    with context.store.read() as tx:
        assert tx.round(RUN, 1).aggregate == aggregate
    work(context)
    work(context)
    assert run_of(context).state is RunState.FINISHED


def test_an_agent_that_has_sent_is_not_asked_again(context: Context) -> None:
    """One update a round: what is wanted of an agent ends with its receipt."""
    begin(context)
    submit(context, "ada")
    assert context.rounds.wanted("ada").assignment is None
    assert context.rounds.wanted("bob").assignment is not None


def test_runs_go_on_side_by_side(context: Context, clock: ManualClock) -> None:
    """Two runs do not disturb each other, and an agent is asked for the older one first."""
    begin(context)
    clock.advance(1)
    begin(context, terms_of(seed=7), run_id="second")
    assert context.rounds.wanted("ada").assignment.run_id == RUN
    submit(context, "ada")
    assert context.rounds.wanted("ada").assignment.run_id == "second"
    cancelled(context)
    assert run_of(context, "second").state is RunState.RUNNING


def test_what_an_agent_declined_comes_last_and_brings_no_adapter(context: Context, clock: ManualClock) -> None:
    """Its SLM is not that run's: other runs go first, and what that one publishes is of no use to it."""
    begin(context, terms_of(rounds=2))
    play_round(context, 1)
    clock.advance(1)
    begin(context, terms_of(seed=7), run_id="second")
    assert context.rounds.wanted("ada").assignment.run_id == RUN
    assert context.rounds.wanted("ada", {RUN: "base_model_mismatch"}).assignment.run_id == "second"
    submit(context, "ada", run_id="second")
    assert context.rounds.wanted("ada", {RUN: "base_model_mismatch"}).assignment.run_id == RUN
    assert context.rounds.wanted("ada", {RUN: "base_model_mismatch"}).published is None
    assert context.rounds.wanted("ada", {"second": "base_model_mismatch"}).published == run_of(context).published


def test_artefacts_are_what_was_published_last(context: Context) -> None:
    """Before the first published round there is none: theta^0 is nobody's result."""
    begin(context, terms_of(rounds=2))
    assert context.lifecycle.artefacts(RUN) == []
    assert run_of(context).published is None
    assert context.rounds.wanted("ada").published is None
    play_round(context, 1)
    slm, llm = context.lifecycle.artefacts(RUN)
    assert (slm.round, llm.round) == (1, 1)
    assert slm.digest == run_of(context).published.digest
    with pytest.raises(NotFound):
        context.lifecycle.artefact_path(RUN, "optimiser")


def test_reconciling_again_and_again_changes_nothing(context: Context) -> None:
    """The reconciler may run at any moment, as often as it likes."""
    begin(context)
    submit(context, "ada")
    submit(context, "bob")
    context.rounds.reconcile()
    before = kinds(context), run_of(context), context.lifecycle.rounds(RUN).rounds
    for _ in range(3):
        context.rounds.reconcile()
    assert (kinds(context), run_of(context), context.lifecycle.rounds(RUN).rounds) == before
