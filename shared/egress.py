"""What leaves this machine, request by request: what a ``Ledger`` is told at the moment before the first byte goes."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

# The event of httpcore's ``trace`` extension that comes when a connection is there, TLS and all, and nothing was sent.
LEAVING = "http11.send_request_headers.started"
# The event that comes when all of a request was sent, and the head of the answer is waited for.
AWAITED = "http11.receive_response_headers.started"
NO_BODY = f"sha256:{hashlib.sha256().hexdigest()}"


@dataclass(frozen=True)
class Egress:
    """A request that is about to leave this machine: all of it but its body; a retry is another one.

    ``target`` is the path with the query, encoded as they leave (RFC 9110, section 7.1). ``fields`` are those by which
    it goes on with an upload, if it does (``protocol/resumption.py``).
    """

    method: str
    target: str
    bytes: int
    digest: str
    fields: Mapping[str, str] = field(default_factory=dict)


class Ledger(Protocol):
    """Is told of every request before its bytes leave."""

    def record(self, request: Egress, *, to: str, head_bytes: int) -> None:
        """Take note of a request to the origin ``to``; raising stops it.

        ``head_bytes`` is the length of its request line and header fields. Where a proxy is between, ``request`` is
        what the proxy is sent: a CONNECT of its own, or a target with the other side's origin before its path.
        """
        ...


@dataclass
class TrafficCount:
    """Counts requests and their bytes, heads and bodies."""

    requests: int = 0
    bytes: int = 0

    def record(self, request: Egress, *, to: str, head_bytes: int) -> None:  # noqa: ARG002 - whoever it was
        """Count a request."""
        self.requests += 1
        self.bytes += head_bytes + request.bytes


class Announcement:
    """Tells a ledger of one request: httpcore's ``trace``, called with each event on the way of the request."""

    def __init__(self, request: Egress, ledger: Ledger) -> None:
        self._request = request
        self._ledger = ledger
        self.made = False

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        """Take note of an event; what the ledger raises ends the request."""
        if event != LEAVING:
            return
        leaving = info["request"]
        method, target = leaving.method.decode(), leaving.url.target.decode()
        if method == "CONNECT":  # asks a proxy for a way to the other side
            request = Egress(method, target, 0, NO_BODY)
        else:
            request = replace(self._request, target=target)
            self.made = True
        self._ledger.record(
            request, to=str(leaving.url.origin), head_bytes=_head_bytes(method, target, leaving.headers)
        )


def _head_bytes(method: str, target: str, fields: Iterable[tuple[bytes, bytes]]) -> int:
    """Return the length of a request's head as h11 writes it: each line ends with CRLF, and an empty one comes last."""
    return len(f"{method} {target} HTTP/1.1\r\n") + sum(len(name) + len(value) + 4 for name, value in fields) + 2
