import pytest

from bench.federation import ManualClock, admit
from services.coordinator.app import create_work_app
from services.coordinator.context import Context
from services.coordinator.presence import MOST_WORKERS, Presence
from shared.protocol.federation import HEARD_WITHIN_SECONDS, FederationView, WorkUnderWay
from shared.protocol.membership import MemberList, RoundPlace
from shared.protocol.work import LeaseRequest
from shared.release import product, release, release_told
from tests.support.federations import RUN, begin, client, lease, terms_of

pytestmark = pytest.mark.anyio


async def look(context: Context, who: str = "viewer") -> FederationView:
    """Return the federation as ``who`` sees it."""
    async with client(context, who) as http:
        return FederationView.model_validate_json((await http.get("/v1/federation")).content)


async def listed(context: Context, **params: str | int) -> MemberList:
    """Return a page of the agents as the operator sees them."""
    async with client(context, "operator") as http:
        return MemberList.model_validate_json((await http.get("/v1/agents", params=params)).content)


async def ask(context: Context, who: str, params: dict[str, str] | None = None) -> None:
    """Let an agent ask what is wanted."""
    async with client(context, who) as http:
        answer = await http.get("/v1/wanted", params=params, headers={"User-Agent": product()})
        assert answer.is_success, answer.text


async def test_a_federation_is_counts_for_viewers(context: Context, clock: ManualClock) -> None:
    """How many agents there are and were heard of; not one name of theirs, which are the operators' to see."""
    admit(context, ["cleo"], clock)
    context.membership.revoke("bob", "he left", actor="operator")
    await ask(context, "ada")
    seen = await look(context)
    assert seen.agents.states == {"invited": 0, "pending": 0, "approved": 2, "revoked": 1}
    assert (seen.agents.heard, seen.agents.versions) == (1, {release(): 1})
    assert (seen.you.name, seen.you.role) == ("viewer", "viewer")
    assert not {"ada", "bob", "cleo"} & set(seen.model_dump_json().split('"'))
    clock.advance(HEARD_WITHIN_SECONDS + 1)
    assert (await look(context)).agents.heard == 0


async def test_an_operator_sees_who_was_heard_of_and_why_one_declines(context: Context, clock: ManualClock) -> None:
    """An agent that trains was given a round; one that declines says by which code; a silent one says nothing."""
    begin(context)
    await ask(context, "ada")
    await ask(context, "bob", {"declined": f"{RUN}:unwilling"})
    ada, bob, cleo = (await listed(context)).agents[:3]
    assert ada.heard is not None
    assert (ada.heard.at, ada.heard.version, ada.heard.assigned) == (
        clock(),
        release(),
        RoundPlace(run_id=RUN, round=1),
    )
    assert bob.heard is not None
    assert bob.heard.declines == {RUN: "unwilling"}
    assert cleo.heard is None


async def test_what_an_agent_declines_is_a_run_and_a_code(context: Context) -> None:
    """Nothing else fits: no sentence of an organisation's own machine comes this way."""
    async with client(context, "ada") as http:
        answer = await http.get("/v1/wanted", params={"declined": f"{RUN}:the folder /home/ada is empty"})
    assert answer.status_code == 422


async def test_agents_come_in_pages(context: Context, clock: ManualClock) -> None:
    """Whoever follows ``next`` gets each agent once, by name."""
    admit(context, [f"agent-{number:03}" for number in range(7)], clock)
    everybody = [one.name for one in (await listed(context)).agents]
    names, after = [], ""
    while True:
        page = await listed(context, after=after, limit=3)
        names += [one.name for one in page.agents]
        if page.next is None:
            break
        after = page.next
    assert names == everybody == sorted(everybody)
    assert len(everybody) > 7


async def test_a_worker_is_there_with_what_it_has_leased(context: Context, clock: ManualClock) -> None:
    """It is heard of when it asks, and by its heartbeats; its work is what the store says."""
    async with client(context, "worker", app=create_work_app(context)) as http:
        await http.post("/v1/work/lease", json=LeaseRequest(worker="gpu-1").model_dump())
    assert [(one.name, one.work, one.heard_at) for one in (await look(context)).workers] == [("gpu-1", None, clock())]
    context.lifecycle.create(RUN, terms_of(), actor="operator")
    context.lifecycle.start(RUN, actor="operator")
    job = lease(context, "gpu-1")
    clock.advance(5)
    context.work.heartbeat(job.job_id, job.token)
    (worker,) = (await look(context)).workers
    assert worker.work == WorkUnderWay(kind="prepare", run_id=RUN, round=0)
    assert worker.heard_at == clock()


def test_workers_names_fill_no_memory(clock: ManualClock) -> None:
    """Whoever has a worker's token chooses them, so only the newest are kept, and none for more than a day."""
    presence = Presence(clock)
    for number in range(MOST_WORKERS + 5):
        clock.advance(1)
        presence.worker_asks("worker", f"w{number}", version=None)
    names = {one.name for one in presence.workers()}
    assert len(names) == MOST_WORKERS
    assert "w4" not in names
    clock.advance(86_401)
    assert presence.workers() == []


@pytest.mark.parametrize("told", ["", "python-httpx/0.28", "fedcollm/", "fedcollm/1 <b>", f"fedcollm/{'1' * 33}"])
def test_a_version_is_one_or_nothing(told: str) -> None:
    """What a request says of its program is shown to people, so that only a version gets so far."""
    assert release_told(told) is None
    assert release_told(product()) == release()
