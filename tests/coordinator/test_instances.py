"""Which process of an agent the coordinator lets take part, where more than one has its name and key."""

import asyncio

import httpx
import pytest
from structlog.testing import capture_logs

from bench.federation import FEDERATION, ManualClock
from services.coordinator.app import create_app
from services.coordinator.context import Context
from services.coordinator.instances import GONE_SECONDS
from shared.protocol.membership import Heard
from shared.protocol.messages import LONGEST_POLL_SECONDS, Wanted
from tests.support.federations import RUN, begin, client, coordinator, credentials_of, submit, terms_of
from tests.support.members import certificate, member, pending
from tests.support.requests import assert_problem
from tests.support.served import served
from tests.support.signing import Signing

pytestmark = pytest.mark.anyio

FIRST, SECOND, THIRD = ("first".ljust(22, "-"), "second".ljust(22, "-"), "third".ljust(22, "-"))


async def ask(context: Context, instance: str, *follows: str, who: str = "ada") -> Wanted | None:
    """Let a process ask what is wanted; None if it is refused because another one takes part."""
    async with client(context, who) as http:
        answer = await http.get("/v1/wanted", params={"instance": instance, "follows": follows})
    if answer.status_code != 200:
        assert_problem(answer, 409, "agent_runs_twice")
        return None
    return Wanted.model_validate_json(answer.content)


def heard(context: Context) -> Heard:
    """Return what the operator sees of ada."""
    seen = member(context, "ada").heard
    assert seen is not None
    return seen


async def test_a_second_process_of_an_agent_is_refused_and_the_first_goes_on(
    context: Context, clock: ManualClock
) -> None:
    """For as long as the first one asks, as it does all the time; another agent is nobody's second process."""
    for _ in range(10):
        assert await ask(context, FIRST) is not None
        assert await ask(context, SECOND) is None
        assert await ask(context, SECOND, THIRD) is None
        clock.advance(LONGEST_POLL_SECONDS)
    assert await ask(context, SECOND, who="bob") is not None


async def test_what_is_refused_does_nothing_for_its_agent(context: Context) -> None:
    """Nothing that it says of runs is taken for what the agent says, and it is given no round."""
    begin(context)
    assert (await ask(context, FIRST)).assignment is not None
    async with client(context, "ada") as http:
        params = {"instance": SECOND, "declined": f"{RUN}:unwilling"}
        assert (await http.get("/v1/wanted", params=params)).status_code == 409
    assert heard(context).declines == {}


async def test_an_agent_that_was_restarted_is_let_in_at_once(context: Context) -> None:
    """It says which process it follows, and goes on without saying it."""
    assert await ask(context, FIRST) is not None
    assert await ask(context, SECOND, FIRST) is not None
    assert await ask(context, SECOND) is not None
    assert await ask(context, THIRD, FIRST, SECOND) is not None
    assert await ask(context, FIRST) is None


async def test_a_process_on_a_copied_folder_loses_the_place_that_it_has_taken(context: Context) -> None:
    """What it says to follow goes on asking, and so has not ended; it is believed once."""
    assert await ask(context, FIRST) is not None
    assert await ask(context, SECOND, FIRST) is not None
    for _ in range(3):
        assert await ask(context, FIRST) is not None
        assert await ask(context, SECOND) is None
    assert await ask(context, THIRD, SECOND) is None


async def test_what_was_refused_while_the_other_went_on_follows_nobody(context: Context) -> None:
    """A process that waits has not ended, and who says so, with a copy of its folder, is not believed later either."""
    assert await ask(context, FIRST) is not None
    async with client(context, "ada") as http:
        waiting = asyncio.create_task(http.get("/v1/wanted", params={"instance": FIRST, "wait_seconds": 25}))
        while not context.changes.waiting:
            await asyncio.sleep(0)
        assert await ask(context, SECOND, FIRST) is None
        context.changes.stop()
        assert (await waiting).status_code == 200
    assert await ask(context, SECOND, FIRST) is None
    assert await ask(context, THIRD, FIRST) is not None


