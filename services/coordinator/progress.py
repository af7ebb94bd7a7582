"""What follows from what: how a run goes on after each thing that happens to it, inside one transaction.

Called after every change that may have consequences, and by the reconciler at start and every second, so that a
crash between two changes loses nothing: whatever should have followed follows then (docs/protocol.md, "States").
"""

from services.coordinator.records import Detail, Job, JobState, Round, Run
from services.coordinator.transaction import Transaction
from shared.protocol.messages import RoundScores
from shared.protocol.rounds import (
    FAILED_ROUNDS_THAT_FAIL_A_RUN,
    STAGES,
    RoundEvent,
    RoundState,
    RunEvent,
    RunState,
    sample_of,
)
from shared.protocol.work import PrepareResult, PrepareTask, Task

SYSTEM = "coordinator"

# A job that was leased this often and never finished is given up: it may be what kills its workers.
MAX_LEASES = 5


def go_on(tx: Transaction, run: Run, now: float) -> Run:
    """Give a running run what it lacks: its preparation, its next round, or its end."""
    if run.state is not RunState.RUNNING:
        return run
    if run.prepared is None:
        if not tx.open_jobs(run.id):
            order(tx, run, PrepareTask(), now)
        return run
    if run.signature is None or tx.live_round(run) is not None:
        return run
    if run.failed_in_a_row >= FAILED_ROUNDS_THAT_FAIL_A_RUN:
        newest = tx.round(run.id, run.round)
        reason = f"{run.failed_in_a_row} rounds in a row came to nothing, the last because {newest.reason}"
        return tx.change_run(run, RunEvent.FAIL, actor=SYSTEM, detail={"reason": reason}, reason=reason)
    if tx.published_count(run.id) >= run.terms.rounds:
        return tx.change_run(run, RunEvent.FINISH, actor=SYSTEM)
    return open_round(tx, run, now)


def open_round(tx: Transaction, run: Run, now: float) -> Run:
    """Open the next round from theta^t and omega^t (docs/protocol.md step 2)."""
    slm_adapter, llm_adapter = run.slm_adapter, run.llm_adapter
    assert slm_adapter is not None  # noqa: S101 - our own invariant: a prepared run has both adapters
    assert llm_adapter is not None  # noqa: S101
    run = tx.change_run(run, actor=SYSTEM, round=run.round + 1)
    sample = draw(tx, run)
    opened = Round(run.id, run.round, slm_adapter, llm_adapter, entered={"open": now}, sample=sample)
    tx.insert_round(opened, actor=SYSTEM)
    return run


def draw(tx: Transaction, run: Run) -> list[str] | None:
    """Return the members that a run's newest round asks, of those that there are now; None where it asks all.

    The audit log says among whom they were drawn, so that whoever reads it can draw them again.
    """
    count = run.terms.cohort.sample_count
    if count is None:
        return None
    members = tx.members.current()
    sample = sample_of(members, count, run_id=run.id, run_seed=run.terms.seed, round_number=run.round)
    asked = set(sample)
    detail: Detail = {"sample": [*sample], "passed_over": [name for name in members if name not in asked]}
    tx.audit.append(SYSTEM, "round.sampled", f"run/{run.id}/round/{run.round}", detail)
    return sample


def restart_clock(tx: Transaction, run: Run, now: float, *, actor: str) -> None:
    """Give an open round or a stage its time again: a pause, or the coordinator's absence, was not the agents'."""
    current = tx.live_round(run)
    if current is not None and current.state in {RoundState.OPEN, *STAGES}:
        tx.change_round(current, actor=actor, restarted={**current.restarted, current.state: now})


def order(tx: Transaction, run: Run, task: Task, now: float) -> None:
    """Put work before the workers; its name makes the same order twice impossible."""
    tx.insert_job(Job(f"{run.id}-{run.round}-{task.kind}", run.id, run.round, task, created_at=now))


