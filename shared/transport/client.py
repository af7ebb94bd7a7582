"""Requests to one coordinator: what each carries, and what goes on where it broke off.

Retrying any request is safe (docs/protocol.md, "Retries"), so a lost connection, a restarting coordinator and a
"try again" are waited out here and nowhere else; whoever wants to show it is told. Two seams sit in every request's
way: an ``Authenticator`` says who asks, and a ``Ledger`` is told what leaves this machine before it leaves. It is told
once a connection is there, so that what never left is not in it, and by the head that is written, to the byte.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import TypeAlias

import httpx
from pydantic import BaseModel

from shared.answers import Answer, parse, time_told
from shared.backoff import SOON, Backoff
from shared.credentials import Authenticator
from shared.egress import NO_BODY, Announcement, Egress, Ledger
from shared.errors import (
    BlobCorrupt,
    BlobTooLarge,
    ConfigurationError,
    DigestMismatch,
    EgressUnrecorded,
    MessageInvalid,
    RemoteProblem,
)
from shared.folders import file_digest, is_whole
from shared.protocol.digests import DIGEST_FIELD, digest_of, to_field
from shared.protocol.messages import PROTOCOL_FIELD, PROTOCOL_VERSION, Health
from shared.protocol.resumption import OFFSET_FIELD, PARTIAL_TYPE, append_fields, offset_fields
from shared.transport.arriving import SILENCE_SECONDS, coming, head_in_time, kept
from shared.transport.part_files import PartFile
from shared.transport.retries import OnRetry, Progress, Retries, refusal, tell_nobody

# Written in one go: at the slowest pace it takes less than the silence after which a connection is given up. An upload
# that is no longer is sent whole again, because asking how much of it has come takes as long.
PIECE_BYTES = 1 << 17
AS_IT_IS = {"Accept-Encoding": "identity"}
PARTIAL_CONTENT, NO_SUCH_RANGE = 206, 416
NO_FIELDS: Mapping[str, str] = {}

Params: TypeAlias = Mapping[str, str | int | float | list[str]]

# Called with how many bytes of a blob have come.
OnLength: TypeAlias = Callable[[int], None]


class Transport:
    """Requests to one coordinator."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        authenticator: Authenticator,
        ledger: Ledger,
        *,
        patience_seconds: float | None,
        on_retry: OnRetry = tell_nobody,
        backoff: Backoff = SOON,
        silence_seconds: float = SILENCE_SECONDS,
    ) -> None:
        """``patience_seconds`` is how long a request is retried; None means until it is answered.

        ``backoff`` says how long to wait in between, and is added to what the coordinator asks for (Retry-After). An
        attempt is over when the other side has said nothing for ``silence_seconds``.
        """
        self._client = client
        self._authenticator = authenticator
        self._ledger = ledger
        self._silence_seconds = silence_seconds
        self._retries = Retries(client.base_url, patience_seconds=patience_seconds, on_retry=on_retry, backoff=backoff)

    async def call(
        self,
        method: str,
        path: str,
        answer: type[Answer],
        *,
        body: BaseModel | None = None,
        params: Params | None = None,
    ) -> Answer:
        """Send a JSON request and return its answer.

        Raises:
            RemoteProblem: the coordinator said no.
            Unreachable: nobody answered for as long as the transport is patient.
            ConfigurationError: no request can be made with this address and this credential.
            MessageInvalid: the answer is not what the protocol says.
            EgressError: the ledger does not let the request leave.
        """
        content = b"" if body is None else body.model_dump_json().encode()
        kind = {} if body is None else {"Content-Type": "application/json"}
        request = Egress(method, _target(path, params), len(content), digest_of(content))
        async for attempt in self._retries.attempts(path):
            with attempt:
                async with self._sent(request, content, kind) as response:
                    came = await self._kept(response)
        return parse(came.content, answer, url=str(came.url))

    async def upload(
        self,
        path: str,
        file: Path,
        answer: type[Answer],
        *,
        digest: str,
        kind: str = "application/vnd.safetensors",
        params: Params | None = None,
    ) -> Answer:
        """PUT the file's bytes, which are of this media type, and whose digest is ``digest``.

        Where that breaks off, what the other side has kept is not sent again, unless it is little.

        Raises:
            BlobCorrupt: the file has other bytes than ``digest`` names.
            RemoteProblem, Unreachable, ConfigurationError, MessageInvalid, EgressError: as for ``call``.
        """
        if not await asyncio.to_thread(is_whole, file, digest):
            raise BlobCorrupt(f"{file} no longer has the bytes that were to be sent from it: nothing of it was sent")
        size = await asyncio.to_thread(lambda: file.stat().st_size)
        target, gone_on, offset = _target(path, params), Progress(), 0
        async for attempt in self._retries.attempts(path, gone_on):
            with attempt:
                if attempt.num > 1 and size > PIECE_BYTES:
                    there = await self._offset(target, digest, size)
                    gone_on.made, offset = there > offset, there
                request = await asyncio.to_thread(_part_of, file, size, target, digest=digest, offset=offset)
                fields = {"Content-Type": PARTIAL_TYPE if offset else kind, "Content-Length": str(request.bytes)}
                async with self._sent(request, _pieces(file, offset), fields) as response:
                    came = await self._kept(response)
        return parse(came.content, answer, url=str(came.url))

    async def download(
        self, path: str, into: Path, *, digest: str, size: int | None = None, on_length: OnLength = tell_nobody
    ) -> int:
        """GET a blob into the file ``into``, which appears only whole and checked; return its length in bytes.

        What has come lies beside it until then, and is gone on with, by the next process too. ``size`` is the length
        that it must have, where that is known beforehand: nothing after it is written. ``on_length`` is told how much
        there is so far, and begins at 0 again where the blob does.

        Raises:
            BlobTooLarge: more came than there should be.
            DigestMismatch: the bytes that came are not those that ``digest`` names.
            RemoteProblem, Unreachable, ConfigurationError, EgressError: as for ``call``.
        """
        part, gone_on = PartFile(into, digest), Progress()
        async for attempt in self._retries.attempts(path, gone_on):
            with attempt:
                began = await asyncio.to_thread(part.catch_up)
                gone_on.made = False
                if not (began and part.is_whole):
                    async with self._resumed(path, part, digest) as response:
                        async for piece in coming(response.aiter_raw(), silence_seconds=self._silence_seconds):
                            if size is not None and part.length + len(piece) > size:
                                part.drop()
                                raise BlobTooLarge(f"{path} goes on after the {size} bytes that it may have")
                            part.append(piece)
                            on_length(part.length)
                            gone_on.made = True
                _finish(part, path, began)
        return part.length

    async def time_there(self) -> datetime | None:
        """Return what time it is at the coordinator, to the second, if it says so; errors are those of ``call``."""
        async for attempt in self._retries.attempts("/healthz"):
            with attempt:
                async with self._sent(_asking("/healthz")) as response:
                    came = await self._kept(response)
        parse(came.content, Health, url=str(came.url))
        return time_told(came.headers.get("Date"))

    @asynccontextmanager
    async def _sent(
        self, request: Egress, content: bytes | AsyncIterator[bytes] = b"", kind: Mapping[str, str] = NO_FIELDS
    ) -> AsyncIterator[httpx.Response]:
        """Send a request once, announced to the ledger, and give the answer, a good one, before its body is read."""
        said = {PROTOCOL_FIELD: str(PROTOCOL_VERSION), DIGEST_FIELD: to_field(request.digest)}
        fields = {**AS_IT_IS, **kind, **said, **request.fields, **self._authenticator.fields(request)}
        announcement = Announcement(request, self._ledger)
        async with AsyncExitStack() as stack:
            async with head_in_time(announcement, silence_seconds=self._silence_seconds) as trace:
                stream = self._client.stream(
                    request.method, request.target, content=content, headers=fields, extensions={"trace": trace}
                )
                response = await stack.enter_async_context(stream)
            if not announcement.made:
                raise EgressUnrecorded(
                    f"a request to {self._client.base_url} left and the ledger was not told: install the releases of "
                    "httpx and httpcore that constraints.txt names"
                )
            if not response.is_success:
                raise refusal(await self._kept(response))
            yield response

    async def _kept(self, response: httpx.Response) -> httpx.Response:
        return await kept(response, silence_seconds=self._silence_seconds)

    @asynccontextmanager
    async def _resumed(self, path: str, part: PartFile, digest: str) -> AsyncIterator[httpx.Response]:
        """Ask for what has not come of a blob yet; a part that is no beginning of it is dropped."""
        wanted = {"Range": f"bytes={part.length}-", "If-Range": f'"{digest}"'} if part.length else NO_FIELDS
        try:
            async with self._sent(_asking(path), kind=wanted) as response:
                if response.status_code != PARTIAL_CONTENT:
                    part.drop()
                elif not response.headers.get("Content-Range", "").startswith(f"bytes {part.length}-"):
                    part.drop()
                    raise httpx.RemoteProtocolError("another range came than was asked for", request=response.request)
                yield response
        except httpx.HTTPStatusError as error:
            if error.response.status_code == NO_SUCH_RANGE:
                part.drop()
            raise

    async def _offset(self, target: str, digest: str, size: int) -> int:
        """Ask how many bytes of an upload are durable.

        None are where that is refused: there is no reason in such an answer, and PUT is told it.
        """
        request = Egress("HEAD", target, 0, NO_BODY, offset_fields(digest))
        try:
            async with self._sent(request) as response:
                told = response.headers.get(OFFSET_FIELD, "")
        except RemoteProblem:
            return 0
        if not told.isdecimal() or len(told) > len(str(size)) or int(told) > size:
            raise MessageInvalid(
                f"{response.url} has {told[:40]!r} of {size} bytes: is this the coordinator's address?"
            )
        return int(told)


def _target(path: str, params: Params | None) -> str:
    try:
        return str(httpx.URL(path, params=params))
    except httpx.InvalidURL as error:
        raise ConfigurationError(f"no request for {path[:100]!r} can be made ({error})") from None


def _asking(path: str) -> Egress:
    return Egress("GET", _target(path, None), 0, NO_BODY)


def _part_of(file: Path, size: int, target: str, *, digest: str, offset: int) -> Egress:
    """Return the request that brings a file of this digest, or the rest of it."""
    if offset == 0:
        return Egress("PUT", target, size, digest)
    return Egress("PATCH", target, size - offset, file_digest(file, offset=offset), append_fields(digest, offset))


async def _pieces(file: Path, offset: int) -> AsyncIterator[bytes]:
    with file.open("rb") as source:
        source.seek(offset)
        while piece := source.read(PIECE_BYTES):
            yield piece


def _finish(part: PartFile, path: str, began: int) -> None:
    """Let a file appear whose last byte has come; what had lain here before, and may be damaged, is fetched again."""
    try:
        part.finish(path)
    except DigestMismatch:
        if not began:
            raise
        raise httpx.RemoteProtocolError("what was kept of it was damaged") from None
