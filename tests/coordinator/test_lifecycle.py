from pathlib import Path

import pytest

from bench.federation import ManualClock, key_of, sign
from services.coordinator.context import Context
from shared.errors import IllegalTransition, LeaseLost, NotFound, RoundClosed, RunConflict, SignatureInvalid
from shared.protocol.manifest import MANIFEST
from shared.protocol.rounds import RoundState, RunState
from tests.support.federations import (
    RUN,
    begin,
    cancelled,
    coordinator,
    events_of,
    kinds,
    lease,
    play_round,
    result_of,
    run_of,
    submit,
    terms_of,
    theta_of,
    work,
)


def states(context: Context) -> list[RoundState]:
    """Return the states of the run's rounds, oldest first."""
    return [current.state for current in context.lifecycle.rounds(RUN).rounds]


def newest(context: Context) -> int:
    """Return the number of the newest round."""
    return run_of(context).round


def test_making_the_same_run_twice_changes_nothing(context: Context, clock: ManualClock) -> None:
    """A retried request finds the run that it made."""
    first = context.lifecycle.create(RUN, terms_of(), actor="operator")
    clock.advance(5)
    assert context.lifecycle.create(RUN, terms_of(), actor="operator") == first
    assert kinds(context) == ["run.draft", "run.warning"]


def test_a_runs_terms_never_change(context: Context) -> None:
    """Another run under the same id is refused, and the first stays as it was."""
    context.lifecycle.create(RUN, terms_of(), actor="operator")
    with pytest.raises(RunConflict, match="choose another id"):
        context.lifecycle.create(RUN, terms_of(seed=2), actor="operator")
    assert run_of(context).terms == terms_of()


def test_the_insecure_aggregation_warns(context: Context) -> None:
    """The event log of every plaintext run says that the coordinator can read the updates."""
    context.lifecycle.create(RUN, terms_of(), actor="operator")
    warning = next(event for event in context.lifecycle.events(RUN, after=0) if event.kind == "run.warning")
    assert "can read every agent's update" in str(warning.detail)


def test_a_draft_does_nothing_until_it_is_started(context: Context) -> None:
    """No work and no round comes of a draft, whatever time passes."""
    context.lifecycle.create(RUN, terms_of(), actor="operator")
    context.rounds.reconcile()
    assert context.work.lease("worker", "worker") is None
    assert context.rounds.wanted("ada").assignment is None
    context.lifecycle.start(RUN, actor="operator")
    assert lease(context).task.kind == "prepare"


def test_starting_twice_starts_once(context: Context) -> None:
    """A retried start is the same start: one preparation is ordered."""
    context.lifecycle.create(RUN, terms_of(), actor="operator")
    context.lifecycle.start(RUN, actor="operator")
    context.lifecycle.start(RUN, actor="operator")
    lease(context)
    assert context.work.lease("worker", "other") is None


def test_a_prepared_run_opens_its_first_round(context: Context) -> None:
    """Round 1 starts from theta^0, and every agent is wanted for it."""
    begin(context)
    ada, bob = (context.rounds.wanted(name).assignment for name in ("ada", "bob"))
    assert ada is not None
    assert bob is not None
    assert (ada.run_id, ada.round, ada.adapter) == (RUN, 1, theta_of(context))
    assert ada == bob


def test_a_paused_run_hands_out_nothing_but_takes_updates(context: Context) -> None:
    """No assignment and no work in a pause; an agent that has trained may send, and the round goes on after it."""
    begin(context)
    submit(context, "ada")
    context.lifecycle.pause(RUN, actor="operator")
    assert context.rounds.wanted("bob").assignment is None
    submit(context, "bob")
    context.rounds.reconcile()
    assert states(context) == [RoundState.OPEN]
    context.lifecycle.start(RUN, actor="operator")
    context.rounds.reconcile()
    assert states(context) == [RoundState.AGGREGATED]
    context.lifecycle.pause(RUN, actor="operator")
    assert context.work.lease("worker", "worker") is None


