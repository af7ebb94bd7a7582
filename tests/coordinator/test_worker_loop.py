import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from services.coordinator.context import Context
from services.coordinator.worker.cotuner import Cotuned
from services.coordinator.worker.loop import Worker
from shared.errors import (
    BaseModelMismatch,
    LossNotFinite,
    MemoryTooSmall,
    ModelUnreadable,
    StorageFull,
    StoreBusy,
    TokenizerMismatch,
)
from shared.protocol.digests import digest_of
from shared.protocol.messages import LONGEST_POLL_SECONDS, RoundScores
from shared.protocol.questions import ModelName, QuestionRequest, QuestionState
from shared.protocol.rounds import RoundState, RunState
from shared.protocol.terms import RunTerms
from shared.protocol.work import PreparedDigests
from tests.support.cotuners import AddingCoTuner
from tests.support.federations import LLM_LAYOUT, RUN, SLM_LAYOUT, adapter, begin, run_of, submit, terms_of
from tests.support.pauses import Enough, Pauses
from tests.support.scripted import Coordinator, answer, talking_to
from tests.support.workers import BadCoTuner, to_cotuning, worker_of

pytestmark = pytest.mark.anyio


def raising(error: Exception) -> Any:  # noqa: ANN401 - a callable
    """Return a function that raises."""

    def act() -> None:
        raise error

    return act


async def test_a_worker_without_work_says_so(context: Context, tmp_path: Path) -> None:
    """Asking is not working."""
    async with worker_of(context, BadCoTuner(), tmp_path / "cache") as worker:
        assert await worker.step(wait_seconds=0) is False


async def test_a_worker_that_was_answered_shows_it(context: Context, tmp_path: Path) -> None:
    """A health check looks at a file, for a worker serves nothing; before the first answer there is none."""
    alive = tmp_path / "cache" / Worker.ALIVE
    async with worker_of(context, BadCoTuner(), tmp_path / "cache") as worker:
        assert not alive.exists()
        await worker.step(wait_seconds=0)
    assert alive.exists()


async def test_no_worker_lives_on_what_its_predecessor_left(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sign of one that was killed is gone before the first question, which is answered at once; so is its own."""

    class Enough(Exception):
        pass

    alive, asked = tmp_path / Worker.ALIVE, []
    alive.touch()
    async with worker_of(context, BadCoTuner(), tmp_path) as worker:

        async def step(*, wait_seconds: float) -> bool:
            asked.append((wait_seconds, alive.exists()))
            if len(asked) == 2:
                raise Enough
            alive.touch()
            return False

        monkeypatch.setattr(worker, "step", step)
        with pytest.raises(Enough):
            await worker.run()
    assert asked == [(0.0, False), (LONGEST_POLL_SECONDS, True)]
    assert not alive.exists()


async def test_a_worker_plays_a_round(context: Context, tmp_path: Path) -> None:
    """Two steps, co-tuning and evaluation, and the round is published."""
    to_cotuning(context)
    async with worker_of(context, BadCoTuner(), tmp_path / "cache") as worker:
        assert await worker.step(wait_seconds=0)
        assert context.lifecycle.rounds(RUN).rounds[0].state is RoundState.EVALUATING
        assert await worker.step(wait_seconds=0)
    assert context.lifecycle.rounds(RUN).rounds[0].state is RoundState.PUBLISHED


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (LossNotFinite("the loss became NaN at step 3"), "cotune failed: loss_not_finite: the loss became NaN"),
        (ZeroDivisionError("out of luck"), "cotune failed: internal: ZeroDivisionError: out of luck"),
        (MemoryError("x" * 9000), "cotune failed: internal: MemoryError: xxx"),
    ],
)
async def test_what_goes_wrong_in_a_worker_is_the_rounds_reason(
    error: Exception, reason: str, context: Context, tmp_path: Path
) -> None:
    """The operator reads why in the run's own log, and the worker stays ready for more."""
    to_cotuning(context)
    cotuner = BadCoTuner()
    cotuner.act = raising(error)
    async with worker_of(context, cotuner, tmp_path / "cache") as worker:
        assert await worker.step(wait_seconds=0)
        assert await worker.step(wait_seconds=0) is False
    aborted = context.lifecycle.rounds(RUN).rounds[0]
    assert aborted.state is RoundState.ABORTED
    assert aborted.reason.startswith(reason)
    assert len(aborted.reason) < 5000


async def test_models_that_do_not_fit_fail_the_run(context: Context, tmp_path: Path) -> None:
    """What cannot be prepared ends the run with the worker's code."""
    context.lifecycle.create(RUN, terms_of(), actor="operator")
    context.lifecycle.start(RUN, actor="operator")
    cotuner = BadCoTuner()
    cotuner.act = raising(TokenizerMismatch("they do not share a tokenizer"))
    async with worker_of(context, cotuner, tmp_path / "cache") as worker:
        await worker.step(wait_seconds=0)
    assert run_of(context).state is RunState.FAILED
    assert "tokenizer_mismatch" in run_of(context).reason


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BaseModelMismatch("the base model x is another here"), "base_model_mismatch: worker: the base model x"),
        (TokenizerMismatch("its tokenizer is another here"), "tokenizer_mismatch: worker: its tokenizer"),
        (ModelUnreadable("the folder is gone"), "model_unreadable: worker: the folder is gone"),
        (MemoryTooSmall("2 GB are free"), "memory_too_small: worker: 2 GB are free"),
        (StorageFull("cache_dir has no room"), "storage_full: worker: cache_dir has no room"),
        (OSError(5, "Input/output error"), "machine: worker: [Errno 5] Input/output"),
    ],
)
async def test_a_machines_own_trouble_is_told_and_another_worker_goes_on(
    error: Exception, reason: str, context: Context, tmp_path: Path
) -> None:
    """A worker that is set up wrongly ends no round: it says why, and whoever is set up rightly takes over."""
    to_cotuning(context)
    cotuner = BadCoTuner()
    cotuner.act = raising(error)
    async with (
        worker_of(context, cotuner, tmp_path / "bad") as bad,
        worker_of(context, BadCoTuner(), tmp_path / "good") as good,
    ):
        with pytest.raises(type(error)):  # `run` logs it, and pauses before it asks again
            await bad.step(wait_seconds=0)
        told = next(event for event in context.lifecycle.events(RUN, after=0) if event.kind == "work.returned")
        assert str(told.detail["reason"]).startswith(reason)
        assert await good.step(wait_seconds=0)
    assert context.lifecycle.rounds(RUN).rounds[0].state is RoundState.EVALUATING


