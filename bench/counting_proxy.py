"""A proxy on loopback that counts bytes: in front of a coordinator's port, those that sites exchange with it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from examples.demo.processes import LOOPBACK


@dataclass
class ByteCount:
    """Bytes through the proxy, and connections, which stay open between requests."""

    up: int = 0
    down: int = 0
    connections: int = 0

    @property
    def both(self) -> int:
        """Bytes of both directions."""
        return self.up + self.down


@asynccontextmanager
async def counting_proxy(port: int, target: int) -> AsyncIterator[ByteCount]:
    """Forward ``port`` to ``target`` on loopback and count the bytes each way."""
    count = ByteCount()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, add: Callable[[int], None]) -> None:
        try:
            while piece := await reader.read(1 << 20):
                add(len(piece))
                writer.write(piece)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    def add_up(size: int) -> None:
        count.up += size

    def add_down(size: int) -> None:
        count.down += size

    handling: set[asyncio.Task[None]] = set()
    opened: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        count.connections += 1
        handling.add(task := _this_task())
        opened.add(writer)
        try:
            to_reader, to_writer = await asyncio.open_connection(LOOPBACK, target)
            opened.add(to_writer)
            await asyncio.gather(pump(reader, to_writer, add_up), pump(to_reader, writer, add_down))
            opened.discard(to_writer)
        except ConnectionError:  # a coordinator that is down: its callers are to see that nobody answers
            pass
        finally:
            writer.close()
            opened.discard(writer)
            handling.discard(task)

    server = await asyncio.start_server(serve, LOOPBACK, port)
    try:
        yield count
    finally:
        server.close()
        for writer in opened:
            writer.transport.abort()
        while handling:
            await asyncio.wait(handling)


def _this_task() -> asyncio.Task[None]:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - only tasks ask
    return task
