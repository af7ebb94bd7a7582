"""A coordinator that is told to stop: whoever waits for an answer gets one, and its log does not alarm."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from examples.demo.processes import FEDERATION, LocalFederation, local_federation
from services.coordinator.context import Context
from shared.credentials import SignedRequests
from shared.egress import Egress
from shared.key_file import read_key
from shared.protocol.digests import DIGEST_FIELD, digest_of, to_field
from shared.protocol.messages import RunView
from shared.trust import trusting
from tests.support.federations import RUN, begin, client, terms_of

pytestmark = pytest.mark.anyio


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
        while not context.changes._bell._waiters:
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