def prepared(tx: Transaction, run: Run, result: PrepareResult) -> Run:
    """Take theta^0 and omega^0 as the run's adapters; round 1 opens once the operator has signed what came of it."""
    waits_for = "the operator's signature"
    tx.note(run.id, None, "run.prepared", SYSTEM, {"slm_adapter": result.slm.adapter, "waits_for": waits_for})
    return tx.change_run(
        run,
        actor=SYSTEM,
        prepared=result,
        slm_adapter=result.slm.adapter,
        llm_adapter=result.llm.adapter,
        slm_loss=result.scores.slm.loss,
    )


def signed(tx: Transaction, run: Run, signature: str, now: float, *, actor: str) -> Run:
    """Take the operator's signature over a run's manifest, and open the round that has waited for it."""
    tx.note(run.id, None, "run.signed", actor, {})
    return go_on(tx, tx.change_run(run, actor=actor, signature=signature), now)


def evaluated(tx: Transaction, run: Run, current: Round, scores: RoundScores, now: float) -> Run:
    """Publish the candidates, or refuse them at the gate (design, round step 5)."""
    gate = run.terms.gate
    if gate.enabled and run.slm_loss is not None and scores.slm.loss > run.slm_loss + gate.tolerance:
        reason = (
            f"the candidate's validation loss is {scores.slm.loss:.4f} and the published adapter's {run.slm_loss:.4f}, "
            f"more than the gate's tolerance of {gate.tolerance:g} below it"
        )
        return came_to_nothing(tx, run, current, RoundEvent.REFUSE, reason, now=now, scores=scores)
    tx.change_round(
        current,
        RoundEvent.PUBLISH,
        actor=SYSTEM,
        detail={
            "slm_adapter": current.slm_candidate,
            "llm_adapter": current.llm_candidate,
            "slm": scores.slm.accuracy,
            "llm": scores.llm.accuracy,
        },
        scores=scores,
    )
    run = tx.change_run(
        run,
        actor=SYSTEM,
        failed_in_a_row=0,
        published_round=current.number,
        slm_adapter=current.slm_candidate,
        llm_adapter=current.llm_candidate,
        slm_loss=scores.slm.loss,
    )
    return go_on(tx, run, now)


def came_to_nothing(
    tx: Transaction,
    run: Run,
    current: Round,
    event: RoundEvent,
    reason: str,
    *,
    now: float,
    scores: RoundScores | None = None,
) -> Run:
    """End a round without a new adapter; the next one starts from the same theta^t and omega^t."""
    withdraw_work(tx, run)
    tx.change_round(current, event, actor=SYSTEM, detail={"reason": reason}, reason=reason, scores=scores)
    run = tx.change_run(run, actor=SYSTEM, failed_in_a_row=run.failed_in_a_row + 1)
    return go_on(tx, run, now)


def unfinished(tx: Transaction, run: Run, job: Job, what: str, now: float) -> Run:
    """Put a job that a worker did not finish before the others, or give up on it; ``what`` the worker did instead."""
    if job.token < MAX_LEASES:
        tx.change_job(job, state=JobState.PENDING)
        return run
    return abandon(tx, run, job, f"{job.token} workers in a row did not finish it, and the last {what}", now)


def abandon(tx: Transaction, run: Run, job: Job, reason: str, now: float) -> Run:
    """End what cannot go on without this job: its round, or the run itself if it was never prepared."""
    tx.change_job(job, state=JobState.FAILED)
    reason = f"{job.task.kind} failed: {reason}"
    current = tx.live_round(run)
    if current is not None and current.number == job.round:
        return came_to_nothing(tx, run, current, RoundEvent.ABORT, reason, now=now)
    return fail(tx, run, reason, actor=SYSTEM)


def fail(tx: Transaction, run: Run, reason: str, *, actor: str) -> Run:
    """End a run before its time, and everything that is under way in it."""
    withdraw_work(tx, run)
    current = tx.live_round(run)
    if current is not None:
        tx.change_round(current, RoundEvent.ABORT, actor=actor, detail={"reason": reason}, reason=reason)
    return tx.change_run(run, RunEvent.FAIL, actor=actor, detail={"reason": reason}, reason=reason)


def withdraw_work(tx: Transaction, run: Run) -> None:
    """Take back the work that nobody needs any more; a worker that holds it loses its lease."""
    for job in tx.open_jobs(run.id):
        tx.change_job(job, state=JobState.FAILED)
