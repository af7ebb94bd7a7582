"""Questions that `init` asks about files of examples: where they lie, and what their columns hold (docs/data.md).

What was answered about one file is proposed for the next, which is of the same kind: all are for one run.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from shared.cli.column_questions import (
    QUESTIONS,
    FirstRow,
    agreed,
    columns_in,
    in_words,
    setting_of,
    shown,
)
from shared.cli.questions import Questions, readable
from shared.configuration import validate
from shared.data.examples import read_examples
from shared.data.proposal import Kind, Proposal, Setting, propose
from shared.data.source import Columns, DataSource
from shared.errors import ConfigurationError, FedCoLLMError, about
from shared.protocol.terms import TaskTerms


@dataclass(frozen=True)
class Examples:
    """A file of examples, what they are for and how many there are."""

    source: DataSource
    kind: Kind
    count: int


class DataQuestions:
    """Asks for one file after the other; ``said`` are columns that are known, as SETTING=COLUMN.

    Raises:
        ConfigurationError: what was said is not of this form.
    """

    def __init__(self, questions: Questions, said: Sequence[str]) -> None:
        self._questions = questions
        self._said = dict(map(_said, said))
        self._kind: Kind | None = None
        self._answered: Proposal | None = None
        self._files: dict[str, FirstRow] = {}

    def ask(self, what: str, *, given: str | None, option: str) -> Examples:
        """Ask for the file of ``what``, and for what its columns hold.

        Raises:
            ConfigurationError, DataError: what the option gave cannot be used, or nobody is asked what is not clear.
        """
        question = f"File of {what}"
        if not self._questions.asking:
            return self._questions.ask(
                question, given=given, option=option, check=lambda answer: self._examples(what, self._first_row(answer))
            )
        first = self._questions.ask(question, given=given, option=option, check=self._first_row)
        while True:
            try:
                return self._examples(what, first)
            except FedCoLLMError as error:
                self._questions.note(str(error))
            # The same file as a rule: mended meanwhile, or with another answer about its columns.
            first = self._questions.prompt(question, check=self._first_row, default=str(first.path))

    def _first_row(self, answer: str) -> FirstRow:
        path = readable(answer)
        for what, other in self._files.items():
            if path.samefile(other.path):
                raise ConfigurationError(f"{path} is the file of {what}, and no example may be in both: name another")
        first = FirstRow.of(path)
        for name, setting in self._said.items():
            with about(f"--column {name}={shown(setting)}"):
                first.require(name, setting)
        return first

    def _examples(self, what: str, first: FirstRow) -> Examples:
        proposal = self._proposed(first)
        if self._questions.asking:
            proposal = agreed(self._questions, first, proposal, self._kind)
        elif first.missing(proposal):
            raise ConfigurationError(_unclear(proposal, first))
        self._answered = proposal
        source = validate(DataSource, {"path": first.path, "columns": proposal.columns}, what=str(first.path))
        count = len(read_examples(source, TaskTerms(kind=proposal.kind)))
        self._kind, self._files[what] = proposal.kind, first
        self._questions.note(f"  {count} examples, {in_words(proposal.kind)}")
        return Examples(source, proposal.kind, count)

    def _proposed(self, first: FirstRow) -> Proposal:
        """Return what was answered about the file before, as far as it fits, and for the rest what is likely."""
        if self._answered is None:
            return propose(first.row, self._said)
        if first.fits(self._answered):
            return self._answered
        there = {
            name: setting
            for name, setting in self._answered.columns.items()
            if name in QUESTIONS and not any(first.lacks(setting))
        }
        return propose(first.row, there | self._said, self._kind)


def _said(one: str) -> tuple[str, Setting]:
    name, found, column = one.partition("=")
    if not found or name not in Columns.model_fields:
        there = ", ".join(Columns.model_fields)
        raise ConfigurationError(f"--column {one}: write SETTING=COLUMN, where SETTING is one of {there}")
    return name, setting_of(column)


def _unclear(proposal: Proposal, first: FirstRow) -> str:
    missing = first.missing(proposal)
    used = {column for setting in proposal.columns.values() for column in columns_in(setting)}
    example = next((column for column in reversed(first.columns) if column not in used), "COLUMN")
    otherwise = " (for multiple choice: question, choices and answer)" if proposal.kind == "completion" else ""
    return (
        f"{first.path}: which column is the {', and which is the '.join(missing)}? There are "
        f"{', '.join(first.columns)}: say each like --column {missing[-1]}={example}{otherwise}, or leave --yes off"
    )
