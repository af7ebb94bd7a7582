"""What a worker tells Prometheus: its work, and where that is read."""

import asyncio
import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.federation import ManualClock, token_of
from services.coordinator.app import create_work_app
from services.coordinator.context import Context
from services.coordinator.worker.metrics import serving, worker_registry
from services.coordinator.worker.service import serve
from services.coordinator.worker.settings import Settings
from services.coordinator.worker.tally import Tally
from shared.errors import ConfigurationError, ModelUnreadable
from shared.listening import listen
from shared.metrics import exposition
from shared.protocol.questions import QuestionRequest
from tests.support.cotuners import AddingCoTuner
from tests.support.federations import LLM_LAYOUT, RUN, SLM_LAYOUT, begin, lease, terms_of
from tests.support.metrics import value, values
from tests.support.served import served
from tests.support.workers import BadCoTuner, to_cotuning, worker_of

pytestmark = pytest.mark.anyio


def told(tally: Tally) -> str:
    """What Prometheus would be told now."""
    return exposition(worker_registry(tally)).decode()


async def test_work_is_counted_by_kind(context: Context, tmp_path: Path) -> None:
    """While it is computed, when it is done, and what the last co-tuning was like."""
    to_cotuning(context)
    tally, cotuner, during = Tally(), BadCoTuner(), []
    cotuner.act = lambda: during.append(values(told(tally), "fedcollm_worker_working"))
    async with worker_of(context, cotuner, tmp_path / "cache", tally=tally) as worker:
        for _ in range(2):
            assert await worker.step(wait_seconds=0)
    assert during == [{("prepare",): 0, ("cotune",): 1, ("evaluate",): 0}]
    assert values(told(tally), "fedcollm_worker_working") == {("prepare",): 0, ("cotune",): 0, ("evaluate",): 0}
    done = {("prepare",): 0, ("cotune",): 1, ("evaluate",): 1}
    assert values(told(tally), "fedcollm_worker_job_seconds_count") == done
    assert 0 < value(told(tally), "fedcollm_worker_job_seconds_sum", "cotune") < 60
    assert value(told(tally), "fedcollm_worker_cotuning_steps") == 1
    assert values(told(tally), "fedcollm_worker_jobs_failed_total") == {}


async def test_work_that_cannot_be_done_is_counted_with_its_code(context: Context, tmp_path: Path) -> None:
    """Whether it is handed to another worker or not."""
    context.lifecycle.create(RUN, terms_of(), actor="operator")
    context.lifecycle.start(RUN, actor="operator")
    tally, cotuner = Tally(), BadCoTuner()

    def fail() -> None:
        raise ModelUnreadable("no weights")

    cotuner.act = fail
    async with worker_of(context, cotuner, tmp_path / "cache", tally=tally) as worker:
        assert await worker.step(wait_seconds=0)
    assert values(told(tally), "fedcollm_worker_jobs_failed_total") == {("model_unreadable", "prepare"): 1}
    assert value(told(tally), "fedcollm_worker_job_seconds_count", "prepare") == 0


async def test_a_lease_that_was_lost_is_counted_with_the_heartbeat_that_told_it(
    context: Context, tmp_path: Path, clock: ManualClock
) -> None:
    """The work is somebody else's by then."""
    to_cotuning(context)
    tally, cotuner, pausing = Tally(), BadCoTuner(), asyncio.Event()

    async def pause(_: float) -> None:
        await pausing.wait()
        await asyncio.sleep(0)

    def lose() -> None:
        clock.advance(31)
        context.rounds.reconcile()
        lease(context, "other")
        loop.call_soon_threadsafe(pausing.set)
        while not tally.heartbeats_failed:
            pass

    loop = asyncio.get_running_loop()
    cotuner.act = lose
    async with worker_of(context, cotuner, tmp_path / "cache", pause, tally=tally) as worker:
        assert await worker.step(wait_seconds=0)
    assert value(told(tally), "fedcollm_worker_leases_lost_total") == 1
    assert value(told(tally), "fedcollm_worker_heartbeats_failed_total") == 1


async def test_a_worker_serves_them_where_its_settings_say(context: Context, tmp_path: Path) -> None:
    """While it works; nothing is served without the setting."""
    (tmp_path / "token").write_text(token_of("worker"))
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    with served(create_work_app(context)) as coordinator:
        settings = Settings(
            coordinator_url=f"http://127.0.0.1:{coordinator}",
            token_file=tmp_path / "token",
            cache_dir=tmp_path / "cache",
            auxiliary={"path": os.devnull},
            validation={"path": os.devnull},
            metrics_port=port,
        )
        assert Settings(**settings.model_dump() | {"metrics_port": None}).metrics_host == "127.0.0.1"
        working = asyncio.create_task(serve(settings, AddingCoTuner(SLM_LAYOUT, LLM_LAYOUT)))
        async with httpx.AsyncClient() as http:
            while not (tmp_path / "cache" / "alive").exists():
                await asyncio.sleep(0)
            answer = await http.get(f"http://127.0.0.1:{port}/metrics")
            working.cancel()
            await working
            with pytest.raises(httpx.ConnectError):
                await http.get(f"http://127.0.0.1:{port}/metrics")
    assert value(answer.text, "fedcollm_worker_job_seconds_count", "cotune") == 0
    assert value(answer.text, "process_resident_memory_bytes") > 1 << 20


def test_a_port_in_use_is_named() -> None:
    """With the setting that says another."""
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        named = pytest.raises(ConfigurationError, match=rf"cannot listen on 127\.0\.0\.1:{port}: .*metrics_port")
        with named, serving(worker_registry(Tally()), host="127.0.0.1", port=port):
            pass


def test_nothing_is_served_without_a_port() -> None:
    """As it is where the setting is not."""
    with serving(worker_registry(Tally()), host="127.0.0.1", port=None) as nowhere:
        assert nowhere is None


async def test_questions_are_counted_and_none_is_told(context: Context, tmp_path: Path) -> None:
    """By whether the models could be asked; neither the prompt nor an answer is in what Prometheus reads."""

    class OnceForgetful(BadCoTuner):
        def ask(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - passed on
            self.act()
            return super().ask(*args, **kwargs)

    def fail() -> None:
        cotuner.act = lambda: None
        raise ModelUnreadable("no weights")

    begin(context)
    tally, cotuner = Tally(), OnceForgetful()
    async with worker_of(context, cotuner, tmp_path / "cache", tally=tally) as worker:
        cotuner.act = fail
        for _ in range(2):
            context.questions.ask(QuestionRequest(run_id=RUN, prompt="a-secret"), by="operator")
            await worker.step(wait_seconds=0)
    assert values(told(tally), "fedcollm_worker_questions_total") == {("answered",): 1, ("failed",): 1}
    assert "a-secret" not in told(tally)
