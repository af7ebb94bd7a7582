"""Connections of which nobody knows yet whose they are: so many at once, and then the oldest gives way to the newest.

Whoever asks something needs milliseconds to say who they are. What has been open for longer than a thousand others, and
has not, is slow or means no good; a newcomer that is turned away instead may be a member.
"""

import asyncio
from typing import Protocol

import structlog

MOST = 1024
MOST_OF_ADDRESS = 256

# Of what is closed for one reason, one line tells at once, and one more the rest of so many seconds.
SUMMED_SECONDS = 10.0
MOST_NAMED = 32  # addresses; what else is closed meanwhile is told as that of others

log = structlog.get_logger()


class Closable(Protocol):
    """A connection."""

    @property
    def is_known(self) -> bool:
        """Whether somebody whom we know has asked something on it."""
        ...

    def give_way(self) -> None:
        """End it."""
        ...


class Strangers:
    """The connections of one server that were opened lately, those of nobody among them."""

    def __init__(self, *, most: int = MOST, most_of_address: int = MOST_OF_ADDRESS) -> None:
        self._most = most
        self._most_of_address = most_of_address
        self._address_of: dict[Closable, str] = {}
        self._of_address: dict[str, dict[Closable, None]] = {}

    def add(self, connection: Closable, address: str) -> None:
        """Take note of a new connection, and close the oldest where there are too many."""
        self._address_of[connection] = address
        of_address = self._of_address.setdefault(address, {})
        of_address[connection] = None
        if len(of_address) > self._most_of_address:
            self._let_go(next(iter(of_address)))
        elif len(self._address_of) > self._most:
            self._let_go(next(iter(self._address_of)))

    def discard(self, connection: Closable) -> None:
        """Forget a connection, if it was not forgotten before."""
        address = self._address_of.pop(connection, None)
        if address is not None:
            del self._of_address[address][connection]
            if not self._of_address[address]:
                del self._of_address[address]

    def _let_go(self, oldest: Closable) -> None:
        """Forget the oldest, and close it unless it has turned out to be somebody's."""
        self.discard(oldest)
        if not oldest.is_known:
            oldest.give_way()


class Closed:
    """The log of connections that were closed, in sums: a flood of them is no flood of lines."""

    def __init__(self) -> None:
        self._more: dict[tuple[str, str], int] = {}

    def note(self, who: str, why: str) -> None:
        """Take note of a connection that was closed."""
        key = (who, why)
        if key not in self._more and len(self._more) >= MOST_NAMED:
            key = ("others", why)
        if key in self._more:
            self._more[key] += 1
            return
        self._more[key] = 0
        log.info("connection.closed", who=key[0], detail=why, connections=1)
        asyncio.get_running_loop().call_later(SUMMED_SECONDS, self._tell, key)

    def _tell(self, key: tuple[str, str]) -> None:
        if more := self._more.pop(key):
            log.info("connection.closed", who=key[0], detail=key[1], connections=more)
