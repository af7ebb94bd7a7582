import pytest

from bench.federation import sign
from services.coordinator.context import Context
from shared.protocol.digests import digest_of, to_field
from shared.protocol.rounds import RoundState
from shared.protocol.work import FailureRequest, Lease, ResultRequest
from tests.support.federations import (
    RUN,
    adapter,
    begin,
    client,
    play_round,
    result_of,
    submit,
    terms_of,
    theta_of,
    work,
)
from tests.support.requests import announcing, assert_problem, pieces

pytestmark = pytest.mark.anyio


async def test_a_published_adapter_comes_with_everything_a_cache_needs(context: Context) -> None:
    """ETag and digest name the bytes, which never change."""
    begin(context)
    digest = theta_of(context)
    async with client(context, "ada") as http:
        response = await http.get(f"/v1/adapters/{digest}")
    assert digest_of(response.content) == digest
    assert response.headers["ETag"] == f'"{digest}"'
    assert response.headers["Repr-Digest"] == to_field(digest)
    assert response.headers["Content-Length"] == str(len(response.content))
    assert response.headers["Content-Type"] == "application/vnd.safetensors"
    assert "immutable" in response.headers["Cache-Control"]


async def test_who_has_the_adapter_is_not_sent_it_again(context: Context) -> None:
    """If-None-Match with its ETag, alone or among others, answers 304 without a body."""
    begin(context)
    digest = theta_of(context)
    async with client(context, "ada") as http:
        for field in (f'"{digest}"', f'W/"{digest}"', f'"other", "{digest}"', "*"):
            response = await http.get(f"/v1/adapters/{digest}", headers={"If-None-Match": field})
            assert (response.status_code, response.content) == (304, b"")
            assert response.headers["ETag"] == f'"{digest}"'
        other = await http.get(f"/v1/adapters/{digest}", headers={"If-None-Match": '"other"'})
        assert other.status_code == 200


async def test_an_interrupted_download_goes_on_where_it_was(context: Context) -> None:
    """Range answers 206 with exactly those bytes, and 416 beyond the end."""
    begin(context)
    digest = theta_of(context)
    async with client(context, "ada") as http:
        whole = (await http.get(f"/v1/adapters/{digest}")).content
        part = await http.get(f"/v1/adapters/{digest}", headers={"Range": "bytes=10-"})
        assert (part.status_code, part.content) == (206, whole[10:])
        assert part.headers["Content-Range"] == f"bytes 10-{len(whole) - 1}/{len(whole)}"
        middle = await http.get(f"/v1/adapters/{digest}", headers={"Range": "bytes=3-7", "If-Range": f'"{digest}"'})
        assert middle.content == whole[3:8]
        beyond = await http.get(f"/v1/adapters/{digest}", headers={"Range": f"bytes={len(whole)}-"})
        assert beyond.status_code == 416


async def test_omega_is_not_on_the_agents_wire(context: Context) -> None:
    """No update, no aggregate, no LLM adapter and no refused candidate is served to agents, by any name."""
    begin(context, terms_of(rounds=3))
    play_round(context, 1)
    play_round(context, 2, loss=9.0)  # refused at the gate
    with context.store.read() as tx:
        first, second, run = tx.round(RUN, 1), tx.round(RUN, 2), tx.run(RUN)
        updates = [update.digest for number in (1, 2) for update in tx.updates(RUN, number)]
    secret = {*updates, first.aggregate, second.aggregate, first.llm_adapter, first.llm_candidate, run.llm_adapter}
    secret |= {second.slm_candidate, second.llm_candidate}
    published = {first.slm_adapter, first.slm_candidate}
    assert None not in secret | published
    assert second.state is RoundState.REFUSED
    assert not secret & published
    async with client(context, "ada") as http:
        for digest in secret:
            context.blobs.path(digest)  # it is there
            assert_problem(await http.get(f"/v1/adapters/{digest}"), 404, "not_found")
        for digest in published:
            assert (await http.get(f"/v1/adapters/{digest}")).is_success
        for path in (f"/v1/runs/{RUN}/artefacts/llm-adapter", f"/v1/work/blobs/{run.llm_adapter}"):
            assert (await http.get(path)).status_code in {403, 404}
        answers = (await http.get("/v1/wanted")).text + (await http.get(f"/v1/runs/{RUN}/manifest")).text
    assert run.llm_adapter not in answers


async def test_theta_goes_out_after_co_tuning_and_not_before(context: Context) -> None:
    """A candidate is not served until its round is published."""
    begin(context)
    submit(context, "ada", 1.0)
    submit(context, "bob", 2.0)
    context.rounds.reconcile()
    work(context)
    with context.store.read() as tx:
        digest = tx.round(RUN, 1).slm_candidate
    async with client(context, "ada") as http:
        assert_problem(await http.get(f"/v1/adapters/{digest}"), 404, "not_found")
        work(context)
        assert (await http.get(f"/v1/adapters/{digest}")).is_success


