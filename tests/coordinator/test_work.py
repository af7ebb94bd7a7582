from typing import Any

import pytest

from bench.federation import ManualClock, sign
from bench.no_op import NO_MODEL
from services.coordinator.context import Context
from shared.errors import (
    BlobMissing,
    BlobTooLarge,
    DigestMismatch,
    FedCoLLMError,
    LayoutMismatch,
    LeaseLost,
    MessageInvalid,
    NotFound,
    ValuesNotFinite,
)
from shared.protocol.digests import digest_of
from shared.protocol.rounds import RoundState, RunState, data_seed
from shared.protocol.work import CotuneResult, CotuneTask, EvaluateTask, Lease, PreparedDigests, PrepareResult
from tests.support.federations import (
    LLM_LAYOUT,
    RUN,
    SLM_LAYOUT,
    adapter,
    begin,
    kinds,
    lease,
    result_of,
    run_of,
    store,
    submit,
    terms_of,
    work,
)

LEASE_SECONDS = 30


def cotuning(context: Context) -> Lease:
    """Play a run up to the lease of its first co-tuning."""
    begin(context, terms_of(rounds=2))
    submit(context, "ada", 1.0)
    submit(context, "bob", 2.0)
    context.rounds.reconcile()
    return lease(context)


def reconciled_after(context: Context, clock: ManualClock, seconds: float) -> None:
    """Let time pass and the reconciler see it."""
    clock.advance(seconds)
    context.rounds.reconcile()


def candidate(context: Context, **changes: Any) -> CotuneResult:  # noqa: ANN401 - fields differ in type
    """Return a good result of a co-tuning, bent."""
    fields = {
        "slm_adapter": store(context, adapter(3.0)),
        "llm_adapter": store(context, adapter(3.0, LLM_LAYOUT)),
        "steps": 1,
        "losses": {},
    }
    return CotuneResult(**{**fields, **changes})


def test_work_says_all_that_a_worker_must_know(context: Context) -> None:
    """Co-tuning starts from the aggregate and omega^t, with the round's own seed."""
    granted = cotuning(context)
    with context.store.read() as tx:
        current = tx.round(RUN, 1)
    assert granted.task == CotuneTask(
        prepared=PreparedDigests(tokenizer=NO_MODEL, slm=NO_MODEL, llm=NO_MODEL),
        slm_adapter=current.aggregate,
        llm_adapter=current.llm_adapter,
        seed=data_seed(RUN, 1, 1, "cotuning"),
    )
    assert granted.terms == terms_of(rounds=2)
    assert current.state is RoundState.COTUNING
    context.work.complete(granted.job_id, granted.token, candidate(context), actor="worker")
    evaluation = lease(context).task
    assert isinstance(evaluation, EvaluateTask)
    assert evaluation.slm_aggregated == current.aggregate
    assert evaluation.prepared == granted.task.prepared
    assert evaluation.slm_adapter == digest_of(adapter(3.0))


def test_work_is_leased_to_one_worker(context: Context) -> None:
    """While a lease holds nobody else gets the work."""
    cotuning(context)
    assert context.work.lease("worker", "other") is None


def test_a_lease_whose_answer_was_lost_is_given_again(context: Context, clock: ManualClock) -> None:
    """Asking for work is safe to retry: the same holder gets the same lease and token, and it is logged once."""
    granted = cotuning(context)
    before = kinds(context)
    clock.advance(LEASE_SECONDS - 1)
    assert lease(context) == granted
    assert kinds(context) == before
    context.work.complete(granted.job_id, granted.token, candidate(context), actor="worker")


def test_a_lease_is_given_again_to_its_holder_only(context: Context) -> None:
    """Neither another name nor the same name under another token gets work that somebody holds."""
    cotuning(context)
    assert context.work.lease("worker", "other") is None
    assert context.work.lease("somebody", "worker") is None


def test_a_worker_that_started_anew_waits_for_its_own_lease(context: Context, clock: ManualClock) -> None:
    """Work that kills whoever takes it is handed out again when its lease has run out, and so is counted."""
    granted = cotuning(context)
    context.work.heartbeat(granted.job_id, granted.token)
    assert context.work.lease("worker", "worker") is None
    reconciled_after(context, clock, LEASE_SECONDS)
    again = lease(context)
    assert again.token == granted.token + 1
    assert lease(context) == again  # and this answer may be lost like the first


