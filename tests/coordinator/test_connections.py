"""Connections that would hold memory or a place before anybody knows whose they are, over real sockets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx
import pytest
from structlog.testing import capture_logs

from services.coordinator.app import create_app
from services.coordinator.connections import BoundedConnection
from services.coordinator.context import Context
from tests.support.served import served

pytestmark = pytest.mark.anyio

GET = b"GET /healthz HTTP/1.1\r\nHost: here\r\n"


class Impatient(BoundedConnection):
    """A connection with little time."""

    head_seconds = linger_seconds = 0.2


class Peer:
    """The other end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        self._reader = reader
        self._writer = writer
        self.port = port

    async def send(self, content: bytes) -> None:
        """Send something, if it is still wanted."""
        with suppress(ConnectionError):
            self._writer.write(content)
            await self._writer.drain()

    async def answers(self) -> bytes:
        """Return all that comes until the connection ends."""
        found = b""
        with suppress(ConnectionError):
            while piece := await self._reader.read(1 << 16):
                found += piece
        return found

    async def status(self) -> bytes:
        """Return the first line of an answer."""
        return (await self._reader.readuntil(b"\r\n")).strip()


@asynccontextmanager
async def connected(context: Context, kind: type[BoundedConnection]) -> AsyncIterator[Peer]:
    """Serve a coordinator, and open a connection to it."""
    with served(create_app(context), http=kind) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        yield Peer(reader, writer, port)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@pytest.mark.parametrize(
    ("start", "more"),
    [(GET + b"X: ", b"a"), (b"GET /", b"a"), (GET, b"X: y\r\n")],
    ids=["a field", "a path", "many fields"],
)
async def test_a_head_of_megabytes_is_not_kept(start: bytes, more: bytes, context: Context) -> None:
    """Whatever part of it never ends, the connection does, and the log says whose it was."""
    with capture_logs() as lines:
        async with connected(context, BoundedConnection) as peer:
            await peer.send(start)
            for _ in range(64):
                await peer.send(more * ((1 << 16) // len(more)))
            assert await peer.answers() == b""
    closed = [(line["who"], line["detail"]) for line in lines if line["event"] == "connection.closed"]
    assert closed == [("127.0.0.1", "the head of the request is too long")]


@pytest.mark.parametrize("start", [b"", b"GET /healthz HT", GET], ids=["nothing", "half a line", "half a head"])
async def test_who_does_not_ask_is_not_waited_for(start: bytes, context: Context) -> None:
    """A connection on which no whole head comes ends, and others are served meanwhile."""
    async with connected(context, Impatient) as peer:
        await peer.send(start)
        async with httpx.AsyncClient() as http:
            assert (await http.get(f"http://127.0.0.1:{peer.port}/healthz")).is_success
        assert await peer.answers() == b""


async def test_who_was_answered_may_not_send_for_ever(context: Context) -> None:
    """The rest of a body that nobody reads is taken for a while, so that its sender reads why, and no longer."""
    async with connected(context, Impatient) as peer:
        await peer.send(b"PUT /v1/nothing HTTP/1.1\r\nHost: here\r\nContent-Length: 1000000\r\n\r\n")
        assert await peer.status() == b"HTTP/1.1 404 Not Found"
        ended = asyncio.create_task(peer.answers())
        while not ended.done():
            await peer.send(b"a")
            await asyncio.sleep(0.02)
        assert b"route_unknown" in await ended


async def test_a_usual_head_and_a_late_body_are_taken(context: Context) -> None:
    """A head in two pieces, one behind it, and one that comes right behind a body, are all answered."""
    async with connected(context, BoundedConnection) as peer:
        await peer.send(GET[:20])
        await peer.send(GET[20:] + b"\r\n")
        assert await peer.status() == b"HTTP/1.1 200 OK"
        rest = b"PUT /v1/nothing HTTP/1.1\r\nHost: here\r\nContent-Length: 200000\r\n\r\n" + bytes(200_000)
        await peer.send(rest + GET + b"Connection: close\r\n\r\n")
        answers = await peer.answers()
    assert answers.count(b"HTTP/1.1 404 Not Found") == 1
    assert answers.count(b"HTTP/1.1 200 OK") == 1
