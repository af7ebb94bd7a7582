"""What comes back of a request, as messages and errors of the protocol: checked, because it may be anybody's."""

from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from shared.errors import MessageInvalid, RemoteProblem
from shared.protocol.messages import Problem

Answer = TypeVar("Answer", bound=BaseModel)

# Of an answer that is kept in memory. The longest of ours is a page of the event log.
MOST_BYTES = 16 << 20

NO_DOCUMENT = "http_error"  # the code where no problem document came
LONGEST_PAUSE_SECONDS = 3600.0


def parse(content: bytes, answer: type[Answer], *, url: str) -> Answer:
    """Return the message that came from ``url``, or raise MessageInvalid."""
    try:
        return answer.model_validate_json(content)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, fault["loc"]))[:200]
        raise MessageInvalid(
            f"{url} answered what the protocol does not say ({where}{': ' * bool(where)}{fault['msg']}): is "
            "this the coordinator's address, and is the same release installed on both sides?"
        ) from None


def problem(status: int, content: bytes, *, reason: str) -> RemoteProblem:
    """Return the problem that an answer tells: in its document, else in its text, else in the status's ``reason``."""
    try:
        told = Problem.model_validate_json(content)
    except ValidationError:
        return RemoteProblem(NO_DOCUMENT, status, content[:500].decode(errors="replace") or reason)
    return RemoteProblem(told.code, told.status, told.detail)


def pause(retry_after: str) -> float:
    """Return after how many seconds, at most an hour, to send a request again; 0 where that is not said."""
    return min(float(retry_after), LONGEST_PAUSE_SECONDS) if retry_after.isdecimal() else 0.0


def time_told(date: str | None) -> datetime | None:
    """Return the time that a Date field tells, if it tells one."""
    try:
        told = parsedate_to_datetime(date or "")
    except (ValueError, TypeError, IndexError, OverflowError):  # whatever its parts are
        return None
    return told if told.tzinfo else None
