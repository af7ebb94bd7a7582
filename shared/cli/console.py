"""What both command lines share: exit codes, results for people or as JSON, errors without a traceback.

With ``--json`` a result is one JSON document on standard output and an error one on standard error, ``{"code": ...,
"detail": ...}``, and nothing else is printed. Without it the result is on standard output too, so that it can be
piped, and what is told in between goes to standard error.
"""

import json
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Annotated, TypeAlias

import structlog
import typer
from pydantic import BaseModel
from rich.console import Console, RenderableType
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.text import Text

from shared.errors import (
    ConfigurationError,
    FedCoLLMError,
    NotFound,
    OutputExists,
    RemoteProblem,
    TransportError,
    Unreachable,
)
from shared.printable import printable

# Neither a pipe nor a file has an edge: a table is not folded there before it is this wide.
PIPE_COLUMNS = 200

# Fewer bytes are told in the smaller unit, of which there is something to see.
LEAST_MEGABYTES, LEAST_GIGABYTES = 100_000, 1_000_000_000

AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON, errors too.")]
SpeakInsecurely: TypeAlias = Annotated[
    bool, typer.Option("--insecure", help="Speak plain HTTP to another machine: who is on the way reads it.")
]


def or_here(name: str) -> Callable[[Path | None], Path | None]:
    """Return the callback of a --config: where none is named, the file of this name here is meant, if there is one."""

    def named(config: Path | None) -> Path | None:
        return Path(name) if config is None and Path(name).exists() else config

    return named


class ExitCode(IntEnum):
    """How a command ended."""

    DONE = 0
    FAILED = 1
    WRONG_USAGE = 2
    UNREACHABLE = 3
    REFUSED = 4
    INTERRUPTED = 130


EXIT_CODES = (
    "Exit codes: 0 done; 1 the run failed or was stopped, or a check failed; 2 wrong usage or configuration; "
    "3 no answer from the other side; 4 the coordinator refused; 130 interrupted."
)


def exit_code(error: FedCoLLMError) -> ExitCode:
    """Return how a command ends that this error has ended."""
    match error:
        case ConfigurationError() | OutputExists():
            return ExitCode.WRONG_USAGE
        case Unreachable():
            return ExitCode.UNREACHABLE
        case RemoteProblem() | NotFound():
            return ExitCode.REFUSED
        case _:
            return ExitCode.FAILED


class Output:
    """Where one command tells what it did."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.when_interrupted = "nothing was changed by what was not done yet"
        self.screen = _console(to_stderr=False)
        self._notes = _console(to_stderr=True)
        self._in_trouble = False

    @property
    def shows_progress(self) -> bool:
        """Whether somebody sits there and waits."""
        return self._notes.is_terminal and not self.as_json

    def line(self, text: str) -> None:
        """Tell people a part of the result: words are wrapped on a terminal, and never in a pipe."""
        self.screen.print(text, soft_wrap=not self.screen.is_terminal)

    def result(self, value: BaseModel, *lines: RenderableType) -> None:
        """Give the result: ``value`` with ``--json``, and else ``lines``."""
        if self.as_json:
            sys.stdout.write(f"{value.model_dump_json()}\n")
            sys.stdout.flush()
            return
        for line in lines:
            if isinstance(line, str):
                self.line(line)
            else:
                self.screen.print(line)

    def note(self, text: str) -> None:
        """Tell people what is going on."""
        if not self.as_json:
            self._notes.print(text, soft_wrap=not self._notes.is_terminal)

    @contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """Show, on a terminal, what is being done while the block runs."""
        if self.as_json or not self._notes.is_terminal:
            yield
            return
        with self._notes.status(what):
            yield

    def retrying(self, problem: TransportError | None) -> None:
        """Be a transport's OnRetry: tell of trouble when it begins and when it is over."""
        if problem is not None and not self._in_trouble:
            self.note(f"{problem}; trying again")
        if problem is None and self._in_trouble:
            self.note("there is an answer again")
        self._in_trouble = problem is not None

    def problem(self, code: str, detail: str) -> None:
        """Tell why there is no result."""
        if self.as_json:
            sys.stderr.write(f"{json.dumps({'code': code, 'detail': detail})}\n")
        else:
            text = Text.assemble(("error", "bold red"), f" ({code}): {detail}")
            self._notes.print(text, soft_wrap=not self._notes.is_terminal)

    def interrupted(self) -> None:
        """Tell that Ctrl-C has ended the command, and what that means."""
        self.note(f"interrupted: {self.when_interrupted}")
        if self.as_json:
            self.problem("interrupted", self.when_interrupted)

    @contextmanager
    def ending_at_once(self) -> Iterator[None]:
        """Let Ctrl-C end the process whatever it is doing in the block, which must leave nothing half done."""

        def end(*_: object) -> None:
            self._notes.show_cursor()  # what shows that somebody waits has hidden it
            self.interrupted()
            os._exit(ExitCode.INTERRUPTED)

        before = signal.signal(signal.SIGINT, end)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def bytes_bar(self) -> Progress:
        """Return a bar that counts bytes, on a terminal; it leaves no trace."""
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TimeRemainingColumn(),
            console=self._notes,
            transient=True,
            disable=not self.shows_progress,
        )


@contextmanager
def telling(*, as_json: bool) -> Iterator[Output]:
    """Give a command its ``Output``, and end it with the right exit code whatever happens in the block."""
    output = Output(as_json=as_json)
    try:
        yield output
    except FedCoLLMError as error:
        output.problem(error.code, str(error))
        raise typer.Exit(exit_code(error)) from None
    except KeyboardInterrupt:
        output.interrupted()
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def start(app: typer.Typer, name: str, arguments: Sequence[str] | None = None) -> None:
    """Run the command line called ``name``, and end the process."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # What a library will change one day is for its developers, and no part of what a command tells.
    warnings.simplefilter("ignore", FutureWarning)
    # A command tells what matters itself; services set their own log up.
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    if "--json" not in arguments:
        app(arguments, prog_name=name)
    try:
        sys.exit(app(arguments, prog_name=name, standalone_mode=False))
    except typer.TyperException as error:
        Output(as_json=True).problem("usage", error.format_message())
        sys.exit(error.exit_code)


def size(count: int) -> str:
    """Return a number of bytes for people."""
    if count >= LEAST_GIGABYTES:
        return f"{count / 1e9:.2f} GB"
    return f"{count / 1e6:.2f} MB" if count >= LEAST_MEGABYTES else f"{count / 1e3:.1f} kB"


def percent(share: float) -> str:
    """Return a share for people."""
    return f"{100 * share:.1f} %"


def duration(seconds: float) -> str:
    """Return a time span for people."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class _PlainConsole(Console):
    """A console on which no text from elsewhere does anything but stand there."""

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        safe = (one if one.control else Segment(printable(one.text), one.style) for one in buffer)
        return super()._render_buffer(safe)


def _console(*, to_stderr: bool) -> Console:
    console = _PlainConsole(stderr=to_stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = max(console.width, PIPE_COLUMNS)
    return console
