"""Blobs over raw PUT and GET: streamed, length and digest known beforehand (docs/protocol.md, "Blobs").

An upload that broke off goes on: HEAD says after how many bytes, and PATCH brings the others.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from fastapi import Depends, Header, Request, Response
from fastapi.responses import FileResponse
from starlette.requests import ClientDisconnect

from services.coordinator.blobs import IncomingBlob
from services.coordinator.ports import Blobs
from services.coordinator.uploads import Uploads
from shared.errors import BlobTooLarge, BodyTooSlow, LengthRequired, MessageInvalid, UploadSuperseded
from shared.protocol.digests import from_field, to_field
from shared.protocol.resumption import COMPLETE_FIELD, OFFSET_FIELD, PARTIAL_TYPE

BATCH_BYTES = 1 << 18
SENT_BYTES = 1 << 20
MAX_DRAINED_BYTES = 64 << 20
MAX_DIGITS = 40  # Python reads up to 4,300 of them, and raises at more

# Blobs are streamed against the length that they must have, not buffered against the app's limit.
UNLIMITED = 1 << 128

BLOB_TYPE = "application/vnd.safetensors"
RECEIVES_A_BLOB = {
    "requestBody": {"required": True, "content": {BLOB_TYPE: {"schema": {"type": "string", "format": "binary"}}}}
}
RECEIVES_NUMBERS = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
RECEIVES_THE_REST = {
    "requestBody": {"required": True, "content": {PARTIAL_TYPE: {"schema": {"type": "string", "format": "binary"}}}}
}
TELLS_THE_OFFSET: dict[int | str, dict[str, Any]] = {
    204: {
        "description": "How far the upload has come",
        "headers": {OFFSET_FIELD: {"schema": {"type": "integer"}}, COMPLETE_FIELD: {"schema": {"type": "string"}}},
    }
}
SENDS_A_BLOB: dict[int | str, dict[str, Any]] = {
    200: {"content": {BLOB_TYPE: {"schema": {"type": "string", "format": "binary"}}}},
    206: {"description": "A range of the blob"},
    304: {"description": "The caller has it"},
    416: {"description": "There is no such range"},
}


async def announced_digest(
    content_digest: Annotated[str, Header(description="RFC 9530: sha-256=:<base64>:")],
) -> str:
    """Return the digest that the request announces for its body."""
    return from_field(content_digest)


async def announced_length(request: Request) -> int:
    """Return the length that the request announces for its body.

    Raises:
        LengthRequired: it announces none.
        MessageInvalid: the body is encoded; blobs travel as they are.
    """
    if request.headers.get("content-encoding", "identity") != "identity":
        raise MessageInvalid("blobs travel unencoded: send no Content-Encoding")
    length = request.headers.get("content-length", "")
    if not length.isdecimal() or len(length) > MAX_DIGITS:
        raise LengthRequired("a blob must announce its length: send Content-Length")
    return int(length)


Chunks: TypeAlias = AsyncIterator[bytes]


async def body(request: Request) -> AsyncIterator[Chunks]:
    """Give the request's body, and read what a route has left of it before the answer leaves.

    Whoever is refused before it has sent everything may else see a broken connection, and not why. An error handler
    of the app could not do it: it does not know what was read, and would wait for ever for the rest of a long poll.
    """
    chunks = request.stream()
    try:
        yield chunks
    except (BlobTooLarge, UploadSuperseded):
        raise  # a body that may not come is not read either
    except Exception:
        await _drain(chunks)
        raise
    await _drain(chunks)


async def whole_digest(
    repr_digest: Annotated[str, Header(description="Of the whole upload, RFC 9530: sha-256=:<base64>:")],
) -> str:
    """Return the digest of the upload that the request is about."""
    return from_field(repr_digest)


AnnouncedDigest = Annotated[str, Depends(announced_digest)]
AnnouncedLength = Annotated[int, Depends(announced_length)]
WholeDigest = Annotated[str, Depends(whole_digest)]
Body = Annotated[Chunks, Depends(body, scope="function")]


@dataclass(frozen=True)
class Announced:
    """What a request says of an upload: digest and size of the whole, and from which byte on it carries the rest."""

    digest: str
    size: int
    offset: int
    carried: str


async def all_of_it(digest: AnnouncedDigest, size: AnnouncedLength) -> Announced:
    """Return what a request announces that carries all of an upload."""
    return Announced(digest, size, 0, digest)


async def rest_of_it(
    carried: AnnouncedDigest,
    length: AnnouncedLength,
    digest: WholeDigest,
    upload_offset: Annotated[int, Header(ge=0, lt=UNLIMITED, description="How many bytes are there already.")],
    upload_complete: Annotated[Literal["?1"], Header(description="That nothing comes after these bytes.")],  # noqa: ARG001
) -> Announced:
    """Return what a request announces that carries the rest of an upload."""
    return Announced(digest, upload_offset + length, upload_offset, carried)


AllOfIt = Annotated[Announced, Depends(all_of_it)]
RestOfIt = Annotated[Announced, Depends(rest_of_it)]


def incoming(blobs: Blobs, sender: str, announced: Announced) -> IncomingBlob:
    """Return the blob that a request brings."""
    return blobs.upload(
        size=announced.size,
        sender=sender,
        digest=announced.digest,
        offset=announced.offset,
        carried=announced.carried,
    )


async def receive(chunks: Chunks, into: IncomingBlob, write: Callable[[bytearray], None]) -> None:
    """Hand a body to ``write``, in batches and in a thread, so that the loop stays responsive.

    What has come of a body that breaks off stays, and its sender may go on.
    """
    await asyncio.to_thread(into.catch_up)
    batch = bytearray()
    try:
        async for chunk in chunks:
            batch += chunk
            if len(batch) >= BATCH_BYTES:
                full, batch = batch, bytearray()
                await asyncio.to_thread(write, full)
    except (ClientDisconnect, BodyTooSlow, UploadSuperseded):
        await asyncio.to_thread(write, batch)
        into.leave()
        raise
    except asyncio.CancelledError:  # the coordinator is told to stop
        into.leave()
        raise
    await asyncio.to_thread(write, batch)


async def offset(uploads: Uploads, blobs: Blobs, sender: str, digest: str) -> Response:
    """Return the answer that says how much of an upload is durable, now that nothing of it is under way."""
    async with uploads.newest(sender, _nothing()):
        durable = await asyncio.to_thread(blobs.partial.durable, sender, digest)
    fields = {OFFSET_FIELD: str(durable), COMPLETE_FIELD: "?0", "Cache-Control": "no-store"}
    return Response(status_code=204, headers=fields)


async def _nothing() -> Chunks:
    return
    yield b""


async def _drain(chunks: Chunks) -> None:
    """Read what nobody needs; a body that goes on for long, or comes slowly, is broken off all the same."""
    drained = 0
    with suppress(BodyTooSlow):
        async for chunk in chunks:
            drained += len(chunk)
            if drained > MAX_DRAINED_BYTES:
                return


def send(path: Path, digest: str, if_none_match: str | None) -> Response:
    """Return the response that sends an immutable blob, or says that the caller has it."""
    headers = {
        "ETag": f'"{digest}"',
        "Cache-Control": "private, max-age=31536000, immutable",
        "Repr-Digest": to_field(digest),
    }
    known = {tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")}
    if known & {headers["ETag"], "*"}:
        return Response(status_code=304, headers=headers)
    response = FileResponse(path, media_type=BLOB_TYPE, headers=headers)
    response.chunk_size = SENT_BYTES  # each chunk is read in a thread: a hundred hops an adapter would be felt
    return response