async def test_an_aggregate_is_shared_once_its_round_has_published(context: Context) -> None:
    """With whoever has a part in it, who is told its digest with the adapter that came of it; never before."""
    begin(context, terms_of(share_aggregate=True, rounds=2))
    for name in ("ada", "bob"):
        submit(context, name)
    context.rounds.reconcile()
    async with client(context, "ada") as http:
        for _ in range(2):  # co-tuning, evaluation
            assert_problem(await http.get(f"/v1/runs/{RUN}/rounds/1/aggregate"), 404, "not_found")
            assert "aggregate" not in (await http.get("/v1/wanted")).json()
            work(context)
        told = (await http.get("/v1/wanted")).json()
        shared = await http.get(f"/v1/runs/{RUN}/rounds/1/aggregate")
        assert told["published"]["digest"] == theta_of(context) != told["aggregate"] == digest_of(shared.content)
        assert shared.headers["ETag"] == f'"{told["aggregate"]}"'
        assert (await http.get(f"/v1/adapters/{told['aggregate']}")).status_code == 404
    assert context.rounds.wanted("bob").aggregate == told["aggregate"]
    assert context.rounds.wanted("cleo").aggregate is None


async def test_the_operator_can_fetch_both_adapters(context: Context) -> None:
    """Omega leaves the coordinator as the operator's artefact only."""
    begin(context)
    play_round(context, 1)
    async with client(context, "operator") as http:
        listed = (await http.get(f"/v1/runs/{RUN}/artefacts")).json()["artefacts"]
        for artefact in listed:
            response = await http.get(f"/v1/runs/{RUN}/artefacts/{artefact['name']}")
            assert digest_of(response.content) == artefact["digest"]
            assert len(response.content) == artefact["bytes"]
    assert [artefact["name"] for artefact in listed] == ["slm-adapter", "llm-adapter"]


async def test_a_worker_fetches_and_stores_any_adapter(context: Context) -> None:
    """On the workers' port blobs go both ways, and storing one twice is storing it once."""
    blob = adapter(5.0)
    path = f"/v1/work/blobs/{digest_of(blob)}"
    async with client(context, "worker") as http:
        assert_problem(await http.get(path), 404, "not_found")
        for _ in range(2):
            assert (await http.put(path, content=pieces(blob), headers=announcing(blob))).is_success
        assert (await http.get(path)).content == blob
        other = await http.put(path, content=pieces(b"x"), headers=announcing(b"x"))
        assert_problem(other, 422, "message_invalid")
        context.blobs.path(digest_of(blob)).unlink()
        assert_problem(await http.get(path), 500, "blob_missing")


async def test_work_goes_over_http_whole(context: Context) -> None:
    """Lease, heartbeat, failure: the worker's calls as they travel."""
    context.lifecycle.create(RUN, terms_of(), actor="operator")
    context.lifecycle.start(RUN, actor="operator")
    async with client(context, "worker") as http:
        granted = (await http.post("/v1/work/lease", json={"worker": "w"})).json()["lease"]
        path, token = f"/v1/work/{granted['job_id']}", {"token": granted["token"]}
        assert (await http.post(f"{path}/heartbeat", json=token)).json() == {"accepted": True}
        assert_problem(await http.post(f"{path}/heartbeat", json={"token": 9}), 409, "lease_lost")
        assert (await http.post("/v1/work/lease", json={"worker": "w"})).json()["lease"] is None
        failure = token | {"code": "internal", "message": "no"}
        assert (await http.post(f"{path}/failure", json=failure)).json() == {"accepted": True}
        assert_problem(await http.post("/v1/work/nothing/heartbeat", json=token), 404, "not_found")


async def test_the_audit_knows_a_worker_by_its_token(context: Context) -> None:
    """Whatever a worker calls itself, its leases, results and failures are its principal's."""
    context.lifecycle.create(RUN, terms_of(), actor="operator")
    context.lifecycle.start(RUN, actor="operator")
    async with client(context, "worker") as http:

        async def leased() -> Lease:
            answer = await http.post("/v1/work/lease", json={"worker": "operator"})
            return Lease.model_validate(answer.json()["lease"])

        granted = await leased()
        result = ResultRequest(token=granted.token, result=result_of(context, granted))
        await http.post(f"/v1/work/{granted.job_id}/result", json=result.model_dump(mode="json"))
        sign(context, RUN)
        submit(context, "ada")
        submit(context, "bob")
        context.rounds.reconcile()
        granted = await leased()
        failure = FailureRequest(token=granted.token, code="internal", message="no")
        await http.post(f"/v1/work/{granted.job_id}/failure", json=failure.model_dump(mode="json"))
    with context.store.read() as tx:
        entries = tx.audit.entries(after=0, limit=100)
    work_lines = [entry for entry in entries if entry.action.startswith("work.")]
    assert [entry.action for entry in work_lines] == ["work.leased", "work.done", "work.leased", "work.failed"]
    assert {(entry.actor, entry.detail["worker"]) for entry in work_lines} == {("worker", "operator")}
    assert [entry.actor for entry in entries if entry.action == "round.cotuning"] == ["worker"]
