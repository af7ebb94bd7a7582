import asyncio
import contextlib
import errno
import inspect
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
import uvicorn
from pydantic import ValidationError

from bench.federation import ManualClock, token_of
from services.coordinator import blobs as blobs_module
from services.coordinator import schema
from services.coordinator.app import by_port, create_app, create_work_app
from services.coordinator.context import Context
from services.coordinator.routes.problems import RETRY_AFTER_SECONDS, STATUS_BY_CODE, TITLES
from services.coordinator.settings import Settings
from shared import errors
from shared.errors import FedCoLLMError, ProtocolError, StorageError
from shared.listening import listen
from shared.protocol.digests import digest_of, to_field
from shared.protocol.messages import FailureRequest, Lease, Problem, ResultRequest
from shared.protocol.rounds import RoundState
from tests.support.federations import (
    RUN,
    adapter,
    begin,
    client,
    kinds,
    lease,
    play_round,
    result_of,
    store,
    submit,
    terms_of,
    theta_of,
    work,
)

pytestmark = pytest.mark.anyio

UPDATE = f"/v1/runs/{RUN}/rounds/1/update"


def announcing(blob: bytes, **changes: str | None) -> dict[str, str]:
    """Return the fields of an honest blob, bent."""
    fields = {"Repr-Digest": to_field(digest_of(blob)), "Content-Length": str(len(blob))}
    return {name: value for name, value in {**fields, **changes}.items() if value is not None}


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    """Yield a body whose length the HTTP client cannot know."""
    yield content


def assert_problem(response: httpx.Response, status: int, code: str) -> Problem:
    """Check that the answer is a whole problem document, and return it."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = Problem.model_validate_json(response.content)
    assert (problem.status, problem.code) == (status, code)
    assert problem.title
    assert problem.detail
    return problem


def errors_of(*bases: type[FedCoLLMError]) -> Iterator[type[FedCoLLMError]]:
    """Yield every error of these branches of the tree."""
    for _, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, bases) and kind not in bases:
            yield kind


# --- problems -----------------------------------------------------------------------------------------------------


def test_every_error_has_a_status() -> None:
    """Each protocol and storage error of the tree has one status, each status a title, and no code is unknown."""
    codes = [kind.code for kind in errors_of(ProtocolError, StorageError)]
    assert sorted(codes) == sorted(STATUS_BY_CODE)
    assert set(STATUS_BY_CODE.values()) <= set(TITLES)


def test_codes_are_unique() -> None:
    """A code names one error, and every leaf of the tree has its own."""
    leaves = [kind for kind in errors_of(FedCoLLMError) if not kind.__subclasses__() and "code" in vars(kind)]
    assert len({kind.code for kind in leaves}) == len(leaves)
    assert all(kind.code != "internal" for kind in leaves)


@pytest.mark.parametrize("kind", sorted(errors_of(ProtocolError, StorageError), key=lambda kind: kind.code))
async def test_every_error_travels_as_a_problem(
    kind: type[FedCoLLMError], context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 9457, the stable code, the message for people, and Retry-After wherever trying again helps."""

    def fail(*_: object, **__: object) -> None:
        raise kind("what happened, to what, and what to do")

    monkeypatch.setattr(type(context.lifecycle), "runs", fail)
    async with client(context, "operator") as http:
        response = await http.get("/v1/runs")
    problem = assert_problem(response, STATUS_BY_CODE[kind.code], kind.code)
    assert problem.detail == "what happened, to what, and what to do"
    later = RETRY_AFTER_SECONDS.get(problem.status)
    assert response.headers.get("Retry-After") == (None if later is None else str(later))


