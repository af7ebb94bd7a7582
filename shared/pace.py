"""How fast a body must come, whichever side waits for it: nobody may hold the other for nothing."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass


@dataclass
class Pace:
    """How a body must come, and how it has come so far."""

    silence_seconds: float
    bytes_per_second: float
    bytes: int = 0
    waited_seconds: float = 0.0

    @property
    def patience_seconds(self) -> float:
        """How much longer the next byte may take: so much silence at once, and so much beyond the pace in all."""
        beyond_the_pace = self.waited_seconds - self.bytes / self.bytes_per_second
        return self.silence_seconds - max(0.0, beyond_the_pace)


async def paced(body: AsyncIterator[bytes], pace: Pace) -> AsyncIterator[bytes]:
    """Yield a body as it comes.

    Raises:
        TimeoutError: it comes too slowly.
    """
    clock = asyncio.get_running_loop().time
    while True:
        began = clock()
        async with asyncio.timeout(pace.patience_seconds):
            piece = await anext(body, None)
        if piece is None:
            return
        pace.waited_seconds += clock() - began
        pace.bytes += len(piece)
        yield piece