def test_a_lease_that_is_over_is_not_given_again(context: Context, clock: ManualClock) -> None:
    """Between the end of a lease and the reconciler's next look nobody is given what nobody holds."""
    granted = cotuning(context)
    clock.advance(LEASE_SECONDS - 1)
    assert lease(context) == granted  # asking again renews nothing
    clock.advance(1)
    assert context.work.lease("worker", "worker") is None


def test_a_lease_that_ran_out_goes_to_the_next_worker(context: Context, clock: ManualClock) -> None:
    """The second lease has a higher token; the first worker's heartbeat and result are refused."""
    first = cotuning(context)
    reconciled_after(context, clock, LEASE_SECONDS)
    second = lease(context, "other")
    assert (second.job_id, second.task) == (first.job_id, first.task)
    assert second.token > first.token
    with pytest.raises(LeaseLost, match="drop it"):
        context.work.heartbeat(first.job_id, first.token)
    with pytest.raises(LeaseLost):
        context.work.complete(first.job_id, first.token, candidate(context), actor="worker")
    with pytest.raises(LeaseLost):
        context.work.fail(first.job_id, first.token, "internal", "no", actor="worker")
    assert context.lifecycle.rounds(RUN).rounds[0].state is RoundState.COTUNING
    context.work.complete(second.job_id, second.token, candidate(context), actor="worker")
    assert context.lifecycle.rounds(RUN).rounds[0].state is RoundState.EVALUATING


def test_a_lease_that_nobody_took_over_stays_lost(context: Context, clock: ManualClock) -> None:
    """After its lease ran out a worker cannot decide the round, even if no other has come."""
    first = cotuning(context)
    reconciled_after(context, clock, LEASE_SECONDS)
    with pytest.raises(LeaseLost):
        context.work.complete(first.job_id, first.token, candidate(context), actor="worker")


def test_a_heartbeat_keeps_the_lease(context: Context, clock: ManualClock) -> None:
    """A worker that says every now and then that it lives may take as long as it needs."""
    granted = cotuning(context)
    for _ in range(10):
        reconciled_after(context, clock, LEASE_SECONDS - 1)
        context.work.heartbeat(granted.job_id, granted.token)
    context.work.complete(granted.job_id, granted.token, candidate(context), actor="worker")
    assert context.lifecycle.rounds(RUN).rounds[0].state is RoundState.EVALUATING


def test_the_same_result_twice_is_the_same_result(context: Context) -> None:
    """A retried request changes nothing: one evaluation is ordered."""
    granted = cotuning(context)
    result = candidate(context)
    for _ in range(3):
        context.work.complete(granted.job_id, granted.token, result, actor="worker")
    assert kinds(context).count("round.evaluating") == 1
    lease(context)
    assert context.work.lease("worker", "other") is None


def test_the_same_failure_twice_is_the_same_failure(context: Context) -> None:
    """A retried report aborts one round, not two."""
    granted = cotuning(context)
    for _ in range(3):
        context.work.fail(granted.job_id, granted.token, "loss_not_finite", "NaN at step 3", actor="worker")
    assert [view.state for view in context.lifecycle.rounds(RUN).rounds] == [RoundState.ABORTED, RoundState.OPEN]


def test_a_result_of_another_kind_is_refused(context: Context) -> None:
    """A worker that mixes its work up is told so, and keeps its lease to do better."""
    granted = cotuning(context)
    prepared = PrepareResult(
        tokenizer_digest=digest_of(b""),
        **{
            model: {"base_digest": digest_of(b""), "adapter": digest_of(b""), "layout": {}, "adapter_config": {}}
            for model in ("slm", "llm")
        },
        scores={model: {"accuracy": 0, "loss": 0, "examples": 1, "chance": 0} for model in ("slm", "llm")},
    )
    with pytest.raises(MessageInvalid, match="is to cotune"):
        context.work.complete(granted.job_id, granted.token, prepared, actor="worker")
    context.work.complete(granted.job_id, granted.token, candidate(context), actor="worker")


WRONG_CANDIDATES = {
    "a digest that nobody stored": (lambda _: digest_of(b"nowhere"), NotFound),
    "the other model's layout": (lambda context: store(context, adapter(1.0, LLM_LAYOUT)), LayoutMismatch),
    "NaN": (lambda context: store(context, adapter(float("nan"))), ValuesNotFinite),
    "no adapter at all": (lambda context: store(context, b"not safetensors, but long enough for a header" * 9), None),
}


