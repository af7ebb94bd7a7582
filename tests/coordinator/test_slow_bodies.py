"""Bodies that come slowly, over real sockets: broken off, named, and no burden to anybody meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx
import pytest
from structlog.testing import capture_logs

from services.coordinator.app import create_app, create_work_app
from services.coordinator.context import Context
from services.coordinator.routes.slow_bodies import SlowBodies
from services.coordinator.settings import Settings
from shared.pace import Pace
from shared.protocol.digests import digest_of
from shared.protocol.messages import Problem
from shared.transport import AsgiApp
from tests.support.federations import RUN, adapter, begin, terms_of
from tests.support.requests import UPDATE, announcing, fields_of, partial_files, pieces
from tests.support.served import served

pytestmark = pytest.mark.anyio

SILENCE_SECONDS = 0.2


def test_a_body_may_be_silent_for_a_while_and_slow_for_as_long_in_all() -> None:
    """Silence ends it at once, and what it lags behind the slowest pace is taken from the silence that it may keep."""
    pace = Pace(silence_seconds=20.0, bytes_per_second=4096.0)
    assert pace.patience_seconds == 20.0
    pace.waited_seconds = 15.0
    assert pace.patience_seconds == 5.0
    pace.bytes = 10 * 4096
    assert pace.patience_seconds == 15.0
    pace.bytes = 1000 * 4096  # who was fast may not be silent for longer
    assert pace.patience_seconds == 20.0
    pace.waited_seconds = 1020.0
    assert pace.patience_seconds == 0.0


def test_a_weak_link_is_fast_enough() -> None:
    """An agent with 100 kB/s that loses its link for ten seconds of every twenty never lags behind."""
    fields = Settings.model_fields
    pace = Pace(fields["body_silence_seconds"].default, fields["body_bytes_per_second"].default)
    for _ in range(100):
        pace.bytes += 1_000_000
        pace.waited_seconds += 20.0
        assert pace.patience_seconds > 10.0


def impatient(context: Context) -> Context:
    """Return the coordinator with little time for bodies."""
    settings = context.settings.model_copy(
        update={"body_silence_seconds": SILENCE_SECONDS, "body_bytes_per_second": 1000.0}
    )
    return replace(context, settings=settings)


class Sender:
    """A connection on which a request is sent a piece at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    def begin(self, method: str, path: str, fields: dict[str, str]) -> None:
        """Send everything but the body."""
        fields = {"Host": "here", **fields}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        self.writer.write("\r\n".join(lines).encode())

    async def answer(self) -> tuple[int, Problem]:
        """Return the answer, which is a problem."""
        status, body = await self.answered()
        return status, Problem.model_validate_json(body)

    async def answered(self) -> tuple[int, bytes]:
        """Return the answer."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length: "))
        return int(head.split(b" ")[1]), await self._reader.readexactly(int(length.split()[1]))

    async def is_closed(self) -> bool:
        """Return, once the other side has said something, whether that was the end of the connection."""
        return not await self._reader.read(1)

    async def drip(self) -> None:
        """Send a byte every now and then, until nobody wants one any more."""
        while not self._reader._buffer:
            self.writer.write(b" ")
            await asyncio.sleep(SILENCE_SECONDS / 10)


@asynccontextmanager
async def sending(app: AsgiApp) -> AsyncIterator[tuple[Sender, int]]:
    """Serve an app, and open a connection to it."""
    with served(app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        yield Sender(reader, writer), port
        writer.close()
        await writer.wait_closed()


async def test_an_upload_that_stops_is_broken_off(context: Context) -> None:
    """Its sender is told why, what came stays, the log says who it was, and everybody else is served meanwhile."""
    begin(context)
    blob = adapter(1.0)
    with capture_logs() as lines:
        async with sending(create_app(impatient(context))) as (sender, port):
            sender.begin("PUT", UPDATE, fields_of(context, "ada", "PUT", UPDATE, **announcing(blob)))
            sender.writer.write(blob[:-10])
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
                assert (await http.get("/healthz")).is_success
                status, problem = await sender.answer()
                assert (status, problem.code) == (408, "body_too_slow")
                assert f"after {len(blob) - 10} bytes" in problem.detail
                assert [file.read_bytes() for file in partial_files(context)] == [blob[:-10]]
                fields = fields_of(context, "ada", "PUT", UPDATE, **announcing(blob))
                again = await http.put(UPDATE, content=pieces(blob), headers=fields)
    assert again.json()["digest"] == digest_of(blob)
    (refused,) = (line for line in lines if line["event"] == "request.refused")
    assert (refused["code"], refused["who"]) == ("body_too_slow", "ada")


async def test_an_upload_that_drips_is_broken_off(context: Context) -> None:
    """A byte now and then is no silence, and too slow all the same."""
    begin(context)
    async with sending(create_app(impatient(context))) as (sender, _):
        sender.begin("PUT", UPDATE, fields_of(context, "ada", "PUT", UPDATE, **announcing(adapter(1.0))))
        await sender.drip()
        status, problem = await sender.answer()
        assert await sender.is_closed()
    assert (status, problem.code) == (408, "body_too_slow")


@pytest.mark.parametrize("who", ["worker", None])
async def test_json_that_stops_is_broken_off(who: str | None, context: Context) -> None:
    """A small body is no other: it is read before anybody knows who sends it, and by nobody's code but FastAPI's."""
    with capture_logs() as lines:
        async with sending(create_work_app(impatient(context))) as (sender, _):
            fields = fields_of(context, who, "POST", "/v1/work/lease", **{"Content-Length": "100"})
            sender.begin("POST", "/v1/work/lease", fields | {"Content-Type": "application/json"})
            sender.writer.write(b'{"worker": ')
            status, problem = await sender.answer()
    assert (status, problem.code) == (408, "body_too_slow")
    assert [(line["code"], line["who"]) for line in lines] == [("body_too_slow", "127.0.0.1")]


async def test_a_slow_body_that_nobody_wants_does_not_keep_the_answer(context: Context) -> None:
    """Who is refused for another reason is told that one, however slowly the rest comes."""
    begin(context)
    async with sending(create_app(impatient(context))) as (sender, _):
        path = UPDATE.replace(f"/{RUN}/", "/other/")
        sender.begin("PUT", path, fields_of(context, "ada", "PUT", path, **announcing(adapter(1.0))))
        status, problem = await sender.answer()
    assert (status, problem.code) == (404, "not_found")


async def test_a_long_poll_is_no_slow_body(context: Context) -> None:
    """A request without a body may wait for its answer for as long as it asked to."""
    context.lifecycle.create(RUN, terms_of(), actor="operator")
    with served(create_app(impatient(context))) as port:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            path = f"/v1/wanted?wait_seconds={3 * SILENCE_SECONDS:.1f}"
            answer = await http.get(path, headers=fields_of(context, "ada", "GET", path))
    assert answer.json()["assignment"] is None


async def test_what_is_no_request_passes() -> None:
    """What a server tells an app of its own start and end is nobody's body."""
    passed = []

    async def app(*arguments: object) -> None:
        passed.append(arguments)

    arguments = ({"type": "lifespan"}, object(), object())
    await SlowBodies(app, silence_seconds=1, bytes_per_second=1)(*arguments)
    assert passed == [arguments]