def test_work_that_was_handed_out_before_a_pause_may_be_handed_in(context: Context) -> None:
    """A worker in the middle of a step loses nothing to a pause; the next step waits for its end."""
    begin(context)
    submit(context, "ada")
    submit(context, "bob")
    context.rounds.reconcile()
    held = lease(context)
    context.lifecycle.pause(RUN, actor="operator")
    context.work.heartbeat(held.job_id, held.token)
    context.work.complete(held.job_id, held.token, result_of(context, held), actor="worker")
    assert states(context) == [RoundState.EVALUATING]
    assert context.work.lease("worker", "worker") is None
    context.lifecycle.start(RUN, actor="operator")
    assert work(context).task.kind == "evaluate"


def test_a_pause_is_in_the_times_that_are_told(context: Context, clock: ManualClock) -> None:
    """The round has been open since it was opened, whatever its clock says to what ends it."""
    begin(context)
    opened = clock()
    clock.advance(40)
    context.lifecycle.pause(RUN, actor="operator")
    clock.advance(100)
    context.lifecycle.start(RUN, actor="operator")
    (view,) = context.lifecycle.rounds(RUN).rounds
    assert (view.opened_at, view.since) == (opened, opened + 140)
    clock.advance(5)
    play_round(context, 1)
    (view,) = context.lifecycle.rounds(RUN).rounds
    assert view.seconds["open"] == 145


def test_a_pause_is_not_the_agents_time(context: Context, clock: ManualClock) -> None:
    """A round whose longest time passes in a pause is not aborted: its clock starts again on resuming."""
    begin(context)
    context.lifecycle.pause(RUN, actor="operator")
    clock.advance(1000)
    context.lifecycle.start(RUN, actor="operator")
    clock.advance(59)
    context.rounds.reconcile()
    assert states(context) == [RoundState.OPEN]
    clock.advance(1)
    context.rounds.reconcile()
    assert states(context)[0] is RoundState.ABORTED


def test_a_run_can_be_cancelled_in_every_state(tmp_path: Path, clock: ManualClock) -> None:
    """Draft, unprepared, open, aggregated, co-tuning, evaluating, paused: all end with the operator's reason."""
    stages = (
        lambda context: context.lifecycle.create(RUN, terms_of(), actor="operator"),
        lambda context: context.lifecycle.start(RUN, actor="operator"),
        work,
        lambda context: submit(context, "ada"),
        lambda context: (submit(context, "bob"), context.rounds.reconcile()),
        lease,
    )
    for until in range(1, len(stages) + 1):
        with coordinator(tmp_path / str(until), clock) as context:
            for stage in stages[:until]:
                stage(context)
            ended = cancelled(context)
            assert (ended.state, ended.reason) == (RunState.FAILED, "stopped: the data was wrong")
            assert all(state is RoundState.ABORTED for state in states(context))
            assert context.work.lease("worker", "worker") is None
            assert context.rounds.wanted("cleo").assignment is None
            context.rounds.reconcile()
            assert cancelled(context) == ended


def test_a_cancelled_run_takes_nothing_back(context: Context) -> None:
    """Work and updates that were under way when the run was cancelled are refused, and change nothing."""
    begin(context)
    submit(context, "ada")
    submit(context, "bob")
    context.rounds.reconcile()
    held = lease(context)
    result = result_of(context, held)
    cancelled(context)
    with pytest.raises(LeaseLost):
        context.work.complete(held.job_id, held.token, result, actor="worker")
    with pytest.raises(LeaseLost):
        context.work.heartbeat(held.job_id, held.token)
    with pytest.raises(RoundClosed):
        submit(context, "cleo")
    assert states(context) == [RoundState.ABORTED]


