"""One upload of each agent at a time: the newest takes the place of the one before.

An agent whose connection broke sends again at once, and does not wait until the coordinator gives the broken one up.
One that begins many has no more than one of them on the disk.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from shared.errors import UploadSuperseded


class Uploads:
    """The uploads of one event loop that are under way."""

    def __init__(self) -> None:
        self._newest: dict[str, Upload] = {}

    @contextmanager
    def newest(self, agent: str, body: AsyncIterator[bytes]) -> Iterator["Upload"]:
        """Give the body of an agent's upload, and break off the one before."""
        if agent in self._newest:
            self._newest[agent].give_way()
        upload = self._newest[agent] = Upload(body)
        try:
            yield upload
        finally:
            if self._newest.get(agent) is upload:
                del self._newest[agent]


class Upload:
    """The body of an upload; it raises UploadSuperseded where it is read once a newer one has begun."""

    def __init__(self, body: AsyncIterator[bytes]) -> None:
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
            "the agent has begun a newer upload, which takes the place of this one: an agent sends one at a time"
        )
