"""What a service logs: one event a line on standard error, and of trouble on the way only its beginning and its end."""

import sys
import warnings

import structlog
from structlog.typing import EventDict

from shared.errors import TransportError, Unreachable
from shared.printable import printable

log = structlog.get_logger()


def log_to_stderr() -> None:
    """Set the log of this process up; for where a service starts."""
    structlog.configure(
        processors=[_printable, *structlog.get_config()["processors"]],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    # What a library will change one day is for its developers, and nothing that whoever runs a service can mend.
    warnings.simplefilter("ignore", FutureWarning)


def _printable(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Be a processor that lets no text of a stranger add a line, or do anything to whoever reads the log."""
    return {name: printable(value) if isinstance(value, str) else value for name, value in event.items()}


class TroubleLog:
    """A transport's OnRetry that logs when the coordinator cannot be asked and when it answers again, once each."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._in_trouble = False

    def __call__(self, problem: TransportError | None) -> None:
        """Take note of why a request is sent again, or of an answer."""
        if problem is not None and not self._in_trouble:
            log.warning("coordinator.trouble", detail=f"{self._said(problem)} (asking again until it answers)")
        if problem is None and self._in_trouble:
            log.info("coordinator.answers_again", coordinator=self._url)
        self._in_trouble = problem is not None

    def _said(self, problem: TransportError) -> str:
        if isinstance(problem, Unreachable):
            return str(problem)
        # Not what it said: a proxy's page may quote the request's fields.
        return f"{self._url} answered {problem.code}"
