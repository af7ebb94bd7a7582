"""One upload of each sender at a time: the newest takes the place of the one before.

An agent whose connection broke goes on at once, and does not wait until the coordinator gives the broken one up. One
that begins many has no more than one of them on the disk. Nobody is told how far an upload has come while it goes on.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.errors import UploadSuperseded


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
        self._superseded = False
        self._waiting: asyncio.Timeout | None = None

    def give_way(self) -> None:
        """Wait for no more of the body; to be called once."""
        self._superseded = True
        if self._waiting is not None:
            self._waiting.reschedule(0.0)

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Return the body itself."""
        return self

    async def __anext__(self) -> bytes:
        """Return what has come next; nothing but the wait for it is cancelled, and no thread that writes."""
        if not self._superseded:
            try:
                async with asyncio.timeout(None) as self._waiting:
                    return await anext(self._body)
            except TimeoutError:
                pass
            finally:
                self._waiting = None
        raise UploadSuperseded(
            "its sender has begun a newer upload, which takes the place of this one: send one at a time"
        )
