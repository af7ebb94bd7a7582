"""Times the requests of one agent, and loses those that it is not to send.

It sits where requests are signed, and is told of their answers: an agent has one request under way at a time. Of long
polls it is noted when they were asked and answered; how late that was is known from the run's log, which has the moment
since when there was an answer (``bench.load.report``).
"""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bench.load.losses import READY
from shared.credentials import Authenticator
from shared.egress import Egress
from shared.errors import TransportError

MESSAGE = re.compile(r"/rounds/(?P<round>\d+)/(attempts/(?P<attempt>\d+)/)?(?P<name>[a-z]+)$")
NAMES = re.compile(r"/(sha256:[0-9a-f]+|\d+|load)(?=/|$)")


class Lost(Exception):
    """The agent is gone, in the middle of what it was about to say."""


@dataclass(frozen=True)
class Told:
    """A long poll whose answer was that this message is wanted; moments are seconds since 1970."""

    round: int
    attempt: int
    message: str
    asked_at: float
    told_at: float


@dataclass
class Noted:
    """What many agents have seen."""

    requests: dict[str, list[float]] = field(default_factory=dict)
    told: list[Told] = field(default_factory=list)
    retries: dict[str, int] = field(default_factory=dict)


class Stopwatch:
    """An ``Authenticator`` around an agent's own; ``answered`` is its transport's ``on_retry``."""

    def __init__(self, inner: Authenticator, is_lost: Callable[[int, str], bool], noted: Noted) -> None:
        """``is_lost`` says whether the agent is gone before it sends this message of a round."""
        self._inner = inner
        self._is_lost = is_lost
        self._noted = noted
        self._asking: tuple[str, float] | None = None
        self._polled: tuple[float, float] | None = None

    def fields(self, request: Egress) -> Mapping[str, str]:
        """Sign a request that leaves now, or raise Lost."""
        path, _, query = request.target.partition("?")
        message = MESSAGE.search(path) if request.method == "PUT" else None
        if message is not None:
            number, name = int(message["round"]), message["name"]
            self._learn(number, int(message["attempt"] or 0), name)
            if self._is_lost(number, name):
                raise Lost(f"{name} of round {number}")
        waits = path.endswith("/wanted") and "wait_seconds=0" not in query.split("&")
        kind = "poll" if waits else f"{request.method} {NAMES.sub('/…', path)}"
        signed = self._inner.fields(request)
        self._asking = kind, time.time()
        return signed

    def answered(self, error: TransportError | None) -> None:
        """Take note of an answer, or of why the request is sent again."""
        now = time.time()
        if self._asking is None:
            return
        kind, began = self._asking
        if error is not None:
            self._noted.retries[error.code] = self._noted.retries.get(error.code, 0) + 1
        elif kind == "poll":
            self._polled = began, now
        else:
            self._noted.requests.setdefault(kind, []).append(now - began)
        self._asking = None

    def _learn(self, number: int, attempt: int, name: str) -> None:
        """Take note of the poll before, whose answer it was that this message is wanted."""
        if self._polled is not None and (name == READY or attempt):
            self._noted.told.append(Told(number, attempt, name, *self._polled))
        self._polled = None
