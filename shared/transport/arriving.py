"""What comes back of a request, at a pace: an answer that drips is given up like one that does not come."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import httpx

from shared.answers import MOST_BYTES
from shared.egress import AWAITED, Announcement
from shared.errors import MessageInvalid
from shared.pace import Pace, paced
from shared.protocol.messages import LONGEST_POLL_SECONDS

# So that a coordinator that says nothing for this long is gone.
SILENCE_SECONDS = LONGEST_POLL_SECONDS + 15.0

# How fast what comes must come, but for that much silence: below the worst link.
BYTES_PER_SECOND = 4096.0

Trace: TypeAlias = Callable[[str, Mapping[str, Any]], Awaitable[None]]


@asynccontextmanager
async def head_in_time(announcement: Announcement, *, silence_seconds: float) -> AsyncIterator[Trace]:
    """Give what is told of a request's way, and wait no longer for the head of its answer than for its first byte."""
    try:
        async with asyncio.timeout(None) as waiting:

            async def trace(event: str, info: Mapping[str, Any]) -> None:
                await announcement(event, info)
                if event == AWAITED:
                    waiting.reschedule(asyncio.get_running_loop().time() + silence_seconds)

            yield trace
    except TimeoutError:
        raise httpx.ReadTimeout("the head of the answer comes too slowly") from None


async def coming(body: AsyncIterator[bytes], *, silence_seconds: float) -> AsyncIterator[bytes]:
    """Yield the body of an answer, as long as it comes at a pace."""
    try:
        async for piece in paced(body, Pace(silence_seconds, BYTES_PER_SECOND)):
            yield piece
    except TimeoutError:
        raise httpx.ReadTimeout("the answer comes too slowly") from None


async def kept(response: httpx.Response, *, silence_seconds: float) -> httpx.Response:
    """Return an answer with its body in memory; one that is packed, although none was asked for, is not read.

    Raises:
        MessageInvalid: it is longer than any of ours.
    """
    body, fields = bytearray(), response.headers.copy()
    if fields.pop("Content-Encoding", None) is None:
        async for piece in coming(response.aiter_bytes(), silence_seconds=silence_seconds):
            body += piece
            if len(body) > MOST_BYTES:
                raise MessageInvalid(
                    f"{response.url} answered with more than {MOST_BYTES} bytes: is this the coordinator's address?"
                )
    return httpx.Response(response.status_code, headers=fields, content=bytes(body), request=response.request)
