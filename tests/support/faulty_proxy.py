"""A TCP proxy on loopback that cuts connections, slows them down and swallows what they carry, in either direction."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

LOOPBACK = "127.0.0.1"
PIECE_BYTES = 1 << 14


@dataclass
class Way:
    """One direction: what it does to each connection, and how many bytes have passed in all."""

    cut_after: int | None = None
    hole_after: int | None = None
    delay_seconds: float = 0.0
    passed: int = 0


@dataclass
class Proxy:
    """Where it listens, and its two directions; ``connections`` counts those that were opened through it."""

    up: Way = field(default_factory=Way)
    down: Way = field(default_factory=Way)
    port: int = 0
    connections: int = 0

    @property
    def url(self) -> str:
        """Where clients go."""
        return f"http://{LOOPBACK}:{self.port}"

    @asynccontextmanager
    async def towards(self, port: int) -> AsyncIterator["Proxy"]:
        """Forward to ``port`` while the block runs."""
        pumps: set[asyncio.Task[None]] = set()

        async def connect(inside: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
            self.connections += 1
            answers, outside = await asyncio.open_connection(LOOPBACK, port)
            ends = (back, outside)
            pumps.add(asyncio.create_task(_pump(inside, outside, self.up, ends)))
            pumps.add(asyncio.create_task(_pump(answers, back, self.down, ends)))

        server = await asyncio.start_server(connect, LOOPBACK, 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(
    source: asyncio.StreamReader, into: asyncio.StreamWriter, way: Way, ends: tuple[asyncio.StreamWriter, ...]
) -> None:
    """Pass bytes on until one side ends, or the connection is to be cut; in a hole nothing comes out, not even that."""
    into.transport.set_write_buffer_limits(0)  # so that what has passed is with the other side
    passed = 0
    try:
        while piece := await source.read(PIECE_BYTES):
            await asyncio.sleep(way.delay_seconds)
            if way.hole_after is not None and passed + len(piece) > way.hole_after:
                await asyncio.get_running_loop().create_future()
            room = len(piece) if way.cut_after is None else way.cut_after - passed
            into.write(piece[:room])
            await into.drain()
            way.passed += len(piece[:room])
            passed += len(piece[:room])
            if len(piece) >= room and way.cut_after is not None:
                break
    except ConnectionError:
        pass
    finally:
        for end in ends:
            end.close()
