"""A coordinator that is told to stop: whoever waits for an answer gets one, and its log does not alarm."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from examples.demo.processes import FEDERATION, LocalFederation, local_federation
from services.coordinator.context import Context
from shared.credentials import SignedRequests
from shared.egress import Egress
from shared.key_file import read_key
from shared.protocol.codec import blob_bytes
from shared.protocol.digests import DIGEST_FIELD, digest_of, to_field
from shared.protocol.messages import EventList, RunView
from shared.protocol.rounds import RunState
from shared.protocol.terms import CohortTerms
from shared.trust import trusting
from tests.support.federations import RUN, SLM_LAYOUT, begin, client, terms_of

pytestmark = pytest.mark.anyio

# How long Docker waits before it kills.
DOCKER_SECONDS = 10.0
COMMAND = [sys.executable, "-m", "tests.support.stuck"]


@pytest.fixture(autouse=True)
def _no_waiting_between_retries() -> None:
    """Wait between retries here: the process takes real time to come."""


async def test_nobody_waits_for_a_coordinator_that_stops(context: Context) -> None:
    """A poll that waits ends with what there is, and one that comes late does not begin to wait."""
    begin(context)
    async with client(context, "viewer") as http:
        last = (await http.get(f"/v1/runs/{RUN}/events")).json()["last"]
        poll = f"/v1/runs/{RUN}/events?after={last}&wait_seconds=25"
        waiting = asyncio.create_task(http.get(poll))
        while not context.changes.waiting:
            await asyncio.sleep(0)
        context.changes.stop()
        for answer in (await waiting, await http.get(poll)):
            assert (answer.status_code, answer.json()) == (200, {"events": [], "last": last})


def polls(federation: LocalFederation) -> list[tuple[int, str, str, str]]:
    """One long poll of each kind: port, who asks, path and body."""
    return [
        (federation.public.port, "ada", "GET /v1/wanted?wait_seconds=25", ""),
        (federation.public.port, "operator", f"GET /v1/runs/{RUN}/events?after=2&wait_seconds=25", ""),
        (federation.work.port, "worker", "POST /v1/work/lease", json.dumps({"worker": "w", "wait_seconds": 25})),
    ]


def said_by(federation: LocalFederation, who: str, method: str, target: str) -> Mapping[str, str]:
    """Return the fields of a request without a body that say who sends it."""
    if who in federation.tokens:
        return {"Authorization": f"Bearer {federation.tokens[who]}"}
    signer = SignedRequests(who, read_key(federation.key_file(who)), FEDERATION)
    return signer.fields(Egress(method, target, 0, digest_of(b"")))


async def test_a_coordinator_stops_with_all_polls_answered_and_says_nothing_more(tmp_path: Path) -> None:
    """Told to stop, it needs no force: exit code 0, and no word of requests that were cancelled."""
    async with local_federation(tmp_path, ("ada",)) as federation:
        await federation.start_coordinator()
        async with federation.operator() as operator:
            await operator.call("PUT", f"/v1/runs/{RUN}", RunView, body=terms_of())
        waiting = []
        for port, who, request, body in polls(federation):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting(federation.ca_file))
            fields = {
                "Host": "here",
                "FedCoLLM-Protocol": "1",
                "Content-Type": "application/json",
                "Content-Length": str(len(body)),
                DIGEST_FIELD: to_field(digest_of(body.encode())),
            }
            fields |= said_by(federation, who, *request.split())
            lines = [f"{request} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", body]
            writer.write("\r\n".join(lines).encode())
            waiting.append((reader, writer))
        async with httpx.AsyncClient(
            verify=trusting(federation.ca_file)
        ) as http:  # answered after the coordinator has read what came before
            await http.get(f"{federation.public.url}/healthz")
        process = federation.processes.running["coordinator"]
        process.terminate()
        answers = [await reader.read() for reader, _ in waiting]  # to its end: TLS minds a close with bytes on the way
        for _, writer in waiting:
            writer.close()
            await writer.wait_closed()
        assert await process.wait() == 0
    assert [answer.partition(b"\r\n")[0] for answer in answers] == [b"HTTP/1.1 200 OK"] * 3
    lines = (tmp_path / "logs" / "coordinator.log").read_text().splitlines()
    assert f"run_id={RUN}" in lines[-1]
    [line] = [line for line in lines if "coordinator.serving" in line]
    assert federation.public.url in line
    assert federation.work.url in line


async def uploading(federation: LocalFederation, blob: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send the beginning of an update, and return when the coordinator has it on its disk."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", federation.public.port, ssl=trusting(federation.ca_file)
    )
    digest, target = digest_of(blob), f"/v1/runs/{RUN}/rounds/1/update"
    signer = SignedRequests("ada", read_key(federation.key_file("ada")), FEDERATION)
    fields = {
        "Host": "here",
        "FedCoLLM-Protocol": "1",
        "Content-Length": str(len(blob)),
        DIGEST_FIELD: to_field(digest),
    } | signer.fields(Egress("PUT", target, len(blob), digest))
    lines = [f"PUT {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    writer.write("\r\n".join(lines).encode() + blob[:-1])
    await writer.drain()
    while not list((federation.folder / "coordinator" / "blobs" / "partial").iterdir()):
        await asyncio.sleep(0.02)
    return reader, writer


@pytest.mark.parametrize("times", [1, pytest.param(2, marks=pytest.mark.slow)])
async def test_a_coordinator_stops_in_the_middle_of_an_upload(times: int, tmp_path: Path) -> None:
    """Told once, exit code 0; told twice it ends at once. What has come stays for its sender, and the run goes on."""
    async with local_federation(tmp_path, ("ada",)) as federation:
        await federation.start_coordinator()
        await federation.start_worker(
            [*COMMAND, "quick-worker"], auxiliary=Path(os.devnull), validation=Path(os.devnull)
        )
        async with federation.operator() as operator:
            terms = terms_of(cohort=CohortTerms(min_count=1, max_count=1, min_seconds=0, max_seconds=999))
            await operator.call("PUT", f"/v1/runs/{RUN}", RunView, body=terms)
            await operator.call("POST", f"/v1/runs/{RUN}/start", RunView)
            await federation.sign(operator, RUN, terms)
        _, writer = await uploading(federation, bytes(blob_bytes(SLM_LAYOUT)))
        process = federation.processes.running.pop("coordinator")
        began = asyncio.get_running_loop().time()
        process.terminate()
        if times == 2:
            await asyncio.sleep(0.05)  # two at once may be taken for one
            process.terminate()
        assert await process.wait() == (0 if times == 1 else 128 + signal.SIGTERM)
        assert asyncio.get_running_loop().time() - began < DOCKER_SECONDS
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        await federation.start_coordinator()
        async with federation.operator() as operator:
            assert (await operator.call("GET", f"/v1/runs/{RUN}", RunView)).state is RunState.RUNNING
        blobs = tmp_path / "coordinator" / "blobs"
        assert len(list((blobs / "partial").iterdir())) == 1
        assert not list((blobs / "incoming").iterdir())


async def test_worker_and_agent_stop_in_the_middle_of_their_work(tmp_path: Path) -> None:
    """Neither waits for what it computes: the work is there for the next worker at once, and the trainer is gone."""
    nothing = Path(os.devnull)
    async with local_federation(tmp_path, ("ada",)) as federation:
        await federation.start_coordinator()
        await federation.start_worker([*COMMAND, "worker"], auxiliary=nothing, validation=nothing)
        async with federation.operator() as operator:
            await operator.call("PUT", f"/v1/runs/{RUN}", RunView, body=terms_of())
            await operator.call("POST", f"/v1/runs/{RUN}/start", RunView)

            async def reach(kind: str) -> None:
                after, seen = 0, False
                while not seen:
                    params = {"after": after, "wait_seconds": 10}
                    page = await operator.call("GET", f"/v1/runs/{RUN}/events", EventList, params=params)
                    after, seen = page.last, any(event.kind == kind for event in page.events)

            await reach("work.leased")
            assert await ended(federation, "worker") == 0
            await reach("work.returned")
            await federation.start_worker([*COMMAND, "quick-worker"], auxiliary=nothing, validation=nothing)
            await federation.sign(operator, RUN, terms_of())
            await federation.start_agent("ada", [*COMMAND, "agent"], slm="none", data=nothing, allow_plaintext=True)
            while not (tmp_path / "ada" / "updates" / "training").exists():
                federation.processes.require_alive("ada")
                await asyncio.sleep(0.05)
            group = federation.processes.running["ada"].pid
            [trainer] = psutil.Process(group).children()
            assert await ended(federation, "ada") == 0
            assert not trainer.is_running()


async def ended(federation: LocalFederation, name: str) -> int:
    """Tell a process to stop, and return how it ended, in time."""
    process = federation.processes.running.pop(name)
    process.terminate()
    async with asyncio.timeout(DOCKER_SECONDS):
        return await process.wait()