async def test_who_was_killed_while_it_waited_is_followed_before_its_question_is_over(context: Context) -> None:
    """On a real socket: the question is open for 25 seconds, and its connection was closed by the kernel."""
    headers, signing = credentials_of(context, "ada")
    with served(create_app(context)) as port:
        url = f"http://127.0.0.1:{port}"
        async with (
            httpx.AsyncClient(base_url=url, headers=headers, auth=signing) as first,
            httpx.AsyncClient(base_url=url, headers=headers, auth=signing) as second,
            asyncio.timeout(15),
        ):

            async def follows() -> int:
                return (await second.get("/v1/wanted", params={"instance": SECOND, "follows": FIRST})).status_code

            waiting = asyncio.create_task(first.get("/v1/wanted", params={"instance": FIRST, "wait_seconds": 25}))
            while not context.changes.waiting:
                await asyncio.sleep(0.001)
            assert await follows() == 409
            waiting.cancel()
            while await follows() != 200:
                await asyncio.sleep(0.001)
        context.changes.stop()


async def test_a_process_that_is_gone_makes_room(context: Context, clock: ManualClock) -> None:
    """After two minutes of silence another is let in, whatever it follows; the first one is then the second."""
    assert await ask(context, FIRST) is not None
    clock.advance(GONE_SECONDS)
    assert await ask(context, SECOND) is None
    clock.advance(1)
    assert await ask(context, SECOND) is not None
    assert await ask(context, FIRST) is None


async def test_a_process_that_trains_is_not_gone(context: Context, clock: ManualClock) -> None:
    """It is silent for as long as a training takes: it is given up when its round does not wait for it any more."""
    begin(context, terms_of(rounds=2))
    assert (await ask(context, FIRST)).assignment is not None
    clock.advance(50)
    context.lifecycle.pause(RUN, actor="operator")
    clock.advance(GONE_SECONDS)
    assert await ask(context, SECOND) is None
    submit(context, "ada")
    assert await ask(context, SECOND) is not None


async def test_a_process_that_leaves_makes_room_at_once(context: Context) -> None:
    """It says that it stops; what is refused cannot say so for the one that takes part."""
    assert await ask(context, FIRST) is not None
    async with client(context, "ada") as http:
        assert (await http.post("/v1/leave", params={"instance": SECOND})).status_code == 200
        assert await ask(context, SECOND) is None
        assert not heard(context).left
        assert (await http.post("/v1/leave", params={"instance": FIRST})).status_code == 200
    assert heard(context).left
    assert await ask(context, SECOND) is not None
    assert not heard(context).left


async def test_after_a_restart_of_the_coordinator_the_first_to_ask_is_the_one(
    context: Context, clock: ManualClock
) -> None:
    """It knows of none, and asks of nobody that they wait."""
    folder = context.settings.data_dir.parent / "another"
    for first, second in ((FIRST, SECOND), (SECOND, FIRST)):
        with coordinator(folder, clock) as restarted:
            assert await ask(restarted, first) is not None
            assert await ask(restarted, second) is None


async def test_another_key_is_another_agent(context: Context, clock: ManualClock) -> None:
    """Whoever is revoked and invited again waits for nobody who had the key before."""
    begin(context)
    assert (await ask(context, FIRST)).assignment is not None
    context.membership.revoke("ada", "the key was lost", actor="operator")
    key = pending(context, "ada")
    context.membership.approve("ada", certificate("ada", key.public), actor="operator")
    signing = Signing("ada", key, FEDERATION, clock)
    headers = {"FedCoLLM-Protocol": "1"}
    app = httpx.ASGITransport(app=create_app(context))
    async with httpx.AsyncClient(transport=app, base_url="http://in-process", headers=headers, auth=signing) as http:
        assert (await http.get("/v1/wanted", params={"instance": SECOND})).status_code == 200


async def test_everybody_concerned_is_told(context: Context, clock: ManualClock) -> None:
    """The process that goes on, the operator, and the coordinator's log, once an hour."""
    assert (await ask(context, FIRST)).second_at is None
    with capture_logs() as lines:
        for _ in range(3):
            assert await ask(context, SECOND) is None
    assert (await ask(context, FIRST)).second_at == clock() == heard(context).second_at
    (told,) = (line for line in lines if line["event"] == "agent.runs_twice")
    assert (told["agent"], told["times"]) == ("ada", 1)
    assert "asked last at 2023-11-14 22:13:20 UTC" in told["detail"]
    clock.advance(3601)
    assert (await ask(context, FIRST)).second_at is None


async def test_who_says_no_process_is_not_told_from_another(context: Context) -> None:
    """The parameter may be left out, and what is no id of a process is refused."""
    assert await ask(context, FIRST) is not None
    async with client(context, "ada") as http:
        assert (await http.get("/v1/wanted")).status_code == 200
        for params in ({"instance": "short"}, {"instance": FIRST, "follows": [SECOND] * 9}):
            assert_problem(await http.get("/v1/wanted", params=params), 422, "message_invalid")
