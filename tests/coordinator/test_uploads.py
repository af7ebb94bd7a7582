"""Uploads of one agent over real sockets: the newest goes on, the one before is broken off, and others' are theirs."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from bench.federation import ManualClock
from services.coordinator.app import create_app
from services.coordinator.context import Context
from services.coordinator.uploads import Uploads
from shared.errors import UploadSuperseded
from shared.protocol.rounds import RoundState
from tests.coordinator.test_attempts import opened
from tests.coordinator.test_slow_bodies import Sender
from tests.support.federations import RUN, adapter, begin
from tests.support.requests import UPDATE, announcing, fields_of
from tests.support.served import served

pytestmark = pytest.mark.anyio

MASKED = f"/v1/runs/{RUN}/rounds/1/attempts/1/masked"


def under_way(context: Context) -> list[Path]:
    """Return the files of uploads that have not come in whole."""
    return list((context.settings.data_dir / "blobs" / "incoming").iterdir())


async def until(there: Callable[[], bool]) -> None:
    """Wait for what the server does in its thread."""
    async with asyncio.timeout(10):
        while not there():
            await asyncio.sleep(0.001)


@asynccontextmanager
async def begun(context: Context, port: int, who: str, path: str, blob: bytes) -> AsyncIterator[Sender]:
    """Send all of an upload but its last byte."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sender, before = Sender(reader, writer), set(under_way(context))
    sender.begin("PUT", path, fields_of(context, who, "PUT", path, **announcing(blob)))
    writer.write(blob[:-1])
    await until(lambda: not set(under_way(context)) <= before)
    yield sender
    writer.close()
    await writer.wait_closed()


async def test_an_agent_whose_connection_broke_sends_again_at_once(context: Context) -> None:
    """Its first upload still looks alive here: it is broken off, told and off the disk, and the second is taken."""
    begin(context)
    blob = adapter(1.0)
    with served(create_app(context)) as port:
        async with (
            begun(context, port, "ada", UPDATE, blob) as first,
            begun(context, port, "bob", UPDATE, blob),
            begun(context, port, "ada", UPDATE, blob) as second,
        ):
            status, problem = await first.answer()
            assert (status, problem.code) == (409, "upload_superseded")
            assert await first.is_closed()
            assert len(under_way(context)) == 2  # ada's second, and bob's
            second.writer.write(blob[-1:])
            status, _ = await second.answered()
            assert status == 200
    view = context.lifecycle.rounds(RUN).rounds[0]
    assert (view.accepted, view.refused) == (1, 0)


async def test_an_agent_has_one_masked_vector_on_the_disk(context: Context, clock: ManualClock) -> None:
    """However many it begins; whoever breaks them all off leaves nothing."""
    opened(context, clock).play(until=RoundState.MASKED)
    with served(create_app(context)) as port:
        async with AsyncExitStack() as connections:
            for number in range(20):
                await connections.enter_async_context(begun(context, port, "bob", MASKED, bytes([number]) * 104))
                await until(lambda: len(under_way(context)) == 1)
        await until(lambda: not under_way(context))
    assert context.lifecycle.rounds(RUN).rounds[0].refused == 0


async def test_whoever_gives_way_while_its_bytes_are_written_ends_where_it_reads_on() -> None:
    """No thread that writes is left alone with a file that is closed; however much of the body is there already."""
    uploads = Uploads()

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        yield b"second"

    with uploads.newest("ada", body()) as first:
        assert await anext(first) == b"first"
        with uploads.newest("ada", body()) as second, uploads.newest("bob", body()) as other:
            with pytest.raises(UploadSuperseded):
                await anext(first)
            assert [chunk async for chunk in second] == [chunk async for chunk in other] == [b"first", b"second"]
    with uploads.newest("ada", body()) as third:
        assert await anext(third) == b"first"
