"""Where an audit log is read from: the coordinator, page by page, or a file that was exported from it.

An exported log is JSON lines: its signed head first, and then its entries, oldest first.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from pydantic import ValidationError

from services.coordinator.cli.connection import Operator
from shared.access import refusal
from shared.answers import Answer
from shared.errors import AuditBroken, ConfigurationError, RemoteProblem
from shared.protocol.audit import MOST_ENTRIES_A_PAGE, AuditEntry, AuditPage, SignedHead
from shared.transport import Params


def asked_head(operator: Operator) -> SignedHead:
    """Return the head that the coordinator tells; errors are those of ``asked_entries``."""
    return _asked(operator, "/v1/audit/head", SignedHead)


def asked_entries(operator: Operator, *, after: int, last: int) -> Iterator[AuditEntry]:
    """Yield what the coordinator gives for the entries above ``after`` up to ``last``, and check none of it.

    Raises:
        AuditBroken: the coordinator itself has found that one was changed.
    """
    while after < last:
        params = {"after": after, "limit": min(last - after, MOST_ENTRIES_A_PAGE)}
        page = _asked(operator, "/v1/audit", AuditPage, params)
        yield from page.entries
        if not page.entries or page.entries[-1].seq <= after:
            return
        after = page.entries[-1].seq


def _asked(operator: Operator, path: str, answer: type[Answer], params: Params | None = None) -> Answer:
    try:
        return operator.ask("GET", path, answer, params=params)
    except RemoteProblem as problem:
        if problem.code == AuditBroken.code:
            raise AuditBroken(problem.detail) from None
        raise


def exported_head(file: Path) -> SignedHead:
    """Return the head of an exported log.

    Raises:
        ConfigurationError: the file cannot be read, or is something else.
    """
    try:
        with file.open(encoding="utf-8") as lines:
            return SignedHead.model_validate_json(lines.readline())
    except OSError as error:
        raise ConfigurationError(refusal(file, error)) from None
    except ValueError:
        raise ConfigurationError(
            f"{file} does not begin with the head of an audit log: name a file that `fedcollm audit export` wrote"
        ) from None


def exported_entries(file: Path) -> Iterator[AuditEntry]:
    """Yield the entries of an exported log, and check nothing but their form.

    Raises:
        AuditBroken: a line is no entry.
    """
    with file.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(islice(lines, 1, None), 1):
            try:
                yield AuditEntry.model_validate_json(line)
            except ValidationError:
                raise AuditBroken(f"entry {number} of the audit log was changed: it cannot be read any more") from None