async def test_a_worker_fetches_what_it_does_not_have(context: Context, tmp_path: Path) -> None:
    """A second worker, or one whose cache was lost, goes on from the coordinator's blobs."""
    to_cotuning(context)
    for step in range(2):
        async with worker_of(context, BadCoTuner(), tmp_path / str(step)) as worker:
            assert await worker.step(wait_seconds=0)
    assert context.lifecycle.rounds(RUN).rounds[0].state is RoundState.PUBLISHED


@pytest.mark.parametrize("damage", [lambda blob: blob[:-4], lambda blob: blob[:-1] + b"\x01"], ids=["short", "flipped"])
async def test_a_damaged_adapter_in_the_cache_is_fetched_again(
    damage: Callable[[bytes], bytes], context: Context, tmp_path: Path
) -> None:
    """What a power cut or a bad disk left behind is neither computed with nor the run's failure."""

    class ReadingCoTuner(AddingCoTuner):
        def evaluate(
            self, terms: RunTerms, *, prepared: PreparedDigests, require_lease: Callable[[], None], **files: Path
        ) -> RoundScores:
            read.extend(digest_of(file.read_bytes()) for file in files.values())
            return super().evaluate(terms, prepared=prepared, require_lease=require_lease, **files)

    read: list[str] = []
    to_cotuning(context)
    async with worker_of(context, ReadingCoTuner(SLM_LAYOUT, LLM_LAYOUT), tmp_path / "cache") as worker:
        assert await worker.step(wait_seconds=0)
        for file in (tmp_path / "cache").rglob("*"):
            if file.is_file():
                file.write_bytes(damage(file.read_bytes()))
        assert await worker.step(wait_seconds=0)
    with context.store.read() as tx:
        played = tx.rounds(RUN)[0]
    assert played.state is RoundState.PUBLISHED
    assert set(read) == {played.aggregate, played.slm_candidate, played.llm_candidate}


