"""What a coordinator tells Prometheus: of its store, which outlives it, and of itself."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry

from bench.federation import ManualClock
from services.coordinator.app import create_app, create_work_app
from services.coordinator.changes import Changes
from services.coordinator.context import Context
from services.coordinator.metrics import Metrics
from services.coordinator.reconciling import reconciling
from services.coordinator.rounds import Advanced
from services.coordinator.routes.measuring import Measuring
from services.coordinator.store_metrics import MOST_RUNS
from shared.protocol.terms import CohortTerms
from tests.support.federations import (
    RUN,
    adapter,
    begin,
    client,
    coordinator,
    lease,
    play_round,
    submit,
    terms_of,
    work,
)
from tests.support.metrics import families, value, values
from tests.support.requests import announcing

pytestmark = pytest.mark.anyio

MICROSECOND = 1e-6


def told(context: Context) -> str:
    """What Prometheus would be told now."""
    return context.metrics.text().decode()


async def test_prometheus_reads_them_with_a_viewers_token_alone(context: Context) -> None:
    """No field of the protocol is wanted, and the type is the one that it asks for."""
    async with client(context, "viewer") as http:
        del http.headers["FedCoLLM-Protocol"]
        answer = await http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert value(answer.text, "fedcollm_runs", "running") == 0


# --- the store --------------------------------------------------------------------------------------------------


def test_what_the_store_knows_is_told_by_the_next_process(tmp_path: Path, clock: ManualClock) -> None:
    """Rounds, updates, work, agents, adapters: as they are, whoever counted them first."""
    with coordinator(tmp_path, clock) as context:
        begin(context, terms_of(rounds=3))
        play_round(context, 1)
        clock.advance(7)
        play_round(context, 2, loss=5.0)  # the gate refuses it
    with coordinator(tmp_path, clock, agents=()) as context:
        text = told(context)
    assert value(text, "fedcollm_runs", "running") == 1
    assert value(text, "fedcollm_rounds", "open") == 1
    assert values(text, "fedcollm_rounds_ended_total") == {("published",): 1, ("refused",): 1, ("aborted",): 0}
    assert value(text, "fedcollm_updates_total", "accepted") == 4
    assert value(text, "fedcollm_agents", "approved") == 3
    assert value(text, "fedcollm_jobs", "done") == 5
    assert value(text, "fedcollm_round_state_seconds_total", "open") == 7
    assert value(text, "fedcollm_run_rounds", RUN) == 3
    assert value(text, "fedcollm_run_rounds_published", RUN) == 1
    assert values(text, "fedcollm_run_accuracy_ratio") == {("slm", RUN): 0.5, ("llm", RUN): 0.5}
    assert value(text, "fedcollm_run_loss_nats", "slm", RUN) == 1
    assert value(text, "fedcollm_blobs") > 4
    assert value(text, "fedcollm_blob_bytes") > len(adapter(0.0))
    assert value(text, "fedcollm_database_bytes") > 0
    assert 0 < value(text, "fedcollm_disk_free_bytes") < value(text, "fedcollm_disk_size_bytes")
    assert value(text, "fedcollm_audit_entries_total") > 10


def test_a_rounds_state_has_an_age_and_the_terms_limit(context: Context, clock: ManualClock) -> None:
    """Both are there while the run goes on and something of it is open; what a worker does has no limit."""
    cohort = CohortTerms(min_count=2, max_count=2, min_seconds=10, max_seconds=60)
    begin(context, terms_of(cohort=cohort))
    clock.advance(25)
    assert value(told(context), "fedcollm_round_age_seconds", RUN, "open") == 25
    assert value(told(context), "fedcollm_round_limit_seconds", RUN, "open") == 60
    context.lifecycle.pause(RUN, actor="operator")
    assert values(told(context), "fedcollm_round_age_seconds") == {}
    context.lifecycle.start(RUN, actor="operator")
    for agent in ("ada", "bob"):
        submit(context, agent)
    context.rounds.reconcile()
    clock.advance(5)
    assert values(told(context), "fedcollm_round_age_seconds") == {(RUN, "aggregated"): 5}
    assert values(told(context), "fedcollm_round_limit_seconds") == {}


def test_a_stage_of_an_attempt_has_the_limit_that_the_terms_give_it(context: Context) -> None:
    """It is what the reconciler ends it by."""
    cohort = CohortTerms(min_count=3, max_count=3, min_seconds=10, max_seconds=60)
    terms = terms_of(aggregation="SecureAggregation", cohort=cohort)
    begin(context, terms)
    for agent in ("ada", "bob", "cleo"):
        context.attempts.ready(agent, RUN, 1)
    context.rounds.reconcile()
    limit = values(told(context), "fedcollm_round_limit_seconds")
    assert limit == {(RUN, "keys"): terms.masking.stage_seconds}


def test_work_that_nobody_takes_waits_longer_and_longer(context: Context, clock: ManualClock) -> None:
    """But not what a paused run has; and a lease that ran out is a lost one."""
    context.lifecycle.create(RUN, terms_of(), actor="operator")
    context.lifecycle.start(RUN, actor="operator")
    assert value(told(context), "fedcollm_job_waiting_seconds") == 0
    clock.advance(9)
    assert value(told(context), "fedcollm_job_waiting_seconds") == 9
    context.lifecycle.pause(RUN, actor="operator")
    assert value(told(context), "fedcollm_job_waiting_seconds") == 0
    context.lifecycle.start(RUN, actor="operator")
    lease(context)
    assert (value(told(context), "fedcollm_leases_total"), value(told(context), "fedcollm_leases_lost_total")) == (1, 0)
    clock.advance(31)
    context.rounds.reconcile()
    assert (value(told(context), "fedcollm_leases_total"), value(told(context), "fedcollm_leases_lost_total")) == (1, 1)
    work(context)
    assert (value(told(context), "fedcollm_leases_total"), value(told(context), "fedcollm_leases_lost_total")) == (2, 1)


async def test_who_was_heard_of_is_counted_and_silence_is_measured(context: Context, clock: ManualClock) -> None:
    """An agent that asks nothing is silent since this coordinator began; a worker with work is there as it computes."""
    context.lifecycle.create(RUN, terms_of(), actor="operator")
    context.lifecycle.start(RUN, actor="operator")
    clock.advance(100)
    for who in ("ada", "bob"):
        async with client(context, who) as http:
            assert (await http.get("/v1/wanted")).is_success
    async with client(context, "worker") as http:
        assert (await http.post("/v1/work/lease", json={"worker": "w", "wait_seconds": 0})).json()["lease"]
    assert value(told(context), "fedcollm_agents_heard") == 2
    assert value(told(context), "fedcollm_agents_silent_seconds") == 100
    assert value(told(context), "fedcollm_workers_heard") == 1
    async with client(context, "cleo") as http:
        await http.get("/v1/wanted")
    clock.advance(70)
    assert value(told(context), "fedcollm_agents_heard") == 0
    assert value(told(context), "fedcollm_agents_silent_seconds") == 70
    assert value(told(context), "fedcollm_workers_heard") == 1
    context.lifecycle.cancel(RUN, "enough", actor="operator")
    assert value(told(context), "fedcollm_workers_heard") == 0


def test_many_runs_and_agents_make_few_series(tmp_path: Path, clock: ManualClock) -> None:
    """Of runs the newest that go on are named, and no agent ever is."""
    names = tuple(f"clinic-{number}" for number in range(50))
    with coordinator(tmp_path, clock, agents=names) as context:
        for number in range(MOST_RUNS + 5):
            context.lifecycle.create(f"run-{number:02}", terms_of(), actor="operator")
            context.lifecycle.start(f"run-{number:02}", actor="operator")
            clock.advance(1)
        text = told(context)
    assert len(values(text, "fedcollm_run_rounds")) == MOST_RUNS
    assert ("run-24",) in values(text, "fedcollm_run_rounds")
    assert "clinic" not in text


# --- the process ------------------------------------------------------------------------------------------------


async def test_requests_are_counted_by_route_and_never_by_what_is_in_a_path(context: Context) -> None:
    """Method, class of status and bytes too; an unknown path or method, which anybody may send, adds no series."""
    begin(context)
    blob = adapter(1.0)
    async with client(context, "ada") as http:
        path = f"/v1/runs/{RUN}/rounds/1/update"
        sent = await http.put(path, content=blob, headers=announcing(blob))
        assert sent.is_success, sent.text
    async with client(context, "viewer") as http:
        for number in range(3):
            await http.get(f"/v1/runs/none-{number}")
            await http.request(f"MAKE{number}", f"/v1/nothing-{number}")
    text = told(context)
    route = "/runs/{run_id}/rounds/{number}/update"
    assert value(text, "fedcollm_http_requests_total", "PUT", route, "2xx") == 1
    assert value(text, "fedcollm_http_received_bytes_total", route) == len(blob)
    assert value(text, "fedcollm_http_sent_bytes_total", route) == len(sent.content)
    assert value(text, "fedcollm_http_request_seconds_count", "PUT", route) == 1
    assert value(text, "fedcollm_http_requests_total", "GET", "/runs/{run_id}", "4xx") == 3
    assert value(text, "fedcollm_http_requests_total", "other", "none", "4xx") == 3
    assert values(text, "fedcollm_http_refusals_total") == {("not_found",): 3, ("route_unknown",): 3}


async def test_a_route_that_breaks_is_counted_as_a_fault_of_ours(context: Context) -> None:
    """The class is that of the answer which is made outside of the app."""
    broken = replace(context, lifecycle=None)
    inside = httpx.ASGITransport(app=create_app(broken), raise_app_exceptions=False)
    async with client(context, "viewer") as http, httpx.AsyncClient(transport=inside, headers=http.headers) as asked:
        assert (await asked.get("http://here/v1/runs")).status_code == 500
    assert value(told(context), "fedcollm_http_requests_total", "GET", "/runs", "5xx") == 1
    assert value(told(context), "fedcollm_http_refusals_total", "internal") == 1


async def test_a_long_poll_that_waits_is_seen(context: Context) -> None:
    """While it does, and no longer."""
    begin(context)
    async with client(context, "worker") as http:
        body = {"worker": "w", "wait_seconds": 25}
        asking = asyncio.create_task(http.post("/v1/work/lease", json=body))
        while value(told(context), "fedcollm_http_polls_waiting") == 0:
            await asyncio.sleep(0)
        context.changes.stop()
        await asking
    assert value(told(context), "fedcollm_http_polls_waiting") == 0


async def test_passes_of_the_reconciler_are_counted_and_so_are_their_faults(context: Context) -> None:
    """Whether a run cannot go on or the whole pass cannot."""

    class Engine:
        """Fails for a run, then altogether, then not at all."""

        def __init__(self) -> None:
            self.done = 0

        def advance(self) -> Advanced:
            """Do a pass."""
            self.done += 1
            context.changes.ring()
            if self.done == 2:
                raise OSError("no room")
            return Advanced((), well=self.done > 2)

    engine = Engine()
    async with reconciling(replace(context, rounds=engine)):
        while value(told(context), "fedcollm_reconcile_seconds_count") < 4:
            await asyncio.sleep(0)
    assert value(told(context), "fedcollm_reconcile_failures_total") == 2


async def test_measuring_passes_every_piece_on_as_it_comes() -> None:
    """Nothing is kept back: the first piece has left before the second is asked for."""
    passed: list[str] = []

    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"one", b"two"):
            passed.append(f"made {piece.decode()}")
            yield piece

    async def app(_scope: object, _receive: object, send: object) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        async for piece in pieces():
            await send({"type": "http.response.body", "body": piece, "more_body": True})

    async def send(message: dict[str, object]) -> None:
        if "body" in message:
            passed.append(f"sent {message['body'].decode()}")

    measuring = Measuring(app, metrics=Metrics(CollectorRegistry(), waiting=lambda: 0), changes=Changes())
    await measuring({"type": "http", "method": "GET"}, None, send)
    assert passed == ["made one", "sent one", "made two", "sent two"]


async def test_measuring_leaves_alone_what_is_no_request() -> None:
    """Another kind of message is for the app."""
    seen = []

    async def app(scope: dict[str, str], _receive: object, _send: object) -> None:
        seen.append(scope["type"])

    metrics = Metrics(CollectorRegistry(), waiting=lambda: 0)
    await Measuring(app, metrics=metrics, changes=Changes())({"type": "lifespan"}, None, None)
    assert seen == ["lifespan"]
    assert values(metrics.text().decode(), "fedcollm_http_requests_total") == {}


def test_counting_a_request_takes_microseconds() -> None:
    """Well under a tenth of a millisecond, where a request takes several."""
    metrics = Metrics(CollectorRegistry(), waiting=lambda: 0)
    times = []
    for _ in range(200):
        began = time.perf_counter()
        metrics.answered(route="/wanted", method="GET", status=200, seconds=0.1, received=0, sent=9)
        times.append(time.perf_counter() - began)
    assert sorted(times)[100] < 50 * MICROSECOND


def test_two_coordinators_in_one_process_have_metrics_of_their_own(tmp_path: Path, clock: ManualClock) -> None:
    """No registry is shared."""
    with coordinator(tmp_path / "one", clock) as one, coordinator(tmp_path / "two", clock) as two:
        one.metrics.refused("not_found")
        assert values(told(two), "fedcollm_http_refusals_total") == {}


async def test_the_work_port_is_measured_and_tells_nothing(context: Context) -> None:
    """Workers' requests are counted with the others; metrics are for the public port."""
    async with client(context, "worker", app=create_work_app(context)) as http:
        assert (await http.get("/metrics")).status_code == 404
        await http.post("/v1/work/lease", json={"worker": "w", "wait_seconds": 0})
    assert value(told(context), "fedcollm_http_requests_total", "POST", "/work/lease", "2xx") == 1


def test_no_metric_has_a_second_series_for_when_it_began(context: Context) -> None:
    """It would double their number."""
    context.metrics.refused("not_found")
    assert [family.name for family in families(told(context)) if family.name.endswith("_created")] == []
