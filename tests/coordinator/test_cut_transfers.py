"""Transfers through a bad network, over real sockets: they go on where they broke off, and end with the right bytes."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import stamina

from bench.federation import FEDERATION, client_of, key_of
from services.coordinator.app import create_app
from services.coordinator.context import Context
from shared.credentials import SignedRequests
from shared.egress import TrafficCount
from shared.protocol.digests import digest_of
from shared.transport import OnRetry, Transport, open_transport, tell_nobody
from tests.support.faulty_proxy import Proxy, Way
from tests.support.federations import RUN, adapter, begin, theta_of
from tests.support.requests import partial_files
from tests.support.served import served

pytestmark = pytest.mark.anyio

MB = 1 << 20
LAYOUT = {"slm.lora_A.weight": (2, 300_000), "slm.lora_B.weight": (300_000, 2)}
CHUNK = MB // 2  # what the server may have read of a connection and not have handed on when it ends
HEADS = 4096  # more than what requests, answers and their heads add to a connection


@pytest.fixture(autouse=True)
def _many_attempts(_no_waiting_between_retries: None) -> Iterator[None]:
    with stamina.set_testing(True, attempts=100):
        yield


@asynccontextmanager
async def through(
    proxy: Proxy, context: Context, port: int, on_retry: OnRetry = tell_nobody
) -> AsyncIterator[Transport]:
    """Open ada's way to the coordinator through a proxy; she gives a silent connection up in no time."""
    signing = SignedRequests("ada", key_of("ada"), FEDERATION, context.admission.clock)
    async with (
        proxy.towards(port),
        open_transport(
            *(proxy.url, signing, TrafficCount()), patience_seconds=None, on_retry=on_retry, silence_seconds=1.0
        ) as transport,
    ):
        yield transport


async def sent(transport: Transport, tmp_path: Path, blob: bytes) -> str:
    """Send ada's update, and return the digest that the receipt names."""
    (tmp_path / "update").write_bytes(blob)
    coordinator = client_of(transport)
    receipt = await coordinator.send_update(RUN, 1, tmp_path / "update", digest=digest_of(blob), examples=None)
    return receipt.digest


async def test_an_upload_that_is_cut_every_megabyte_ends_and_sends_little_twice(
    context: Context, tmp_path: Path
) -> None:
    """At most one chunk goes a second time a cut, and what is kept has the right digest."""
    begin(context, layout=LAYOUT)
    blob, proxy = adapter(1.5, LAYOUT), Proxy(up=Way(cut_after=MB))
    with served(create_app(context)) as port:
        async with through(proxy, context, port) as transport:
            assert await sent(transport, tmp_path, blob) == digest_of(blob)
    cuts = proxy.connections - 1
    assert cuts >= len(blob) // MB
    assert proxy.up.passed <= len(blob) + cuts * (CHUNK + HEADS) + HEADS
    assert context.blobs.path(digest_of(blob)).read_bytes() == blob
    assert not partial_files(context)


async def test_a_download_that_is_cut_every_megabyte_ends_and_sends_nothing_twice(
    context: Context, tmp_path: Path
) -> None:
    """What has come is kept, to the byte."""
    begin(context, layout=LAYOUT)
    digest, proxy = theta_of(context), Proxy(down=Way(cut_after=MB))
    with served(create_app(context)) as port:
        async with through(proxy, context, port) as transport:
            size = await client_of(transport).fetch_adapter(digest, tmp_path / "theta", size=len(adapter(0, LAYOUT)))
    assert digest_of((tmp_path / "theta").read_bytes()) == digest
    assert proxy.connections > size // MB
    assert proxy.down.passed <= size + proxy.connections * HEADS


@pytest.mark.parametrize("way", ["up", "down"])
async def test_a_transfer_that_falls_into_a_hole_is_given_up_and_goes_on(
    way: str, context: Context, tmp_path: Path
) -> None:
    """Nobody says that the connection is gone: a deadline does, and the next one has what the first had not."""
    begin(context, layout=LAYOUT)
    blob, proxy = adapter(0.0, LAYOUT), Proxy()
    getattr(proxy, way).hole_after = 2 * MB

    def heal(_: object) -> None:
        getattr(proxy, way).hole_after = None

    with served(create_app(context)) as port:
        async with through(proxy, context, port, heal) as transport:
            if way == "up":
                assert await sent(transport, tmp_path, blob) == digest_of(blob)
            else:
                await transport.download(f"/v1/adapters/{digest_of(blob)}", tmp_path / "x", digest=digest_of(blob))
    assert proxy.connections > 1
    assert getattr(proxy, way).passed <= len(blob) + CHUNK + HEADS


async def test_a_slow_network_is_no_fault(context: Context, tmp_path: Path) -> None:
    """What comes late, but comes, is one request."""
    begin(context)
    blob, proxy = adapter(1.5), Proxy(up=Way(delay_seconds=0.05), down=Way(delay_seconds=0.05))
    with served(create_app(context)) as port:
        async with through(proxy, context, port) as transport:
            assert await sent(transport, tmp_path, blob) == digest_of(blob)
    assert proxy.connections == 1
