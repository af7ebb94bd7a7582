import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from shared.credentials import BearerToken
from shared.egress import TrafficCount
from shared.errors import Unreachable
from shared.pace import Pace, paced
from shared.protocol.messages import Health
from shared.transport import open_transport

pytestmark = pytest.mark.anyio


async def body(*, ends: bool) -> AsyncIterator[bytes]:
    """Yield two pieces; if it does not end, nothing more comes."""
    yield b"first"
    yield b"second"
    if not ends:
        await asyncio.get_running_loop().create_future()


async def test_a_body_at_its_pace_comes_as_it_is() -> None:
    """And what has come counts for it."""
    pace = Pace(silence_seconds=10.0, bytes_per_second=1.0)
    assert [piece async for piece in paced(body(ends=True), pace)] == [b"first", b"second"]
    assert pace.bytes == 11


async def test_a_body_that_stops_is_not_waited_for() -> None:
    """What had come until then has been handed on."""
    coming = paced(body(ends=False), Pace(silence_seconds=0.05, bytes_per_second=1.0))
    assert [await anext(coming), await anext(coming)] == [b"first", b"second"]
    with pytest.raises(TimeoutError):
        await anext(coming)


@pytest.mark.parametrize("start", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"])
async def test_an_answer_that_drips_is_given_up(start: bytes) -> None:
    """Its head or its body: each byte comes in time, and all of it never does."""
    dripping = []

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dripping.append(asyncio.current_task())
        with suppress(ConnectionError):
            writer.write(start)
            while not writer.transport.is_closing():
                writer.write(b"a")
                await writer.drain()
                await asyncio.sleep(0.02)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as server, asyncio.timeout(30):
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with open_transport(
            *(url, BearerToken(""), TrafficCount()), patience_seconds=None, silence_seconds=0.3
        ) as transport:
            with pytest.raises(Unreachable, match="ReadTimeout"):
                await transport.call("GET", "/healthz", Health)
        await asyncio.gather(*dripping)
