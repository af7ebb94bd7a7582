"""What leaves this machine, request by request: what a ``Ledger`` is told before the bytes go."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Egress:
    """A request that is about to leave this machine: all of it but its body; a retry is another one.

    ``target`` is the path with the query, encoded as they leave (RFC 9110, section 7.1).
    """

    method: str
    target: str
    bytes: int
    digest: str


class Ledger(Protocol):
    """Is told of every request before its bytes leave."""

    def record(self, request: Egress) -> None:
        """Take note of a request; raising stops it."""
        ...


@dataclass
class TrafficCount:
    """Counts requests and the bytes of their bodies."""

    requests: int = 0
    bytes: int = 0

    def record(self, request: Egress) -> None:
        """Count a request."""
        self.requests += 1
        self.bytes += request.bytes
