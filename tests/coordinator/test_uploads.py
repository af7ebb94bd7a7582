"""Uploads of one agent over real sockets: the newest goes on, the one before is broken off, and others' are theirs."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from bench.federation import ManualClock
from services.coordinator.app import create_app
from services.coordinator.context import Context
from services.coordinator.uploads import Uploads
from shared.errors import UploadSuperseded
from shared.protocol.digests import digest_of
from shared.protocol.rounds import RoundState
from tests.coordinator.test_attempts import opened
from tests.coordinator.test_slow_bodies import Sender
from tests.support.federations import RUN, adapter, begin
from tests.support.requests import UPDATE, announcing, fields_of, partial_files
from tests.support.served import served

pytestmark = pytest.mark.anyio

MASKED = f"/v1/runs/{RUN}/rounds/1/attempts/1/masked"


async def until(there: Callable[[], bool]) -> None:
    """Wait for what the server does in its thread."""
    async with asyncio.timeout(10):
        while not there():
            await asyncio.sleep(0.001)


@asynccontextmanager
async def begun(context: Context, port: int, who: str, path: str, blob: bytes) -> AsyncIterator[Sender]:
    """Send all of an upload but its last byte."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sender, file = Sender(reader, writer), f"{who}.{digest_of(blob).removeprefix('sha256:')}"
    sender.begin("PUT", path, fields_of(context, who, "PUT", path, **announcing(blob)))
    writer.write(blob[:-1])
    await until(lambda: file in {found.name for found in partial_files(context)})
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
            assert len(partial_files(context)) == 2  # ada's second, and bob's
            second.writer.write(blob[-1:])
            status, _ = await second.answered()
            assert status == 200
    view = context.lifecycle.rounds(RUN).rounds[0]
    assert (view.accepted, view.refused) == (1, 0)


async def test_an_agent_has_one_masked_vector_on_the_disk(context: Context, clock: ManualClock) -> None:
    """However many it begins; and when they have all broken off, what came of the last."""
    opened(context, clock).play(until=RoundState.MASKED)
    with served(create_app(context)) as port:
        async with AsyncExitStack() as connections:
            for number in range(20):
                vector = bytes([number]) * 104
                await connections.enter_async_context(begun(context, port, "bob", MASKED, vector))
                assert len(partial_files(context)) == 1
        await until(lambda: [file.read_bytes() for file in partial_files(context)] == [vector[:-1]])
    assert context.lifecycle.rounds(RUN).rounds[0].refused == 0


async def body(*, ends: bool) -> AsyncIterator[bytes]:
    """Yield what has come of a body; if it does not end, nothing more comes, and nobody says so."""
    yield b"first"
    yield b"second"
    if not ends:
        await asyncio.get_running_loop().create_future()


async def test_whoever_gives_way_has_what_had_come_and_the_newer_one_begins_when_it_has_ended() -> None:
    """No thread that writes is left alone with a file that is closed, and nobody else's upload is broken off."""
    uploads = Uploads()

    async def newest() -> list[bytes]:
        async with uploads.newest("ada", body(ends=True)) as upload:
            return [chunk async for chunk in upload]

    async with uploads.newest("ada", body(ends=False)) as first, uploads.newest("bob", body(ends=True)) as other:
        assert await anext(first) == b"first"
        newer = asyncio.create_task(newest())
        await asyncio.sleep(0)
        assert await anext(first) == b"second"
        with pytest.raises(UploadSuperseded):
            await anext(first)
        assert [chunk async for chunk in other] == [b"first", b"second"]
        assert not newer.done()
    assert await newer == [b"first", b"second"]


async def test_each_of_three_uploads_gives_way_to_the_next() -> None:
    """The second gives way before it has begun, and the third waits for both."""
    uploads, ended = Uploads(), []

    async def upload(name: str, *, ends: bool) -> None:
        try:
            async with uploads.newest("ada", body(ends=ends)) as chunks:
                assert [chunk async for chunk in chunks] == [b"first", b"second"]
        finally:
            ended.append(name)

    order = ("first", False), ("second", False), ("third", True)
    outcomes = await asyncio.gather(*(upload(name, ends=ends) for name, ends in order), return_exceptions=True)
    assert ended == ["first", "second", "third"]
    assert [type(outcome) for outcome in outcomes] == [UploadSuperseded, UploadSuperseded, type(None)]
