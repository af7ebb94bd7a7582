"""What a service logs: one event a line on standard error, and of trouble on the way only its beginning and its end.

Lines about a run, a round, an agent or a piece of work say which, by the same keys everywhere (docs/monitoring.md,
"Logs"), and no line has data: of a crash there is the traceback, without the values of variables.
"""

import os
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Annotated, Literal, TypeAlias

import structlog
from pydantic import Field
from structlog.typing import EventDict, Processor

from shared.errors import StorageError, TransportError, Unreachable
from shared.printable import printable

log = structlog.get_logger()


LogFormat: TypeAlias = Annotated[
    Literal["text", "json"],
    Field(description="How lines of the log are written: for people, or as a JSON document each."),
]


def log_to_stderr(form: LogFormat = "text", **always: str) -> None:
    """Set the log of this process up, for where a service starts; ``always`` is in each of its lines."""

    def whose(_logger: object, _method: str, event: EventDict) -> EventDict:
        return {**always, **event}

    structlog.configure(
        processors=[
            whose,
            structlog.contextvars.merge_contextvars,
            _printable,
            structlog.processors.add_log_level,
            structlog.processors.StackInfoRenderer(),
            structlog.dev.set_exc_info,
            *_rendered(form),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    # What a library will change one day is for its developers, and nothing that whoever runs a service can mend.
    warnings.simplefilter("ignore", FutureWarning)


def _rendered(form: LogFormat) -> list[Processor]:
    if form == "json":
        return [
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ]
    return [
        structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False),
        # Not the one that structlog takes by itself: it shows the values of variables, and those may be data.
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty() and not os.environ.get("NO_COLOR"),
            exception_formatter=structlog.dev.plain_traceback,
        ),
    ]


def _printable(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Be a processor that lets no text of a stranger add a line, or do anything to whoever reads the log."""
    return {name: printable(value) if isinstance(value, str) else value for name, value in event.items()}


# What goes on is said again so often, with how many times it has happened.
SAID_AGAIN_SECONDS = 3600.0


class DiskLog:
    """Logs when this process's disk takes nothing more, and when it does again, once each."""

    def __init__(self) -> None:
        self._code: str | None = None

    def __call__(self, problem: StorageError | None) -> None:
        """Take note of why nothing can be stored, or of something that was."""
        if problem is not None and problem.code != self._code:
            log.warning("disk.trouble", code=problem.code, detail=str(problem))
        if problem is None and self._code is not None:
            log.info("disk.well_again")
        self._code = None if problem is None else problem.code


class Repeats:
    """Counts what happens again and again, so that it is logged when it begins and once an hour."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """``clock`` gives seconds."""
        self._clock = clock
        self._said: dict[str, float] = {}
        self._times: Counter[str] = Counter()

    def due(self, what: str) -> int | None:
        """Return how often ``what`` has happened in a row, this time included, if that is to be logged now."""
        self._times[what] += 1
        now = self._clock()
        if what in self._said and now - self._said[what] < SAID_AGAIN_SECONDS:
            return None
        self._said[what] = now
        return self._times[what]

    def end(self) -> None:
        """Begin anew: what happens from now on has not happened before."""
        self._said.clear()
        self._times.clear()


class TroubleLog:
    """A transport's OnRetry that logs when the coordinator cannot be asked, once an hour, and when it answers again."""

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` gives seconds that never go back."""
        self._url = url
        self._clock = clock
        self._repeats = Repeats(clock)
        self._since: float | None = None

    def __call__(self, problem: TransportError | None) -> None:
        """Take note of why a request is sent again, or of an answer."""
        if problem is not None:
            self._since = self._clock() if self._since is None else self._since
            if times := self._repeats.due("trouble"):
                told = f"{self._said(problem)} (asking again until it answers)"
                log.warning("coordinator.trouble", detail=told, times=times, seconds=self._seconds(self._since))
        elif self._since is not None:
            log.info("coordinator.answers_again", coordinator=self._url, seconds=self._seconds(self._since))
            self._since = None
            self._repeats.end()

    def _seconds(self, since: float) -> float:
        return round(self._clock() - since, 1)

    def _said(self, problem: TransportError) -> str:
        if isinstance(problem, Unreachable):
            return str(problem)
        # Not what it said: a proxy's page may quote the request's fields.
        return f"{self._url} answered {problem.code}"
