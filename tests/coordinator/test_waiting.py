import asyncio
from contextlib import ExitStack
from typing import Any

import pytest

from services.coordinator.changes import LOOK_SECONDS, MOST_SERVED, MOST_WAITING, Changes
from services.coordinator.context import Context
from tests.support.federations import RUN, begin, client, kinds, submit, terms_of, theta_of, work
from tests.support.requests import assert_problem

pytestmark = pytest.mark.anyio


async def after(event: asyncio.Event, act: Any) -> None:  # noqa: ANN401 - a callable
    """Act in a thread once the event is set."""
    await event.wait()
    await asyncio.to_thread(act)


class Asked:
    """Tells when the coordinator has looked at a question for the first time and found no answer."""

    def __init__(self, owner: object, method: str, patch: pytest.MonkeyPatch) -> None:
        self.event, self.times = asyncio.Event(), 0
        loop, real = asyncio.get_running_loop(), getattr(owner, method)

        def ask(_: object, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - passed on
            self.times += 1
            answer = real(*args, **kwargs)
            loop.call_soon_threadsafe(self.event.set)
            return answer

        patch.setattr(type(owner), method, ask)


async def test_a_poll_for_nothing_returns_when_its_time_is_over(context: Context) -> None:
    """No answer within wait_seconds is an answer too: ask again."""
    context.lifecycle.create(RUN, terms_of(), actor="operator")
    loop = asyncio.get_running_loop()
    for who, method, path in (
        ("ada", "GET", "/v1/wanted?wait_seconds=0.05"),
        ("operator", "GET", f"/v1/runs/{RUN}/events?after=2&wait_seconds=0.05"),
        ("worker", "POST", "/v1/work/lease"),
    ):
        body = {"worker": "w", "wait_seconds": 0.05} if who == "worker" else None
        async with client(context, who) as http:
            began = loop.time()
            answer = (await http.request(method, path, json=body)).json()
            assert 0.04 < loop.time() - began < 5
        assert not any(answer.get(name) for name in ("assignment", "events", "lease"))


async def test_an_agent_hears_of_a_round_at_once(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long poll answers when the round opens, not when its time is over."""
    context.lifecycle.create(RUN, terms_of(), actor="operator")
    context.lifecycle.start(RUN, actor="operator")
    asked = Asked(context.rounds, "wanted", monkeypatch)
    acting = asyncio.create_task(after(asked.event, lambda: work(context)))
    async with client(context, "ada") as http:
        answer = (await http.get("/v1/wanted?wait_seconds=25")).json()
    await acting
    assert answer["assignment"]["round"] == 1
    assert asked.times > 1


async def test_an_agent_hears_of_a_new_adapter_at_once(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who says what it holds is answered when there is something newer."""
    begin(context)
    submit(context, "ada", 1.0)
    submit(context, "bob", 2.0)
    context.rounds.reconcile()
    work(context)
    holding = theta_of(context)
    asked = Asked(context.rounds, "wanted", monkeypatch)
    acting = asyncio.create_task(after(asked.event, lambda: work(context)))
    async with client(context, "ada") as http:
        answer = (await http.get("/v1/wanted", params={"wait_seconds": 25, "holding": holding})).json()
    await acting
    assert answer["published"]["round"] == 1


async def test_a_worker_hears_of_work_at_once(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting a run wakes the worker that waits."""
    context.lifecycle.create(RUN, terms_of(), actor="operator")
    asked = Asked(context.work, "lease", monkeypatch)
    acting = asyncio.create_task(after(asked.event, lambda: context.lifecycle.start(RUN, actor="operator")))
    async with client(context, "worker") as http:
        answer = (await http.post("/v1/work/lease", json={"worker": "w", "wait_seconds": 25})).json()
    await acting
    assert answer["lease"]["task"]["kind"] == "prepare"


async def test_a_screen_hears_of_events_at_once(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event log is followed by long polls, each from where the last one ended."""
    context.lifecycle.create(RUN, terms_of(), actor="operator")
    async with client(context, "viewer") as http:
        first = (await http.get(f"/v1/runs/{RUN}/events")).json()
        assert [event["kind"] for event in first["events"]] == kinds(context)
        asked = Asked(context.lifecycle, "events", monkeypatch)
        acting = asyncio.create_task(after(asked.event, lambda: context.lifecycle.start(RUN, actor="operator")))
        params = {"after": first["last"], "wait_seconds": 25}
        following = (await http.get(f"/v1/runs/{RUN}/events", params=params)).json()
        await acting
    assert [event["kind"] for event in following["events"]] == ["run.running"]
    assert following["last"] > first["last"]


@pytest.mark.parametrize("wait", ["-1", "26", "nan", "inf", "long"])
async def test_nobody_waits_longer_than_the_protocol_allows(wait: str, context: Context) -> None:
    """A wait that is no number of 0 to 25 seconds is refused."""
    async with client(context, "ada") as http:
        assert_problem(await http.get(f"/v1/wanted?wait_seconds={wait}"), 422, "message_invalid")


async def test_one_agent_does_not_wait_a_thousand_times(context: Context) -> None:
    """Each change wakes all who wait: what one of them asks beyond a few polls is answered at once, and others wait."""
    context.lifecycle.create(RUN, terms_of(), actor="operator")
    async with client(context, "ada") as ada, client(context, "bob") as bob:
        polls = [asyncio.create_task(ada.get("/v1/wanted?wait_seconds=25")) for _ in range(MOST_WAITING + 3)]
        other = asyncio.create_task(bob.get("/v1/wanted?wait_seconds=25"))
        while context.changes._waiting != {"ada": MOST_WAITING, "bob": 1}:
            await asyncio.sleep(0)
        while sum(poll.done() for poll in polls) < 3:
            await asyncio.sleep(0)
        assert sum(poll.done() for poll in polls) == 3
        context.changes.stop()
        for poll in (*polls, other):
            assert (await poll).json()["assignment"] is None
    assert not +context.changes._waiting


async def test_agents_that_are_woken_wait_for_requests_that_are_served(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round that opens wakes them all; while others' requests are under way, nobody is told of it yet."""
    monkeypatch.setattr("services.coordinator.changes.LONGEST_TURN_SECONDS", 30.0)
    context.lifecycle.create(RUN, terms_of(), actor="operator")
    context.lifecycle.start(RUN, actor="operator")
    async with client(context, "ada") as ada, client(context, "bob") as bob:
        polls = [asyncio.create_task(http.get("/v1/wanted?wait_seconds=25")) for http in (ada, bob)]
        while context.changes.waiting < len(polls):
            await asyncio.sleep(0)
        with ExitStack() as busy:
            for _ in range(MOST_SERVED):
                busy.enter_context(context.changes.serving())
            await asyncio.to_thread(work, context)
            while not context.changes._turn.locked():
                await asyncio.sleep(0)
            await asyncio.sleep(5 * LOOK_SECONDS)
            assert not any(poll.done() for poll in polls)
        assert [(await poll).json()["assignment"]["round"] for poll in polls] == [1, 1]


async def test_an_agent_that_was_woken_does_not_wait_for_ever(context: Context) -> None:
    """However much is served, it is told after its turn's longest time."""
    context.lifecycle.create(RUN, terms_of(), actor="operator")
    context.lifecycle.start(RUN, actor="operator")
    with ExitStack() as busy:
        for _ in range(MOST_SERVED + 1):
            busy.enter_context(context.changes.serving())
        async with client(context, "ada") as ada:
            poll = asyncio.create_task(ada.get("/v1/wanted?wait_seconds=25"))
            while not context.changes.waiting:
                await asyncio.sleep(0)
            await asyncio.to_thread(work, context)
            async with asyncio.timeout(20):
                assert (await poll).json()["assignment"]["round"] == 1


async def test_of_many_agents_that_are_woken_some_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others have their turns by and by."""
    monkeypatch.setattr("services.coordinator.changes.AT_ONCE", 3)
    monkeypatch.setattr("services.coordinator.changes.AT_ONCE_SECONDS", 10_000.0)
    changes, there, told = Changes(), asyncio.Event(), list[str]()

    async def never() -> bool:
        return False

    async def poll(name: str) -> None:
        await changes.poll(there.is_set, who=name, ready=bool, wait_seconds=25, gone=never, agent=True)
        told.append(name)

    names = ["ada", "bob", "cleo", "dan", "eve"]
    polls = [asyncio.create_task(poll(name)) for name in names]
    while changes.waiting < len(names):
        await asyncio.sleep(0)
    there.set()
    changes.ring(for_agents=True)
    while len(told) < 3:
        await asyncio.sleep(0)
    await asyncio.sleep(LOOK_SECONDS)
    assert len(told) == 3
    for task in polls:
        task.cancel()
    await asyncio.gather(*polls, return_exceptions=True)