@pytest.mark.parametrize("wrong", WRONG_CANDIDATES)
def test_a_wrong_candidate_is_refused(wrong: str, context: Context) -> None:
    """No candidate is taken unseen: nothing changes, and the worker may still hand in a good one."""
    make, error = WRONG_CANDIDATES[wrong]
    granted = cotuning(context)
    before = kinds(context)
    with pytest.raises(error or FedCoLLMError):
        context.work.complete(
            granted.job_id, granted.token, candidate(context, slm_adapter=make(context)), actor="worker"
        )
    assert kinds(context) == before
    context.work.complete(granted.job_id, granted.token, candidate(context), actor="worker")
    assert context.lifecycle.rounds(RUN).rounds[0].state is RoundState.EVALUATING


def test_a_wrong_llm_adapter_is_refused_too(context: Context) -> None:
    """Omega is checked as theta is, though it never leaves the coordinator."""
    granted = cotuning(context)
    with pytest.raises(LayoutMismatch):
        context.work.complete(
            granted.job_id, granted.token, candidate(context, llm_adapter=store(context, adapter(1.0))), actor="worker"
        )


def test_a_candidate_whose_file_is_gone_is_refused(context: Context) -> None:
    """A blob that a row names but the disk does not have is BlobMissing."""
    granted = cotuning(context)
    result = candidate(context)
    context.blobs.path(result.slm_adapter).unlink()
    with pytest.raises(BlobMissing):
        context.work.complete(granted.job_id, granted.token, result, actor="worker")


def test_a_preparation_is_checked_like_a_candidate(context: Context) -> None:
    """Theta^0 must have the layout that the worker says it has."""
    context.lifecycle.create(RUN, terms_of(), actor="operator")
    context.lifecycle.start(RUN, actor="operator")
    granted = lease(context)
    result = result_of(context, granted)
    bent = result.model_copy(update={"slm": result.slm.model_copy(update={"layout": LLM_LAYOUT})})
    with pytest.raises(LayoutMismatch):
        context.work.complete(granted.job_id, granted.token, bent, actor="worker")
    assert run_of(context).round == 0
    context.work.complete(granted.job_id, granted.token, result, actor="worker")
    sign(context, RUN)
    assert run_of(context).round == 1


def test_five_workers_that_fell_silent_abort_the_round(context: Context, clock: ManualClock) -> None:
    """Work that kills whoever takes it is given up, with the count in the reason."""
    granted = cotuning(context)
    for attempt in range(1, 5):
        assert granted.token == attempt
        reconciled_after(context, clock, LEASE_SECONDS)
        granted = lease(context, f"worker-{attempt}")
    reconciled_after(context, clock, LEASE_SECONDS)
    aborted, following = context.lifecycle.rounds(RUN).rounds
    assert aborted.state is RoundState.ABORTED
    assert "5 workers in a row did not finish it, and the last fell silent" in aborted.reason
    assert following.state is RoundState.OPEN
    assert kinds(context).count("work.lease_expired") == 5


def test_work_that_a_worker_hands_back_goes_to_the_next_at_once(context: Context) -> None:
    """What is one machine's trouble is logged with its reason and ends nothing; the same word again changes nothing."""
    first = cotuning(context)
    for _ in range(3):
        context.work.fail(first.job_id, first.token, "model_unreadable", "no disk", actor="worker", elsewhere=True)
    told = [event.detail["reason"] for event in context.lifecycle.events(RUN, after=0) if event.kind == "work.returned"]
    assert told == ["model_unreadable: no disk"]
    second = lease(context, "other")
    assert (second.job_id, second.token) == (first.job_id, first.token + 1)
    with pytest.raises(LeaseLost):
        context.work.fail(first.job_id, first.token, "model_unreadable", "no disk", actor="worker", elsewhere=True)
    context.work.complete(second.job_id, second.token, candidate(context), actor="worker")
    assert context.lifecycle.rounds(RUN).rounds[0].state is RoundState.EVALUATING


def test_work_that_five_workers_hand_back_aborts_the_round(context: Context) -> None:
    """Nobody can do it, and its operator reads what the last one said."""
    granted = cotuning(context)
    for attempt in range(1, 6):
        context.work.fail(granted.job_id, granted.token, "machine", "disk full", actor="worker", elsewhere=True)
        if attempt < 5:
            granted = lease(context, f"worker-{attempt}")
    aborted = context.lifecycle.rounds(RUN).rounds[0]
    assert aborted.state is RoundState.ABORTED
    assert aborted.reason == (
        "cotune failed: 5 workers in a row did not finish it, and the last said machine: disk full"
    )


