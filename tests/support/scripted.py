"""A coordinator that follows a script, request by request, and a transport that talks to it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
from pydantic import BaseModel

from shared.backoff import SOON, Backoff
from shared.credentials import BearerToken
from shared.egress import Egress, TrafficCount
from shared.protocol.digests import digest_of
from shared.transport import OnRetry, Transport, WithoutSocket, tell_nobody

BLOB = bytes(range(256)) * 3000
DIGEST = digest_of(BLOB)


class Greeting(BaseModel):
    """An answer."""

    text: str


class Question(BaseModel):
    """A body."""

    name: str


HELLO = httpx.Response(200, json={"text": "hello"})


class Body(httpx.AsyncByteStream):
    """A body as it comes from the wire: in pieces, and perhaps breaking off."""

    def __init__(self, content: bytes, fault: Exception | None = None) -> None:
        self._content, self._fault = content, fault

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the pieces."""
        for start in range(0, len(self._content), 100_000):
            yield self._content[start : start + 100_000]
        if self._fault is not None:
            raise self._fault


def blob_answer(content: bytes, fault: Exception | None = None) -> httpx.Response:
    """Return an answer whose body is streamed."""
    return httpx.Response(200, stream=Body(content, fault))


def answer(status: int, code: str, **fields: str) -> httpx.Response:
    """Return a problem document."""
    problem = {"title": "t", "status": status, "code": code, "detail": "what happened"}
    return httpx.Response(status, json=problem, headers=fields)


@dataclass
class Coordinator:
    """The other side: answers, or faults, in the order that a test writes down."""

    script: list[httpx.Response | BaseException]
    requests: list[httpx.Request] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        """Take a request and act the next line of the script."""
        self.requests.append(request)
        self.bodies.append(await request.aread())
        act = self.script.pop(0)
        if isinstance(act, BaseException):
            raise act
        return act


@dataclass
class Journal:
    """A ledger that remembers what had already left when each request was announced."""

    other: Coordinator
    lines: list[tuple[Egress, int]] = field(default_factory=list)

    def record(self, request: Egress, **_: object) -> None:
        """Write a line."""
        self.lines.append((request, len(self.other.requests)))


@asynccontextmanager
async def talking_to(
    other: Coordinator,
    *,
    ledger: object | None = None,
    authenticator: object = BearerToken("token"),
    on_retry: OnRetry = tell_nobody,
    backoff: Backoff = SOON,
) -> AsyncIterator[Transport]:
    """Open a transport to a scripted coordinator."""
    inside = WithoutSocket(httpx.MockTransport(other))
    async with httpx.AsyncClient(transport=inside, base_url="http://coordinator") as client:
        yield Transport(
            client,
            authenticator,
            ledger or TrafficCount(),
            patience_seconds=None,
            on_retry=on_retry,
            backoff=backoff,
        )