@pytest.mark.parametrize("verb", ["start", "pause"])
def test_what_has_ended_cannot_be_started_or_paused(verb: str, context: Context) -> None:
    """An illegal event is refused and nothing changes."""
    context.lifecycle.create(RUN, terms_of(), actor="operator")
    ended, log = cancelled(context), kinds(context)
    with pytest.raises(IllegalTransition, match="has ended"):
        getattr(context.lifecycle, verb)(RUN, actor="operator")
    assert (run_of(context), kinds(context)) == (ended, log)


def test_a_draft_cannot_be_paused(context: Context) -> None:
    """There is nothing to pause yet."""
    context.lifecycle.create(RUN, terms_of(), actor="operator")
    with pytest.raises(IllegalTransition):
        context.lifecycle.pause(RUN, actor="operator")


def test_a_run_that_nobody_made_is_not_found(context: Context) -> None:
    """Every question about an unknown run has the same answer."""
    for ask in (
        lambda: context.lifecycle.run("other"),
        lambda: context.lifecycle.rounds("other").rounds,
        lambda: context.lifecycle.events("other", after=0),
        lambda: context.lifecycle.manifest("other"),
        lambda: context.lifecycle.artefacts("other"),
        lambda: context.lifecycle.start("other", actor="operator"),
        lambda: context.lifecycle.pause("other", actor="operator"),
        lambda: context.lifecycle.cancel("other", "no", actor="operator"),
    ):
        with pytest.raises(NotFound):
            ask()


# --- the operator's signature ---------------------------------------------------------------------------------------


def prepared(context: Context) -> None:
    """Make and start a run, and let a worker prepare it; nobody has signed it."""
    context.lifecycle.create(RUN, terms_of(), actor="operator")
    context.lifecycle.start(RUN, actor="operator")
    granted = lease(context)
    context.work.complete(granted.job_id, granted.token, result_of(context, granted), actor="worker")


def test_no_round_opens_before_the_operator_has_signed_what_the_run_is(context: Context) -> None:
    """However often the coordinator looks; the log says what is waited for, and agents are asked for nothing."""
    prepared(context)
    context.rounds.reconcile()
    assert (run_of(context).round, run_of(context).signed) == (0, False)
    assert events_of(context)[-1].detail["waits_for"] == "the operator's signature"
    assert context.rounds.wanted("ada").assignment is None
    assert context.lifecycle.manifest(RUN).signature is None
    sign(context, RUN)
    assert (run_of(context).round, run_of(context).signed) == (1, True)
    assert context.rounds.wanted("ada").assignment is not None


def test_signing_twice_opens_nothing_twice(context: Context) -> None:
    """The same signature again changes nothing."""
    prepared(context)
    sign(context, RUN)
    before = kinds(context)
    sign(context, RUN)
    assert kinds(context) == before
    assert before.count("run.signed") == 1


def test_a_paused_run_can_be_signed_and_opens_its_round_when_it_goes_on(context: Context) -> None:
    """Whoever signs need not be whoever starts."""
    prepared(context)
    context.lifecycle.pause(RUN, actor="operator")
    sign(context, RUN)
    assert run_of(context).round == 0
    context.lifecycle.start(RUN, actor="operator")
    assert run_of(context).round == 1


def test_nobody_elses_signature_starts_a_run(context: Context) -> None:
    """Nor does the operator's own over another manifest, or for a run that is not prepared."""
    prepared(context)
    manifest = context.lifecycle.manifest(RUN).manifest
    other = manifest.model_copy(update={"weighting": "examples"})
    for signature in (
        key_of("ada").sign(MANIFEST, manifest),
        key_of("operator").sign(MANIFEST, other),
        key_of("operator").sign("membership", manifest),
    ):
        with pytest.raises(SignatureInvalid):
            context.lifecycle.sign(RUN, signature, actor="operator")
    assert not run_of(context).signed
    context.lifecycle.create("early", terms_of(), actor="operator")
    with pytest.raises(NotFound, match="has not been prepared"):
        context.lifecycle.sign("early", "A" * 86, actor="operator")
