"""One upload of each sender at a time: the newest takes the place of the one before.

An agent whose connection broke goes on at once, and does not wait until the coordinator gives the broken one up. One
that begins many has no more than one of them on the disk. Nobody is told how far an upload has come while it goes on.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.errors import UploadSuperseded

# What a connection that broke has brought may still lie here unread when its sender comes again: it is read as long as
# it comes without a gap, because what is not read has to be sent again.
GAP_SECONDS = 0.1
ARRIVED_SECONDS = 5.0


class Uploads:
    """The uploads of one event loop that are under way."""

    def __init__(self) -> None:
        self._newest: dict[str, Upload] = {}

    @asynccontextmanager
    async def newest(self, sender: str, body: AsyncIterator[bytes]) -> AsyncIterator["Upload"]:
        """Give the body of a sender's upload once the one before, which is broken off, has ended."""
        before = self._newest.get(sender)
        upload = self._newest[sender] = Upload(body)
        try:
            if before is not None:
                before.give_way()
                await before.ended.wait()
            yield upload
        finally:
            upload.ended.set()
            if self._newest.get(sender) is upload:
                del self._newest[sender]


class Upload:
    """The body of an upload; it raises UploadSuperseded where it is read once a newer one has begun."""

    def __init__(self, body: AsyncIterator[bytes]) -> None:
        self.ended = asyncio.Event()
        self._body = body
        self._until: float | None = None
        self._waiting: asyncio.Timeout | None = None

    def give_way(self) -> None:
        """Take what has come already of the body, and wait for no more; to be called once."""
        now = asyncio.get_running_loop().time()
        self._until = now + ARRIVED_SECONDS
        if self._waiting is not None:
            self._waiting.reschedule(now + GAP_SECONDS)

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Return the body itself."""
        return self

    async def __anext__(self) -> bytes:
        """Return what has come next; nothing but the wait for it is cancelled, and no thread that writes."""
        try:
            async with asyncio.timeout_at(self._patience()) as self._waiting:
                return await anext(self._body)
        except TimeoutError:
            raise UploadSuperseded(
                "its sender has begun a newer upload, which takes the place of this one: send one at a time"
            ) from None
        finally:
            self._waiting = None

    def _patience(self) -> float | None:
        """Return until when to wait; None for as long as this is the newest."""
        if self._until is None:
            return None
        return min(self._until, asyncio.get_running_loop().time() + GAP_SECONDS)