async def test_a_workers_cache_does_not_grow(context: Context, tmp_path: Path) -> None:
    """After a round only the three adapters that were evaluated are kept, and what is no adapter is let alone."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "notes.txt").write_text("somebody else's")
    async with worker_of(context, BadCoTuner(), tmp_path / "cache") as worker:
        for number in (1, 2, 3):
            if number == 1:
                begin(context, terms_of(rounds=3))
            submit(context, "ada", float(number), number=number)
            submit(context, "bob", 2.0 * number, number=number)
            context.rounds.reconcile()
            while await worker.step(wait_seconds=0):
                pass
            assert len(list((tmp_path / "cache" / "adapters").iterdir())) == 3
    assert (tmp_path / "cache" / "notes.txt").read_text() == "somebody else's"


async def test_two_workers_do_not_share_a_cache(context: Context, tmp_path: Path) -> None:
    """The second stops at once and says why; it works when the first is gone."""
    async with worker_of(context, BadCoTuner(), tmp_path) as one, worker_of(context, BadCoTuner(), tmp_path) as two:
        first = asyncio.create_task(one.run())
        await asyncio.sleep(0)
        with pytest.raises(StoreBusy, match=f"another worker uses {tmp_path}"):
            await two.run()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        second = asyncio.create_task(two.run())
        await asyncio.sleep(0)
        assert not second.done()
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)


async def test_a_candidate_that_is_refused_aborts_the_round_with_the_reason(context: Context, tmp_path: Path) -> None:
    """NaN in a candidate is what the operator reads, not that a worker fell silent five times."""

    class NaNCoTuner(AddingCoTuner):
        def cotune(self, *args: Any, slm_into: Path, **kwargs: Any) -> Cotuned:  # noqa: ANN401 - passed on
            cotuned = super().cotune(*args, slm_into=slm_into, **kwargs)
            slm_into.write_bytes(adapter(float("nan")))
            return cotuned

    to_cotuning(context)
    async with worker_of(context, NaNCoTuner(SLM_LAYOUT, LLM_LAYOUT), tmp_path / "cache") as worker:
        assert await worker.step(wait_seconds=0)
    aborted = context.lifecycle.rounds(RUN).rounds[0]
    assert aborted.state is RoundState.ABORTED
    assert "values_not_finite" in aborted.reason
    assert run_of(context).published is None


async def test_an_adapter_above_the_limit_aborts_the_round_with_the_reason(context: Context, tmp_path: Path) -> None:
    """What the coordinator will never store is not computed five times."""
    to_cotuning(context)
    context.work._max_blob_bytes = 10
    async with worker_of(context, BadCoTuner(), tmp_path / "cache") as worker:
        assert await worker.step(wait_seconds=0)
    assert "blob_too_large" in context.lifecycle.rounds(RUN).rounds[0].reason


async def test_a_worker_that_fails_pauses_and_goes_on(tmp_path: Path) -> None:
    """An error of the coordinator's neither ends the worker nor makes it ask in a hot loop."""
    pauses = Pauses(3)
    async with talking_to(Coordinator([answer(500, "internal") for _ in range(3)])) as transport:
        with pytest.raises(Enough):
            await Worker(transport, BadCoTuner(), tmp_path, pauses, name="worker").run()
    assert pauses.seconds == [5.0] * 3


async def test_a_worker_that_has_nothing_else_to_do_answers_questions(context: Context, tmp_path: Path) -> None:
    """With the newest adapters of the run that was asked about; neither prompt nor answers are in its log."""
    begin(context)
    asked = context.questions.ask(QuestionRequest(run_id=RUN, prompt="a-secret"), by="operator")
    with capture_logs() as lines:
        async with worker_of(context, BadCoTuner(), tmp_path / "cache") as worker:
            assert await worker.step(wait_seconds=0) is True
    found = context.questions.question(asked.id, by="operator")
    assert found.state is QuestionState.ANSWERED
    assert found.answers == {name: f"{name} was asked: a-secret" for name in ModelName}
    assert "question.asked" in {line["event"] for line in lines}
    assert "a-secret" not in str(lines)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryTooSmall("no room"), "memory_too_small: no room"),
        (OSError("no disk"), "machine: no disk"),
        (ValueError("a-secret"), "internal: the worker failed: ValueError"),
    ],
)
async def test_whoever_asked_is_told_why_there_is_no_answer(
    error: Exception, reason: str, context: Context, tmp_path: Path
) -> None:
    """Of an error that nobody has foreseen only the kind, because its words may quote the prompt."""

    class FailingCoTuner(BadCoTuner):
        def ask(self, *_: Any, **__: Any) -> Any:  # noqa: ANN401 - never returns
            raise error

    begin(context)
    asked = context.questions.ask(QuestionRequest(run_id=RUN, prompt="a-secret"), by="operator")
    async with worker_of(context, FailingCoTuner(), tmp_path / "cache") as worker:
        await worker.step(wait_seconds=0)
    assert context.questions.question(asked.id, by="operator").reason == reason
