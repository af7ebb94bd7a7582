"""A TCP relay on loopback that keeps every byte that is sent through it, and what HTTP/1.1 requests they are."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from anyio.from_thread import start_blocking_portal

from shared.protocol.digests import digest_of

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Seen:
    """A request as it was on the wire."""

    method: str
    target: str
    head_bytes: int
    body_bytes: int
    digest: str


@dataclass
class Tap:
    """Where the relay listens, and the bytes of each connection to the other side, in the order of their opening."""

    port: int
    scheme: str = "http"
    connections: list[bytearray] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where clients go."""
        return f"{self.scheme}://{LOOPBACK}:{self.port}"

    @property
    def bytes(self) -> int:
        """How many bytes clients have sent."""
        return sum(map(len, self.connections))

    def requests(self) -> list[Seen]:
        """Return the requests that the bytes are, to the last byte; a way through a proxy goes on inside."""
        return [request for sent in self.connections for request in parsed(bytes(sent))]


def parsed(sent: bytes) -> Iterator[Seen]:
    """Yield the requests of a connection; what is left over is an error."""
    while sent:
        head, end, rest = sent.partition(b"\r\n\r\n")
        assert end, f"{sent[:100]!r} is no whole head of a request"
        line, *lines = head.decode("ascii").split("\r\n")
        method, target, version = line.split(" ")
        assert version == "HTTP/1.1"
        fields = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
        assert "transfer-encoding" not in fields
        length = int(fields.get("content-length", 0))
        body, sent = rest[:length], rest[length:]
        assert len(body) == length, f"{line} was cut off"
        yield Seen(method, target, len(head) + len(end), length, digest_of(body))


@contextmanager
def tapped(port: int, *, shows: ssl.SSLContext | None = None, trusts: ssl.SSLContext | None = None) -> Iterator[Tap]:
    """Relay between a new port and ``port`` while the block runs.

    With ``shows`` and ``trusts`` it opens TLS, as an organisation's proxy does, and keeps what is inside.
    """
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(_relaying(port, shows, trusts)) as tap:
        yield tap


@asynccontextmanager
async def _relaying(port: int, shows: ssl.SSLContext | None, trusts: ssl.SSLContext | None) -> AsyncIterator[Tap]:
    connections: list[bytearray] = []

    async def serve(inside: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        sent = bytearray()
        connections.append(sent)
        try:
            answers, outside = await asyncio.open_connection(LOOPBACK, port, ssl=trusts)
        except OSError:  # nobody listens there at this moment
            back.close()
            return
        await asyncio.gather(_pour(inside, outside, sent), _pour(answers, back))

    server = await asyncio.start_server(serve, LOOPBACK, 0, ssl=shows)
    try:
        yield Tap(server.sockets[0].getsockname()[1], "http" if shows is None else "https", connections)
    finally:
        server.close()


async def _pour(source: asyncio.StreamReader, into: asyncio.StreamWriter, kept: bytearray | None = None) -> None:
    """Pass bytes on until one side has ended, and keep them."""
    try:
        while piece := await source.read(65536):
            if kept is not None:
                kept += piece
            into.write(piece)
            await into.drain()
        into.close()
    except OSError:
        return
    finally:
        if not into.is_closing():
            into.transport.abort()
