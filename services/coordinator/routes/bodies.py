"""Blobs over raw PUT and GET: streamed, length and digest known beforehand (docs/protocol.md, "Blobs")."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from fastapi import Depends, Header, Request, Response
from fastapi.responses import FileResponse

from shared.errors import BlobTooLarge, BodyTooSlow, LengthRequired, MessageInvalid, UploadSuperseded
from shared.protocol.digests import from_field, to_field

BATCH_BYTES = 1 << 20
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


AnnouncedDigest = Annotated[str, Depends(announced_digest)]
AnnouncedLength = Annotated[int, Depends(announced_length)]
Body = Annotated[Chunks, Depends(body, scope="function")]


async def receive(chunks: Chunks, write: Callable[[bytearray], None]) -> None:
    """Hand a body to ``write``, in batches and in a thread, so that the loop stays responsive."""
    batch = bytearray()
    async for chunk in chunks:
        batch += chunk
        if len(batch) >= BATCH_BYTES:
            await asyncio.to_thread(write, batch)
            batch = bytearray()
    await asyncio.to_thread(write, batch)


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
    response.chunk_size = BATCH_BYTES  # each chunk is read in a thread: a hundred hops an adapter would be felt
    return response
