"""Connections that would hold memory or a place before anybody knows whose they are, over real sockets."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs

from services.coordinator.app import create_app
from services.coordinator.certificates import serving_tls
from services.coordinator.connections import BoundedConnection, connecting
from services.coordinator.context import Context
from services.coordinator.strangers import MOST_NAMED, Closed, Strangers
from shared.trust import trusting
from tests.support.requests import fields_of
from tests.support.served import served
from tests.support.tls import certificates

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
async def connected(
    context: Context, kind: type[BoundedConnection], tls: ssl.SSLContext | None = None
) -> AsyncIterator[Peer]:
    """Serve a coordinator, and open a connection to it."""
    with served(create_app(context), http=connecting(kind, tls=tls)) as port:
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


@dataclass(eq=False)
class Connection:
    """A connection that knows whether it was closed."""

    is_known: bool = False
    closed: bool = False

    def give_way(self) -> None:
        """End."""
        self.closed = True


def test_the_oldest_stranger_gives_way_and_no_newcomer_is_refused() -> None:
    """First among those of one address, where it has too many, then among all; whoever is known stays."""
    strangers = Strangers(most=4, most_of_address=2)
    here, there = [Connection() for _ in range(3)], [Connection() for _ in range(2)]
    for connection in here:
        strangers.add(connection, "here")
    assert [connection.closed for connection in here] == [True, False, False]
    for connection in there:
        strangers.add(connection, "there")
    here[1].is_known = True
    newest = [Connection() for _ in range(2)]
    for number, connection in enumerate(newest):
        strangers.add(connection, f"elsewhere {number}")
    assert [connection.closed for connection in (*here, *there, *newest)] == [True, False, True, *[False] * 4]
    for connection in (*here, *there, *newest):
        strangers.discard(connection)
    assert not strangers._of_address


async def test_a_flood_of_closed_connections_is_two_lines() -> None:
    """The first is told at once, so that somebody looks, and the others as a number; of many addresses as others."""
    closed = Closed()
    with capture_logs() as lines:
        for number in range(500):
            closed.note("10.0.0.1", "it made room")
            closed.note(f"10.1.{number}.1", "it made room")
        assert len(lines) == MOST_NAMED + 1
        for key in list(closed._more):
            closed._tell(key)
    assert sum(line["connections"] for line in lines) == 1000
    assert [line["connections"] for line in lines if line["who"] == "10.0.0.1"] == [1, 499]
    assert len(lines) == MOST_NAMED + 3


async def hung(port: int, start: bytes) -> asyncio.StreamWriter:
    """Open a connection, and begin something on it."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(start)
    return writer


SLOW = (b"", GET, b"PUT /v1/enrol HTTP/1.1\r\nHost: here\r\nContent-Length: 1000\r\n\r\n{")


@pytest.mark.parametrize("secure", [False, True], ids=["HTTP", "TLS"])
async def test_a_crowd_of_strangers_stops_neither_a_newcomer_nor_whoever_is_known(
    *, secure: bool, context: Context, tmp_path: Path
) -> None:
    """Slow handshakes, heads and bodies make room for who asks, and a member's long poll goes on."""
    shown = certificates(tmp_path)
    tls = serving_tls(shown.chain, shown.key) if secure else None
    trust = trusting(shown.ca_file) if secure else True
    connect, path = connecting(tls=tls, strangers=Strangers(most=8, most_of_address=8)), "/v1/wanted?wait_seconds=2"
    with capture_logs() as lines, served(create_app(context), http=connect) as port:
        url = f"{'https' if secure else 'http'}://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, verify=trust) as member, AsyncExitStack() as stack:
            polled = asyncio.create_task(member.get(path, headers=fields_of(context, "ada", "GET", path)))
            while not context.changes.waiting:
                await asyncio.sleep(0.01)
            for number in range(40):
                writer = await hung(port, SLOW[number % len(SLOW)])
                stack.callback(writer.close)
            async with httpx.AsyncClient(base_url=url, verify=trust) as newcomer:
                assert (await newcomer.get("/healthz")).is_success
            context.changes.ring()
            assert (await polled).is_success
    assert [line["detail"] for line in lines if line["event"] == "connection.closed"] == [
        "it made room for a newer one"
    ]


@pytest.mark.parametrize("sent", [b"", GET + b"\r\n"], ids=["nothing", "plain HTTP"])
async def test_a_tls_handshake_that_never_ends_is_not_waited_for(sent: bytes, context: Context, tmp_path: Path) -> None:
    """Nor is anything answered in the clear, and only what took too long is told of."""
    shown = certificates(tmp_path)
    with capture_logs() as lines:
        async with connected(context, Impatient, serving_tls(shown.chain, shown.key)) as peer:
            await peer.send(sent)
            assert b"HTTP" not in await peer.answers()
    assert [line["detail"] for line in lines] == ["the TLS handshake took too long"] * (not sent)