def test_a_failure_report_aborts_the_round(context: Context) -> None:
    """What went wrong in the worker is the round's reason; theta^t and omega^t stay."""
    granted = cotuning(context)
    with context.store.read() as tx:
        before = tx.run(RUN)
    context.work.fail(granted.job_id, granted.token, "loss_not_finite", "NaN at step 3", actor="worker")
    aborted, following = context.lifecycle.rounds(RUN).rounds
    assert aborted.reason == "cotune failed: loss_not_finite: NaN at step 3"
    assert following.number == 2
    with context.store.read() as tx:
        assert (tx.run(RUN).slm_adapter, tx.run(RUN).llm_adapter) == (before.slm_adapter, before.llm_adapter)


def test_a_failed_evaluation_aborts_the_round(context: Context) -> None:
    """A candidate that could not be evaluated is not published."""
    granted = cotuning(context)
    context.work.complete(granted.job_id, granted.token, candidate(context), actor="worker")
    evaluation = lease(context)
    context.work.fail(evaluation.job_id, evaluation.token, "internal", "out of memory", actor="worker")
    assert context.lifecycle.rounds(RUN).rounds[0].state is RoundState.ABORTED
    assert run_of(context).published is None


def test_a_run_that_cannot_be_prepared_fails(context: Context) -> None:
    """Without theta^0 there is no round to abort: the run itself ends, with the worker's reason."""
    context.lifecycle.create(RUN, terms_of(), actor="operator")
    context.lifecycle.start(RUN, actor="operator")
    granted = lease(context)
    context.work.fail(granted.job_id, granted.token, "tokenizer_mismatch", "another tokenizer", actor="worker")
    ended = run_of(context)
    assert ended.state is RunState.FAILED
    assert ended.reason == "prepare failed: tokenizer_mismatch: another tokenizer"


def test_work_that_does_not_exist_is_not_found(context: Context) -> None:
    """A worker that makes names up learns nothing."""
    with pytest.raises(NotFound):
        context.work.heartbeat("run-1-cotune", 1)
    with pytest.raises(NotFound):
        context.work.fail("run-1-cotune", 1, "internal", "no", actor="worker")


def test_older_runs_work_is_handed_out_first(context: Context, clock: ManualClock) -> None:
    """Nobody starves: the oldest work of the oldest run comes first."""
    for run_id in ("first", "second"):
        clock.advance(1)
        context.lifecycle.create(run_id, terms_of(), actor="operator")
        context.lifecycle.start(run_id, actor="operator")
    assert [lease(context, worker).run_id for worker in ("worker", "other")] == ["first", "second"]


def test_a_workers_blob_is_checked_before_it_is_kept(context: Context) -> None:
    """Another digest than the path's, or a blob above the limit, is refused before its first byte."""
    digest = digest_of(b"blob")
    with pytest.raises(MessageInvalid, match="must be the same"):
        context.work.require_blob(digest, digest_of(b"other"), 4)
    with pytest.raises(BlobTooLarge, match="FEDCOLLM_COORDINATOR_MAX_ADAPTER_BYTES"):
        context.work.require_blob(digest, digest, context.settings.max_adapter_bytes + 1)
    with context.blobs.receive(size=5) as incoming:
        incoming.write(b"blobs")
        with pytest.raises(DigestMismatch):
            context.work.store_blob(incoming, digest)
    with pytest.raises(NotFound):
        context.work.blob_path(digest)


def test_a_second_round_co_tunes_from_omega_after_the_first(context: Context) -> None:
    """Omega persists: each round starts from the LLM adapter that the last published round left."""
    granted = cotuning(context)
    result = candidate(context)
    context.work.complete(granted.job_id, granted.token, result, actor="worker")
    work(context)
    submit(context, "ada", 1.0, number=2)
    submit(context, "bob", 2.0, number=2)
    context.rounds.reconcile()
    second = lease(context)
    assert second.round == 2
    assert second.task.llm_adapter == result.llm_adapter


def test_layouts_of_the_two_models_differ() -> None:
    """Were they the same, the tests above would say nothing."""
    assert SLM_LAYOUT != LLM_LAYOUT
