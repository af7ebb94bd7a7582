"""A worker and its lease: kept while it computes, and given up with the work."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.federation import ManualClock
from services.coordinator.context import Context
from services.coordinator.worker.cotuner import Cotuned
from services.coordinator.worker.loop import Worker
from shared.egress import Egress
from shared.errors import LeaseLost
from shared.protocol.rounds import RoundState
from tests.support.cotuners import AddingCoTuner
from tests.support.federations import LLM_LAYOUT, RUN, SLM_LAYOUT, coordinator, kinds, lease
from tests.support.workers import BadCoTuner, to_cotuning, worker_of

pytestmark = pytest.mark.anyio


async def at_once(_: float) -> None:
    """Be a pause that is over when everybody else has had a turn."""
    await asyncio.sleep(0)


class Heartbeats:
    """A ledger by which a thread can wait for heartbeats."""

    def __init__(self) -> None:
        self._left = threading.Semaphore(0)

    def record(self, request: Egress, **_: object) -> None:
        """Take note of a heartbeat."""
        if request.target.endswith("/heartbeat"):
            self._left.release()

    def wait_for_an_answer(self) -> None:
        """Return when a heartbeat has left after now and was answered."""
        while self._left.acquire(blocking=False):
            pass
        for _ in range(2):  # the second leaves only after the first was answered
            assert self._left.acquire(timeout=20), "no heartbeat"


async def test_a_worker_that_lost_its_lease_drops_the_work(
    context: Context, tmp_path: Path, clock: ManualClock
) -> None:
    """It decides nothing, and goes on with whatever is there."""
    to_cotuning(context)
    cotuner, granted = BadCoTuner(), []

    def lose() -> None:
        clock.advance(31)
        context.rounds.reconcile()
        granted.append(lease(context, "other"))

    cotuner.act = lose
    async with worker_of(context, cotuner, tmp_path / "cache") as worker:
        assert await worker.step(wait_seconds=0)
        assert context.lifecycle.rounds(RUN).rounds[0].state is RoundState.COTUNING
        assert await worker.step(wait_seconds=0) is False
    context.work.heartbeat(granted[0].job_id, granted[0].token)  # which the other still has


class EndlessCoTuner(AddingCoTuner):
    """Co-tunes until it is stopped."""

    def __init__(self) -> None:
        super().__init__(SLM_LAYOUT, LLM_LAYOUT)
        self.begun, self.stopped = threading.Event(), threading.Event()

    def cotune(self, *args: Any, require_lease: Callable[[], None], **kwargs: Any) -> Cotuned:  # noqa: ANN401 - passed on
        """Step, for twenty seconds at most."""
        self.begun.set()
        for _ in range(2000):
            try:
                require_lease()
            except LeaseLost:
                self.stopped.set()
                raise
            self.stopped.wait(0.01)
        return super().cotune(*args, require_lease=require_lease, **kwargs)


@pytest.mark.parametrize("how", ["given to another", "cancelled", "told to stop"])
async def test_a_worker_does_not_go_on_computing_in_vain(
    how: str, context: Context, tmp_path: Path, clock: ManualClock
) -> None:
    """Once nobody waits for the result it stops at the next step, hands nothing in, and has time for other work."""
    to_cotuning(context)
    cotuner = EndlessCoTuner()
    async with worker_of(context, cotuner, tmp_path / "cache", at_once) as worker:
        working = asyncio.create_task(worker.step(wait_seconds=0))
        assert await asyncio.to_thread(cotuner.begun.wait, 20)
        match how:
            case "given to another":
                granted = None
                while granted is None:  # a heartbeat that is under way may keep it once more
                    clock.advance(31)
                    context.rounds.reconcile()
                    granted = context.work.lease("worker", "other")
            case "cancelled":
                context.lifecycle.cancel(RUN, actor="operator", reason="enough")
            case _:
                working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        assert await asyncio.to_thread(cotuner.stopped.wait, 20)
    assert working.cancelled() or working.result() is True
    assert context.lifecycle.rounds(RUN).rounds[0].state is (
        RoundState.ABORTED if how == "cancelled" else RoundState.COTUNING
    )


async def test_a_worker_keeps_its_lease_while_it_computes(context: Context, tmp_path: Path) -> None:
    """Heartbeats go out in the middle of a long step, and each answer shows that the worker is alive."""
    to_cotuning(context)
    heartbeats, cotuner = Heartbeats(), BadCoTuner()

    def compute_for_long() -> None:
        (tmp_path / "cache" / Worker.ALIVE).unlink()
        heartbeats.wait_for_an_answer()
        assert (tmp_path / "cache" / Worker.ALIVE).exists()

    cotuner.act = compute_for_long
    async with worker_of(context, cotuner, tmp_path / "cache", at_once, heartbeats) as worker:
        await worker.step(wait_seconds=0)
    assert context.lifecycle.rounds(RUN).rounds[0].state is RoundState.EVALUATING


async def test_a_disk_that_fails_does_not_silence_a_worker(context: Context, tmp_path: Path) -> None:
    """Heartbeats go on where the sign of life for this machine cannot be written: the lease does not depend on it."""
    to_cotuning(context)
    heartbeats, cotuner, alive = Heartbeats(), BadCoTuner(), tmp_path / "cache" / Worker.ALIVE

    def compute_for_long() -> None:
        broken = tmp_path / "broken"
        broken.symlink_to(tmp_path / "no such folder" / "alive")
        broken.replace(alive)  # at once: a heartbeat in between would make it anew
        heartbeats.wait_for_an_answer()
        heartbeats.wait_for_an_answer()
        alive.unlink()

    cotuner.act = compute_for_long
    async with worker_of(context, cotuner, tmp_path / "cache", at_once, heartbeats) as worker:
        await worker.step(wait_seconds=0)
    assert context.lifecycle.rounds(RUN).rounds[0].state is RoundState.EVALUATING


@pytest.mark.parametrize("lease_seconds", [0.5, 30.0])
async def test_a_lease_is_kept_however_short_it_is(lease_seconds: float, tmp_path: Path, clock: ManualClock) -> None:
    """The lease says how long its worker may be silent, and work may take many times as long."""
    over, cotuner = threading.Event(), BadCoTuner()
    cotuner.act = lambda: over.wait(20)
    with coordinator(tmp_path / "coordinator", clock, lease_seconds=lease_seconds) as context:
        to_cotuning(context)
        end = clock.seconds + 10 * lease_seconds

        async def pause(seconds: float) -> None:
            clock.advance(seconds)
            context.rounds.reconcile()
            if clock.seconds > end:
                over.set()
            await asyncio.sleep(0)

        async with worker_of(context, cotuner, tmp_path / "cache", pause) as worker:
            assert await worker.step(wait_seconds=0)
        assert context.lifecycle.rounds(RUN).rounds[0].state is RoundState.EVALUATING
        assert "work.lease_expired" not in kinds(context)