async def test_a_crash_is_a_problem_that_tells_nothing(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of ours answers 500 with a code; what went wrong inside stays in the log."""

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(type(context.lifecycle), "runs", fail)
    transport = httpx.ASGITransport(app=create_app(context), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://in-process") as http:
        response = await http.get(
            "/v1/runs", headers={"FedCoLLM-Protocol": "1", "Authorization": f"Bearer {token_of('operator')}"}
        )
    assert "secret" not in assert_problem(response, 500, "internal").detail


@pytest.mark.parametrize("who", ["operator", "worker"])
@pytest.mark.parametrize("version", [None, "", "0", "2", "1.0", "01", "one", "1, 1"])
async def test_another_protocol_version_is_refused(version: str | None, who: str, context: Context) -> None:
    """A request that does not say the version that we speak is refused before anything else is looked at."""
    path = "/v1/work/lease" if who == "worker" else "/v1/runs"
    async with client(context, who) as http:
        del http.headers["FedCoLLM-Protocol"]
        fields = {} if version is None else {"FedCoLLM-Protocol": version}
        response = await http.request("POST" if who == "worker" else "GET", path, headers=fields)
        del http.headers["Authorization"]
        assert_problem(await http.get("/v1/nowhere", headers=fields), 404, "not_found")
    assert_problem(response, 400, "protocol_version_mismatch")


async def test_wrong_paths_and_methods_are_problems_too(context: Context) -> None:
    """Even what no route answers is answered in the protocol's form."""
    async with client(context, "operator") as http:
        assert_problem(await http.get("/nowhere"), 404, "not_found")
        response = await http.delete("/v1/runs")
        assert_problem(response, 405, "message_invalid")
        assert response.headers["Allow"] == "GET"
        assert_problem(await http.put("/v1/runs/UPPER", json={}), 422, "message_invalid")
        assert_problem(await http.put("/v1/runs/run", content=b"{"), 422, "message_invalid")
        assert_problem(await http.get("/v1/runs/run"), 404, "not_found")


async def test_a_field_that_nobody_knows_is_named(context: Context) -> None:
    """An operator's typing error in the terms is refused, and found in the message."""
    body = json.loads(terms_of().model_dump_json()) | {"lambda": 1}
    async with client(context, "operator") as http:
        problem = assert_problem(await http.put("/v1/runs/run", json=body), 422, "message_invalid")
    assert "lambda" in problem.detail


async def test_health_needs_neither_version_nor_token(context: Context) -> None:
    """A container's health check knows nothing of the protocol."""
    for make in (create_app, create_work_app):
        async with client(context, None, app=make(context)) as http:
            http.headers.clear()
            assert (await http.get("/healthz")).json() == {"status": "ok"}


# --- updates ------------------------------------------------------------------------------------------------------


async def send(context: Context, blob: bytes, who: str = "ada", path: str = UPDATE, **fields: str | None) -> Any:  # noqa: ANN401
    """Send an update with bent fields and return the answer."""
    async with client(context, who) as http:
        return await http.put(path, content=pieces(blob), headers=announcing(blob, **fields))


async def test_an_update_gets_a_receipt(context: Context) -> None:
    """The agent learns that the coordinator holds exactly its bytes."""
    begin(context)
    blob = adapter(1.0)
    receipt = (await send(context, blob)).json()
    assert receipt["digest"] == digest_of(blob)
    assert (receipt["run_id"], receipt["round"], receipt["agent"], receipt["bytes"]) == (RUN, 1, "ada", len(blob))
    assert context.lifecycle.rounds(RUN)[0].accepted == 1


async def test_the_same_update_gets_the_same_receipt(context: Context, clock: ManualClock) -> None:
    """A retry whose first answer was lost changes nothing, whatever state the round is in by then."""
    begin(context)
    first = (await send(context, adapter(1.0))).json()
    clock.advance(3)
    assert (await send(context, adapter(1.0))).json() == first
    clock.advance(30)
    context.rounds.reconcile()
    assert (await send(context, adapter(1.0))).json() == first
    view = context.lifecycle.rounds(RUN)[0]
    assert (view.accepted, view.late) == (1, 0)


async def test_another_update_for_the_same_round_is_a_conflict(context: Context) -> None:
    """The first one stands: an agent cannot change its mind, and nobody in its name can."""
    begin(context)
    await send(context, adapter(1.0))
    assert_problem(await send(context, adapter(2.0)), 409, "update_conflict")
    context.rounds.reconcile()
    with context.store.read() as tx:
        assert [update.digest for update in tx.updates(RUN, 1)] == [digest_of(adapter(1.0))]


async def test_two_agents_may_send_the_same_bytes(context: Context) -> None:
    """Equal adapters are one blob and two updates."""
    begin(context)
    assert (await send(context, adapter(1.0), "ada")).is_success
    assert (await send(context, adapter(1.0), "bob")).is_success
    assert context.lifecycle.rounds(RUN)[0].accepted == 2


async def test_unknown_runs_and_rounds_are_not_found(context: Context) -> None:
    """An update for nothing that exists is refused."""
    begin(context)
    blob = adapter(1.0)
    assert_problem(await send(context, blob, path="/v1/runs/other/rounds/1/update"), 404, "not_found")
    assert_problem(await send(context, blob, path=f"/v1/runs/{RUN}/rounds/2/update"), 404, "not_found")
    assert_problem(await send(context, blob, path=f"/v1/runs/{RUN}/rounds/0/update"), 422, "message_invalid")


async def test_an_update_before_the_preparation_is_not_found(context: Context) -> None:
    """A run that has no rounds yet takes no updates."""
    context.lifecycle.create(RUN, terms_of(), actor="operator")
    assert_problem(await send(context, adapter(1.0)), 404, "not_found")


async def test_a_past_round_is_closed(context: Context) -> None:
    """What was trained for a round that is over is told to go on, and counted as late."""
    begin(context, terms_of(rounds=2))
    play_round(context, 1)
    assert_problem(await send(context, adapter(9.0), "cleo"), 409, "round_closed")
    assert context.lifecycle.rounds(RUN)[0].late == 1


async def test_an_update_must_say_its_length(context: Context) -> None:
    """Nothing is streamed whose end is unknown."""
    begin(context)
    response = await send(context, adapter(1.0), **{"Content-Length": None, "Transfer-Encoding": "chunked"})
    assert_problem(response, 411, "length_required")


@pytest.mark.parametrize("length", ["-1", "abc", "1e3", "+10", "0x10", ""])
async def test_a_length_that_is_no_number_is_refused(length: str, context: Context) -> None:
    """(Servers refuse most of these themselves; we do not rely on it.)."""
    begin(context)
    assert_problem(await send(context, adapter(1.0), **{"Content-Length": length}), 411, "length_required")


async def test_an_encoded_update_is_refused(context: Context) -> None:
    """Length and digest are those of the bytes themselves: no gzip in between."""
    begin(context)
    assert_problem(await send(context, adapter(1.0), **{"Content-Encoding": "gzip"}), 422, "message_invalid")
    assert (await send(context, adapter(1.0), **{"Content-Encoding": "identity"})).is_success


@pytest.mark.parametrize("field", [None, "", "sha-256=:AAAA:", "md5=:AAAA:"])
async def test_an_update_must_announce_its_digest(field: str | None, context: Context) -> None:
    """Without one SHA-256 in RFC 9530's form nothing is taken."""
    begin(context)
    assert_problem(await send(context, adapter(1.0), **{"Repr-Digest": field}), 422, "message_invalid")


REFUSED: dict[str, tuple[bytes, int, str]] = {
    "another layout": (adapter(1.0).replace(b"slm.lora_A", b"slm.lora_X"), 422, "layout_mismatch"),
    "NaN": (adapter(float("nan")), 422, "values_not_finite"),
    "infinity": (adapter(float("inf")), 422, "values_not_finite"),
    "not safetensors": (b"\x80" * len(adapter(1.0)), 422, "layout_mismatch"),
}


def assert_nothing_kept(context: Context) -> None:
    """Check that no update was counted and no file stayed behind."""
    assert context.lifecycle.rounds(RUN)[0].accepted == 0
    folder = context.settings.data_dir / "blobs"
    assert not list((folder / "incoming").iterdir())
    assert digest_of(adapter(1.0)).removeprefix("sha256:")[2:] not in {path.name for path in folder.rglob("*")}


@pytest.mark.parametrize("wrong", REFUSED)
async def test_a_wrong_update_is_refused_and_counted(wrong: str, context: Context) -> None:
    """Its sender is told why, nothing of it stays, and a good one may still follow."""
    blob, status, code = REFUSED[wrong]
    begin(context)
    assert_problem(await send(context, blob), status, code)
    assert_nothing_kept(context)
    assert context.lifecycle.rounds(RUN)[0].refused == 1
    assert (await send(context, adapter(1.0))).is_success


async def test_an_update_with_another_digest_is_refused(context: Context) -> None:
    """Bytes that changed on the way are not taken for the agent's."""
    begin(context)
    wrong = to_field(digest_of(b"other"))
    assert_problem(await send(context, adapter(1.0), **{"Repr-Digest": wrong}), 400, "digest_mismatch")
    assert_nothing_kept(context)


async def test_an_update_of_another_size_is_refused_unread(context: Context) -> None:
    """The size is known from the manifest: a longer body is not even read, a shorter one was cut; both are counted."""
    begin(context)
    blob = adapter(1.0)

    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    async with client(context, "ada") as http:
        for length in (len(blob) + 1, 1 << 50, 10**30):
            fields = announcing(blob, **{"Content-Length": str(length)})
            assert_problem(await http.put(UPDATE, content=never(), headers=fields), 413, "blob_too_large")
    assert_problem(await send(context, blob[:-4]), 400, "blob_truncated")
    assert_nothing_kept(context)
    assert context.lifecycle.rounds(RUN)[0].refused == 4


async def test_a_body_longer_or_shorter_than_announced_is_refused(context: Context) -> None:
    """Where the server lets such a body through, we do not, and we count it."""
    begin(context)
    blob = adapter(1.0)
    async with client(context, "ada") as http:
        longer = await http.put(UPDATE, content=pieces(blob + b"more"), headers=announcing(blob))
        shorter = await http.put(UPDATE, content=pieces(blob[:-1]), headers=announcing(blob))
    assert_problem(longer, 413, "blob_too_large")
    assert_problem(shorter, 400, "blob_truncated")
    assert_nothing_kept(context)
    assert context.lifecycle.rounds(RUN)[0].refused == 2


async def test_an_unweighted_run_refuses_examples(context: Context) -> None:
    """A number that nobody needs does not cross the wire."""
    begin(context)
    assert_problem(await send(context, adapter(1.0), path=f"{UPDATE}?examples=7"), 422, "message_invalid")
    assert_nothing_kept(context)


@pytest.mark.parametrize("query", ["", "?examples=0", "?examples=-1", "?examples=many", "?examples=1.5"])
async def test_a_weighted_run_requires_examples(query: str, context: Context) -> None:
    """Without a weight, or with one that is none, an update of a weighted run is refused."""
    begin(context, terms_of(weighting="examples"))
    assert_problem(await send(context, adapter(1.0), path=f"{UPDATE}{query}"), 422, "message_invalid")
    assert_nothing_kept(context)
    assert (await send(context, adapter(1.0), path=f"{UPDATE}?examples=7")).is_success


@pytest.mark.parametrize("when", ["write", "fsync"])
async def test_a_full_disk_answers_507_and_keeps_nothing(
    when: str, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent is told when to try again, the round goes on, and the retry succeeds."""
    begin(context)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no room")

    if when == "fsync":
        monkeypatch.setattr(blobs_module.os, "fsync", full)
    else:
        enter = blobs_module.IncomingBlob.__enter__

        def enter_full(incoming: blobs_module.IncomingBlob) -> blobs_module.IncomingBlob:
            enter(incoming)
            incoming._file.close()
            incoming._file = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115 - closed by the blob itself
            return incoming

        monkeypatch.setattr(blobs_module.IncomingBlob, "__enter__", enter_full)
    response = await send(context, adapter(1.0))
    assert_problem(response, 507, "storage_full")
    assert response.headers["Retry-After"] == "10"
    assert_nothing_kept(context)
    monkeypatch.undo()
    assert (await send(context, adapter(1.0))).is_success


# --- the wire -----------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def served(context: Context) -> AsyncIterator[tuple[int, int]]:
    """Serve both apps on loopback, and yield their ports."""
    public, internal = listen("127.0.0.1", 0), listen("127.0.0.1", 0)
    ports = public.getsockname()[1], internal.getsockname()[1]
    app = by_port(create_app(context), create_work_app(context), work_port=ports[1])
    config = uvicorn.Config(app, lifespan="off", log_config=None, http="httptools", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None
    task = asyncio.create_task(server.serve([public, internal]))
    while not server.started:
        await asyncio.sleep(0)
    try:
        yield ports
    finally:
        server.should_exit = True
        await task


async def test_a_connection_that_breaks_off_leaves_nothing(context: Context, caplog: pytest.LogCaptureFixture) -> None:
    """An agent that dies in the middle of its upload costs nothing, not even a traceback, and may come again."""
    begin(context)
    blob = adapter(1.0)
    async with served(context) as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        fields = announcing(blob) | {
            "Host": "x",
            "FedCoLLM-Protocol": "1",
            "Authorization": f"Bearer {token_of('ada')}",
        }
        lines = [f"PUT {UPDATE} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        writer.write("\r\n".join(lines).encode() + blob[:-10])
        await writer.drain()
        while not list((context.settings.data_dir / "blobs" / "incoming").iterdir()):
            await asyncio.sleep(0)
        writer.close()
        await writer.wait_closed()
        del reader
        while list((context.settings.data_dir / "blobs" / "incoming").iterdir()):
            await asyncio.sleep(0)
        assert_nothing_kept(context)
        assert context.lifecycle.rounds(RUN)[0].state is RoundState.OPEN
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            response = await http.put(
                UPDATE,
                content=pieces(blob),
                headers={**announcing(blob), "FedCoLLM-Protocol": "1", "Authorization": f"Bearer {token_of('ada')}"},
            )
    assert response.json()["digest"] == digest_of(blob)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_each_port_serves_its_own_routes_only(context: Context) -> None:
    """Workers' routes are not on the agents' port, nor the other way round, whatever the token."""
    headers = {"FedCoLLM-Protocol": "1"}
    async with served(context) as (public, internal), httpx.AsyncClient(headers=headers) as http:
        lease_answer = await http.post(
            f"http://127.0.0.1:{public}/v1/work/lease",
            json={"worker": "w"},
            headers={"Authorization": f"Bearer {token_of('worker')}"},
        )
        runs_answer = await http.get(
            f"http://127.0.0.1:{internal}/v1/runs", headers={"Authorization": f"Bearer {token_of('operator')}"}
        )
        assert_problem(lease_answer, 404, "not_found")
        assert_problem(runs_answer, 404, "not_found")
        assert (await http.get(f"http://127.0.0.1:{internal}/healthz")).is_success


def test_one_port_for_both_is_refused(tmp_path: Path) -> None:
    """Workers' routes are told apart by their port, so equal ports on two addresses would show them to everybody."""
    addresses = {"host": "192.0.2.1", "work_host": "127.0.0.1", "data_dir": tmp_path, "principals_file": tmp_path}
    with pytest.raises(ValidationError, match="both 8440: give each its own"):
        Settings(**addresses, port=8440, work_port=8440)
    assert Settings(**addresses, port=0, work_port=0).port == 0  # the system chooses two


# --- adapters -----------------------------------------------------------------------------------------------------


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
        assert (await http.post(f"{path}/heartbeat", json=token)).json()["expires_at"] == granted["expires_at"]
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
        submit(context, "ada")
        submit(context, "bob")
        context.rounds.reconcile()
        granted = await leased()
        failure = FailureRequest(token=granted.token, code="internal", message="no")
        await http.post(f"/v1/work/{granted.job_id}/failure", json=failure.model_dump(mode="json"))
    with context.store.read() as tx:
        rows = tx._connection.execute(sa.select(schema.audit).order_by(schema.audit.c.seq)).mappings().all()
    work_lines = [row for row in rows if row["action"].startswith("work.")]
    assert [row["action"] for row in work_lines] == ["work.leased", "work.done", "work.leased", "work.failed"]
    assert {(row["actor"], row["detail"]["worker"]) for row in work_lines} == {("worker", "operator")}
    assert [row["actor"] for row in rows if row["action"] == "round.cotuning"] == ["worker"]


# --- waiting ------------------------------------------------------------------------------------------------------


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


async def test_stored_blobs_of_workers_are_not_counted_as_updates(context: Context) -> None:
    """What a worker stores is no agent's update."""
    begin(context)
    store(context, adapter(4.0))
    assert context.lifecycle.rounds(RUN)[0].accepted == 0
    assert context.work.lease("worker", "worker") is None
    with pytest.raises(AssertionError):
        lease(context)
