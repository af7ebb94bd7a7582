"""Questions that `init` asks: each has an option that answers it, and an answer that cannot be used is asked again."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import typer
from pydantic import TypeAdapter, ValidationError

from shared.access import require_model, require_readable
from shared.cli.console import Output
from shared.configuration import validate
from shared.data.examples import read_examples
from shared.data.proposal import Kind, Proposal, Setting, first_row, likely_kind, propose
from shared.data.source import Columns, DataSource
from shared.errors import ConfigurationError, FedCoLLMError
from shared.protocol.terms import TaskTerms

Answer = TypeVar("Answer")

# What each kind of task reads, in the order in which it is asked about; an empty answer leaves one out.
ASKED: dict[Kind, tuple[str, ...]] = {
    "multiple_choice": ("question", "choices", "labels", "answer", "answer_is"),
    "completion": ("prompt", "answer"),
}


class Questions:
    """Asks at a terminal; where nobody is to be asked, defaults are taken."""

    def __init__(self, output: Output, *, asking: bool) -> None:
        self._output = output
        self.asking = asking

    def ask(
        self,
        question: str,
        *,
        given: str | None,
        option: str,
        check: Callable[[str], Answer],
        default: str | None = None,
        hidden: bool = False,
    ) -> Answer:
        """Return the checked answer: what the option gave, or what is answered, or the default.

        Raises:
            ConfigurationError: there is no answer, and nobody is to be asked.
            FedCoLLMError: what the option gave cannot be used.
            KeyboardInterrupt: whoever was asked has had enough.
        """
        if given is not None:
            return check(given)
        if not self.asking:
            if default is None:
                raise ConfigurationError(f"{question}: nobody was asked, so say it with {option}")
            return check(default)
        while True:
            try:
                return check(_prompt(question, default, hidden=hidden))
            except FedCoLLMError as error:
                self._output.note(str(error))

    def ask_data(
        self, question: str, *, given: str | None, option: str, columns: Sequence[str]
    ) -> tuple[DataSource, Kind, int]:
        """Ask for a file of examples and what its columns mean; return it, its kind of task and how many there are.

        ``columns`` are those that are known, as SETTING=COLUMN; the first row proposes the others.
        """

        def checked(answer: str) -> tuple[DataSource, Kind, int]:
            path = readable(answer)
            _, row = first_row(DataSource(path=path))
            proposal = propose(row, _columns(columns))
            if self.asking and not columns:
                proposal = self._confirmed(proposal, list(row))
            source = validate(DataSource, {"path": path, "columns": proposal.columns}, what=answer)
            kind = likely_kind(source)
            return source, kind, len(read_examples(source, TaskTerms(kind=kind)))

        found = self.ask(question, given=given, option=option, check=checked)
        self._output.note(f"  {found[2]} examples, {found[1].replace('_', ' ')}")
        return found

    def _confirmed(self, proposal: Proposal, there: Sequence[str]) -> Proposal:
        """Show what was understood of a file, and ask about each column if that is not right."""
        self._output.note(f"  its columns: {', '.join(there)}")
        if proposal.columns:
            understood = ", ".join(f"{name} is {_shown(column)}" for name, column in proposal.columns.items())
            self._output.note(f"  {proposal.kind.replace('_', ' ')}: {understood}")
            if _prompt("  Is that right?", "yes").lower() in {"y", "yes"}:
                return proposal
        kind = self.ask("  multiple_choice or completion", given=None, option="", check=_kind, default=proposal.kind)
        answers = {name: _prompt(f"  Column of {name}", _shown(proposal.columns.get(name, ""))) for name in ASKED[kind]}
        return Proposal(kind, {name: _setting(answer) for name, answer in answers.items() if answer})


def readable(answer: str) -> Path:
    """Check that an answer is a file or folder that can be read."""
    path = Path(answer).expanduser()
    require_readable(path, "path")
    return path


def model(answer: str) -> str:
    """Check that an answer is a base model's folder, or may be a hub id."""
    require_model(answer, "model")
    return answer


def typed(kind: Any) -> Callable[[str], str]:  # noqa: ANN401 - a type
    """Return a check that an answer is what the type of a setting wants."""

    def check(answer: str) -> str:
        try:
            return str(TypeAdapter(kind).validate_python(answer))
        except ValidationError as error:
            raise ConfigurationError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None

    return check


def _prompt(question: str, default: str | None, *, hidden: bool = False) -> str:
    try:
        answer = typer.prompt(question, default=default, hide_input=hidden, err=True, show_default=bool(default))
    except typer.Abort:
        raise KeyboardInterrupt from None
    return str(answer).strip()


def _kind(answer: str) -> Kind:
    if answer not in ASKED:
        raise ConfigurationError(f"a task is one of {', '.join(ASKED)}")
    return answer


def _columns(given: Sequence[str]) -> dict[str, Setting]:
    columns: dict[str, Setting] = {}
    for one in given:
        name, found, column = one.partition("=")
        if not found or name not in Columns.model_fields:
            there = ", ".join(Columns.model_fields)
            raise ConfigurationError(f"--column {one}: write SETTING=COLUMN, where SETTING is one of {there}")
        columns[name] = _setting(column)
    return columns


def _setting(text: str) -> Setting:
    """Return a column, or several that are written with commas between them."""
    several = tuple(part.strip() for part in text.split(","))
    return several if len(several) > 1 else text.strip()


def _shown(column: Setting) -> str:
    return column if isinstance(column, str) else ", ".join(column)
