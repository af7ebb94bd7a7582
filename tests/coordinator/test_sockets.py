import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import httpx
import pytest
import uvicorn
from pydantic import ValidationError

from bench.federation import settings_of, token_of
from services.coordinator.app import by_port, create_app, create_work_app
from services.coordinator.connections import connecting
from services.coordinator.context import Context
from shared.listening import listen
from shared.protocol.digests import digest_of
from shared.protocol.rounds import RoundState
from tests.support.federations import RUN, adapter, begin
from tests.support.requests import UPDATE, announcing, assert_problem, fields_of, partial_files, pieces

pytestmark = pytest.mark.anyio


@contextlib.asynccontextmanager
async def served(context: Context) -> AsyncIterator[tuple[int, int]]:
    """Serve both apps on loopback, and yield their ports."""
    public, internal = listen("127.0.0.1", 0), listen("127.0.0.1", 0)
    ports = public.getsockname()[1], internal.getsockname()[1]
    app = by_port(create_app(context), create_work_app(context), work_port=ports[1])
    config = uvicorn.Config(app, lifespan="off", log_config=None, http=connecting(), timeout_graceful_shutdown=1)
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


async def test_a_connection_that_breaks_off_counts_for_nothing(
    context: Context, caplog: pytest.LogCaptureFixture
) -> None:
    """An agent that dies in the middle of its upload costs not even a traceback, and may begin anew."""
    begin(context)
    blob = adapter(1.0)
    async with served(context) as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        fields = {"Host": "x"} | fields_of(context, "ada", "PUT", UPDATE, **announcing(blob))
        lines = [f"PUT {UPDATE} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        writer.write("\r\n".join(lines).encode() + blob[:-10])
        await writer.drain()
        while not partial_files(context):
            await asyncio.sleep(0)
        writer.close()
        await writer.wait_closed()
        del reader
        assert context.lifecycle.rounds(RUN).rounds[0].state is RoundState.OPEN
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            response = await http.put(
                UPDATE,
                content=pieces(blob),
                headers=fields_of(context, "ada", "PUT", UPDATE, **announcing(blob)),
            )
    assert response.json()["digest"] == digest_of(blob)
    assert not partial_files(context)
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
        assert_problem(lease_answer, 404, "route_unknown")
        assert_problem(runs_answer, 404, "route_unknown")
        assert (await http.get(f"http://127.0.0.1:{internal}/healthz")).is_success


def test_one_port_for_both_is_refused(tmp_path: Path) -> None:
    """Workers' routes are told apart by their port, so equal ports on two addresses would show them to everybody."""
    addresses = {"host": "192.0.2.1", "work_host": "127.0.0.1"}
    with pytest.raises(ValidationError, match="both 8440: give each its own"):
        settings_of(tmp_path, **addresses, port=8440, work_port=8440)
    chosen = settings_of(tmp_path, **addresses, insecure=True, port=0, work_port=0)
    assert chosen.port == 0  # the system chooses two


ELSEWHERE: Mapping[str, str] = {"host": "0.0.0.0", "work_host": "work.coordinator"}  # noqa: S104 - not listened on


@pytest.mark.parametrize("setting", ELSEWHERE)
def test_no_other_machine_is_served_in_the_clear(setting: str, tmp_path: Path) -> None:
    """Neither port is, unless somebody says that the network encrypts, or there is a certificate."""
    base = {setting: ELSEWHERE[setting]}
    with pytest.raises(ValidationError, match=rf"{setting} is {ELSEWHERE[setting]}.*`fedcollm tls init`.*--insecure"):
        settings_of(tmp_path, **base)
    assert settings_of(tmp_path, **base, insecure=True).insecure
    assert settings_of(tmp_path, **base, tls_certificate_file=tmp_path, tls_key_file=tmp_path).tls_key_file


@pytest.mark.parametrize("setting", ["tls_certificate_file", "tls_key_file"])
def test_a_certificate_without_a_key_is_refused(setting: str, tmp_path: Path) -> None:
    """Nor a key without a certificate: plain HTTP would be served where TLS was meant."""
    with pytest.raises(ValidationError, match="go together: set both, or none"):
        settings_of(tmp_path, **{setting: tmp_path})
