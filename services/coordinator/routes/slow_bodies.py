"""Bodies that come too slowly are broken off: nobody may hold a task, a file or an upload's place for nothing.

uvicorn waits for ever. Only the time in which the coordinator itself waits for its sender counts, so that a sender is
not blamed for a slow disk.
"""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.errors import BodyTooSlow
from shared.pace import Pace


class SlowBodies:
    """An ASGI app around another one, whose requests' bodies raise BodyTooSlow where they are read."""

    def __init__(self, app: ASGIApp, *, silence_seconds: float, bytes_per_second: float) -> None:
        self._app = app
        self._silence_seconds = silence_seconds
        self._bytes_per_second = bytes_per_second

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        pace = Pace(self._silence_seconds, self._bytes_per_second)
        clock = asyncio.get_running_loop().time
        coming = True

        async def receive_in_time() -> Message:
            nonlocal coming
            if not coming:
                return await receive()  # which tells when the client goes, and may take as long as it likes
            began = clock()
            try:
                async with asyncio.timeout(pace.patience_seconds):
                    message = await receive()
            except TimeoutError:
                raise BodyTooSlow(
                    f"the body was broken off after {pace.bytes} bytes: it must bring {pace.bytes_per_second:g} a "
                    f"second, and not be silent for {pace.silence_seconds:g} seconds; send it again, by a better way"
                ) from None
            pace.waited_seconds += clock() - began
            pace.bytes += len(message.get("body", b""))
            coming = message.get("more_body", False)
            return message

        await self._app(scope, receive_in_time, send)
