"""How far a co-tuning has come: where a worker keeps it, and for how long."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.federation import ManualClock
from services.coordinator.context import Context
from services.coordinator.worker.cotuner import Cotuned
from services.coordinator.worker.loop import KEPT_CHECKPOINTS
from shared.errors import LeaseLost, LossNotFinite
from shared.protocol.rounds import RoundState
from tests.support.cotuners import AddingCoTuner
from tests.support.federations import LLM_LAYOUT, RUN, SLM_LAYOUT, begin, submit, terms_of
from tests.support.workers import to_cotuning, worker_of

pytestmark = pytest.mark.anyio


class KeepingCoTuner(AddingCoTuner):
    """Writes a checkpoint, and does then what a test wants; ``found`` says what was there before."""

    def __init__(self, *acts: Callable[[], None], micro_batch: int | None = None) -> None:
        super().__init__(SLM_LAYOUT, LLM_LAYOUT)
        self._acts = list(acts)
        self._micro_batch = micro_batch
        self.found: list[bool] = []

    def cotune(self, *args: Any, checkpoint: Path, **kwargs: Any) -> Cotuned:  # noqa: ANN401 - passed on
        """Keep, act, and add one."""
        self.found.append(checkpoint.exists())
        checkpoint.write_text("so far")
        if self._acts:
            self._acts.pop(0)()
        made = super().cotune(*args, checkpoint=checkpoint, **kwargs)
        return Cotuned(steps=made.steps, losses=made.losses, micro_batch=self._micro_batch)


def checkpoints(cache: Path) -> list[Path]:
    """Return what is kept."""
    return list((cache / "checkpoints").iterdir())


async def test_a_worker_goes_on_from_its_checkpoint_under_another_lease(
    context: Context, tmp_path: Path, clock: ManualClock
) -> None:
    """The lease of a worker that was silent passes on, and when it has it again, what it had done is not lost."""

    def lose() -> None:
        clock.advance(31)
        context.rounds.reconcile()
        raise LeaseLost("another has it")

    to_cotuning(context)
    cotuner = KeepingCoTuner(lose)
    async with worker_of(context, cotuner, tmp_path) as worker:
        assert await worker.step(wait_seconds=0)
        assert len(checkpoints(tmp_path)) == 1
        assert await worker.step(wait_seconds=0)
    assert cotuner.found == [False, True]
    assert context.lifecycle.rounds(RUN).rounds[0].state is RoundState.EVALUATING


async def test_a_checkpoint_is_gone_once_the_result_was_taken(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not before: a worker that is killed while it hands in need not compute everything again."""
    at_hand: list[int] = []
    take = context.work.complete

    def taking(*args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - passed on
        take(*args, **kwargs)
        at_hand.append(len(checkpoints(tmp_path)))

    to_cotuning(context)
    monkeypatch.setattr(context.work, "complete", taking)
    async with worker_of(context, KeepingCoTuner(), tmp_path) as worker:
        await worker.step(wait_seconds=0)
    assert at_hand == [1]
    assert checkpoints(tmp_path) == []


async def test_every_round_has_a_checkpoint_of_its_own(context: Context, tmp_path: Path) -> None:
    """What failed in one is no beginning for the next; of what nobody asks for any more, a few are kept."""

    def fail() -> None:
        raise LossNotFinite("the loss became NaN")

    (tmp_path / "checkpoints").mkdir()
    for number in range(9):
        (tmp_path / "checkpoints" / f"old-{number}").touch()
    begin(context, terms_of(rounds=2))
    cotuner = KeepingCoTuner(fail)
    async with worker_of(context, cotuner, tmp_path) as worker:
        for number in (1, 2):
            submit(context, "ada", float(number), number=number)
            submit(context, "bob", 2.0 * number, number=number)
            context.rounds.reconcile()
            while await worker.step(wait_seconds=0):
                pass
    assert cotuner.found == [False, False]
    assert len(checkpoints(tmp_path)) == KEPT_CHECKPOINTS


async def test_a_run_says_that_memory_ran_out(context: Context, tmp_path: Path) -> None:
    """Whoever looks at the round reads how many examples went through the models at once; else nothing is said."""
    for micro_batch in (None, 2):
        if micro_batch is None:
            begin(context, terms_of(rounds=2))
        number = 1 if micro_batch is None else 2
        submit(context, "ada", float(number), number=number)
        submit(context, "bob", 2.0 * number, number=number)
        context.rounds.reconcile()
        async with worker_of(context, KeepingCoTuner(micro_batch=micro_batch), tmp_path) as worker:
            while await worker.step(wait_seconds=0):
                pass
    (told,) = (event for event in context.lifecycle.events(RUN, after=0) if event.kind == "work.memory_ran_out")
    assert (told.round, told.detail["kind"], told.detail["micro_batch"]) == (2, "cotune", 2)
