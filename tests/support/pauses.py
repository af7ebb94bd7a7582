"""Pauses of loops that go on for ever, without sleeping."""


class Enough(Exception):
    """Ends a loop that goes on for ever."""


class Pauses:
    """Takes a loop's pauses, and ends it after a number of them."""

    def __init__(self, most: int) -> None:
        self.seconds: list[float] = []
        self._most = most

    async def __call__(self, seconds: float) -> None:
        """Note a pause."""
        self.seconds.append(seconds)
        if len(self.seconds) == self._most:
            raise Enough
