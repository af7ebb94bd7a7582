"""Checks of an installation, and what they found: what is the case, and what to do about it.

A check looks at one thing and changes nothing. One that fails does not keep the others from being made, but a check
that could only repeat what an earlier one has found is left out and says so.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from pydantic import BaseModel
from rich.table import Table
from rich.text import Text

from shared.errors import FedCoLLMError
from shared.protocol.terms import FROZEN


class Verdict(StrEnum):
    """What a check says."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    LEFT_OUT = "left out"


STYLES = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.FAILED: "bold red", Verdict.LEFT_OUT: "dim"}


class Finding(BaseModel):
    """What one check found; ``advice`` says what to do where the detail does not."""

    verdict: Verdict
    detail: str
    advice: str = ""
    model_config = FROZEN


@dataclass(frozen=True)
class Check:
    """A check by the name that its line has; it says something only if those called ``after`` have not failed."""

    name: str
    look: Callable[[], Finding]
    after: tuple[str, ...] = ()


class NamedFinding(Finding):
    """A line of a report."""

    name: str


class Report(BaseModel):
    """What all checks found, in their order."""

    checks: tuple[NamedFinding, ...]
    model_config = FROZEN

    @property
    def failed(self) -> bool:
        """Whether something must be done."""
        return any(found.verdict is Verdict.FAILED for found in self.checks)


# Shows what is being looked at, for as long as that takes.
Showing: TypeAlias = Callable[[str], AbstractContextManager[object]]


def ok(detail: str) -> Finding:
    """Return that a thing is as it should be."""
    return Finding(verdict=Verdict.OK, detail=detail)


def warning(detail: str, advice: str) -> Finding:
    """Return that a thing may make trouble."""
    return Finding(verdict=Verdict.WARNING, detail=detail, advice=advice)


def failed(detail: str, advice: str = "") -> Finding:
    """Return that nothing works before a thing is changed; messages of our errors say themselves what to do."""
    return Finding(verdict=Verdict.FAILED, detail=detail, advice=advice)


def left_out(why: str) -> Finding:
    """Return that a thing was not looked at."""
    return Finding(verdict=Verdict.LEFT_OUT, detail=why)


def examine(checks: Iterable[Check], showing: Showing) -> Report:
    """Make all checks, whatever they find."""
    made: dict[str, Finding] = {}
    for check in checks:
        missing = [name for name in check.after if made[name].verdict in {Verdict.FAILED, Verdict.LEFT_OUT}]
        if missing:
            made[check.name] = left_out(f"needs: {', '.join(missing)}")
        else:
            with showing(check.name):
                made[check.name] = _found(check)
    return Report(checks=tuple(NamedFinding(name=name, **dict(found)) for name, found in made.items()))


def _found(check: Check) -> Finding:
    try:
        return check.look()
    except FedCoLLMError as error:
        return failed(str(error))
    except OSError as error:
        return failed(f"{error.filename or 'this machine'}: {error.strerror or error}")
    except Exception as error:  # noqa: BLE001 - libraries raise what they like, and the other checks are still wanted
        return failed(f"the check itself failed ({type(error).__name__}: {error})", "report this to the maintainers")


def table(found: Sequence[NamedFinding]) -> Table:
    """Return the findings for a terminal: verdict, what, and what to do; what failed stands last, where it is seen."""
    lines = Table(box=None, show_header=False, pad_edge=False)
    lines.add_column(no_wrap=True)
    lines.add_column(no_wrap=True)
    lines.add_column(overflow="fold")  # a digest is of no use in part
    for one in sorted(found, key=lambda one: one.verdict is Verdict.FAILED):
        text = Text(one.detail)
        if one.advice:
            text.append(f"\n→ {one.advice}", style="bold")
        lines.add_row(Text(one.verdict, style=STYLES[one.verdict]), one.name, text)
    return lines


def summary(report: Report) -> str:
    """Return the last line of a report."""
    count = {verdict: sum(one.verdict is verdict for one in report.checks) for verdict in Verdict}
    if report.failed:
        return f"{count[Verdict.FAILED]} of {len(report.checks)} checks failed: do what is said above, and ask again"
    if count[Verdict.WARNING]:
        return f"nothing failed, with {count[Verdict.WARNING]} warning(s)"
    return "all is well"
