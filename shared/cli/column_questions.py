"""Questions about the columns of a file of examples; each answer is tried on the first row before the next question."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self, get_args

from shared.cli.questions import Questions
from shared.configuration import validate
from shared.data.columns import listed, look_up
from shared.data.examples import choices_of, example_of, text_of
from shared.data.proposal import Kind, Proposal, Setting, first_row, paths, propose
from shared.data.rows import Row
from shared.data.source import AnswerForm, Columns, DataSource
from shared.errors import ConfigurationError, DataColumnMissing, FedCoLLMError
from shared.meant import meant
from shared.protocol.terms import TaskTerms

# In the order in which they are asked about: what the answer is follows from the choices.
NEEDED: Mapping[Kind, tuple[str, ...]] = {
    "multiple_choice": ("question", "choices", "answer"),
    "completion": ("prompt", "answer"),
}
QUESTIONS = {
    "question": "Column of the question (or several, with commas)",
    "choices": "Columns of the choices, with commas (or the one that lists them)",
    "prompt": "Column of the prompt (or several, with commas)",
    "answer": "Column of the right answer",
}


@dataclass(frozen=True)
class FirstRow:
    """The first row of a file, on which answers are tried."""

    path: Path
    where: str
    row: Row

    @classmethod
    def of(cls, path: Path) -> Self:
        """Read it; errors are those of ``read_examples``."""
        return cls(path, *first_row(DataSource(path=path)))

    @property
    def columns(self) -> list[str]:
        """What its columns are called."""
        return paths(self.row)

    def column(self, kind: Kind, name: str, answer: str) -> Setting:
        """Return the column, or several, that ``answer`` gives for the setting ``name``.

        Raises:
            ConfigurationError, DataError: there is no such column, or it does not hold what it should.
        """
        setting = setting_of(answer)
        self.require(name, setting)
        if name == "choices":
            choices_of(self.row, setting, self.where)
        elif (kind, name) != ("multiple_choice", "answer"):  # which may be a number
            text_of(self.row, setting, self.where, setting=name)
        if name == "answer" and not isinstance(setting, str):
            raise ConfigurationError("the right answer stands in one column: name that one")
        return setting

    def form(self, columns: Mapping[str, Setting], answer: str) -> str:
        """Return what the column of the answer holds; labels are yet to be named, and so are not tried.

        Raises:
            ConfigurationError, DataError: it is nothing that there is, or the row is no example by it.
        """
        form = answer.lower()
        if form not in get_args(AnswerForm):
            raise ConfigurationError(f"it is one of {', '.join(get_args(AnswerForm))}")
        if form != "label":
            self.try_out(Proposal("multiple_choice", {**columns, "answer_is": form}))
        return form

    def require(self, name: str, setting: Setting) -> None:
        """Check that the columns that a setting names are there; ConfigurationError says what may have been meant."""
        if name == "answer_is" or (name == "labels" and not isinstance(setting, str)):
            return  # no names of columns
        for column in self.lacks(setting):
            hint = meant(column, self.columns, otherwise=f"there are {', '.join(self.columns)}")
            raise ConfigurationError(f"{self.path} has no column {column!r}: {hint}")

    def lacks(self, setting: Setting) -> Iterator[str]:
        """Yield those of some columns that are not there."""
        for column in columns_in(setting):
            try:
                look_up(self.row, column, setting="", where=self.where)
            except DataColumnMissing:
                yield column

    def try_out(self, proposal: Proposal) -> None:
        """Check that the row is an example by a proposal; errors are those of ``read_examples``."""
        columns = validate(Columns, proposal.columns, what="the columns")
        example_of(self.row, self.where, columns, TaskTerms(kind=proposal.kind))

    def missing(self, proposal: Proposal) -> list[str]:
        """Return the settings that a proposal lacks."""
        return [name for name in NEEDED[proposal.kind] if name not in proposal.columns]

    def fits(self, proposal: Proposal) -> bool:
        """Say whether nothing is missing from a proposal, and the row is an example by it."""
        try:
            self.try_out(proposal)
        except FedCoLLMError:
            return False
        return not self.missing(proposal)


def agreed(questions: Questions, first: FirstRow, proposal: Proposal, known: Kind | None) -> Proposal:
    """Return the proposal if it is all there and said to be right, and else what is answered about each column."""
    questions.note(f"  Its columns: {listed(first.columns)}")
    if first.fits(proposal):
        questions.note(f"  That looks like {in_words(proposal.kind)}:")
        for name in NEEDED[proposal.kind]:
            questions.note(f"    {name:<10}{shown(proposal.columns[name])}{_form_in_words(proposal, name)}")
        if questions.prompt("  Is that right?", check=_yes_or_no, default="yes"):
            return proposal
    return _asked(questions, first, proposal, known or _ask_kind(questions, proposal))


def _ask_kind(questions: Questions, proposal: Proposal) -> Kind:
    return questions.prompt(
        "  Multiple choice, or completion (free text)?", check=_kind, default=in_words(proposal.kind)
    )


def _asked(questions: Questions, first: FirstRow, proposal: Proposal, kind: Kind) -> Proposal:
    """Ask about one column after the other; what is proposed are the defaults."""
    columns: dict[str, Setting] = {}
    for name in NEEDED[kind]:
        usual = proposal.columns.get(name) or propose(first.row, columns, kind).columns.get(name)
        columns[name] = questions.prompt(
            f"  {QUESTIONS[name]}", check=partial(first.column, kind, name), default=shown(usual) if usual else None
        )
    if kind == "completion":
        return Proposal(kind, columns)
    if not columns.items() <= proposal.columns.items():
        proposal = propose(first.row, columns, kind)
    form = questions.prompt(
        "  Does it hold the right choice's text, label, or index (from 0)?",
        check=partial(first.form, columns),
        default=_form(proposal),
    )
    if form != "label":
        return Proposal(kind, columns | {"answer_is": form})
    letters = tuple("ABCDEFGH"[: len(choices_of(first.row, columns["choices"], first.where))])
    labels = questions.prompt(
        "  The choices' labels, in order (or the column that lists them)",
        check=setting_of,
        default=shown(proposal.columns.get("labels", letters)),
    )
    return Proposal(kind, columns | {"labels": labels})


def in_words(kind: Kind) -> str:
    """Return what people call a kind of task."""
    return kind.replace("_", " ")


def setting_of(answer: str) -> Setting:
    """Return a column, or several that are written with commas between them."""
    several = tuple(part.strip() for part in answer.split(",") if part.strip())
    return several if len(several) > 1 else "".join(several)


def shown(setting: Setting) -> str:
    """Return a setting as it is written in an answer."""
    return ", ".join(columns_in(setting))


def columns_in(setting: Setting) -> tuple[str, ...]:
    """Return the columns that a setting names, one or several."""
    return (setting,) if isinstance(setting, str) else setting


def _yes_or_no(answer: str) -> bool:
    """Return what was answered; anything else is neither."""
    if answer.lower() not in {"y", "yes", "n", "no"}:
        raise ConfigurationError("answer yes or no")
    return answer.lower() in {"y", "yes"}


def _kind(answer: str) -> Kind:
    for kind in NEEDED:
        if answer.lower().replace(" ", "_") == kind:
            return kind
    raise ConfigurationError(f"it is one of {', '.join(map(in_words, NEEDED))}")


def _form(proposal: Proposal) -> str:
    return str(proposal.columns.get("answer_is") or ("label" if "labels" in proposal.columns else "text"))


def _form_in_words(proposal: Proposal, name: str) -> str:
    if (proposal.kind, name) != ("multiple_choice", "answer"):
        return ""
    match _form(proposal):
        case "label":
            return f" (the right choice's label; labels: {shown(proposal.columns['labels'])})"
        case "index":
            return " (the right choice's index, from 0)"
        case _:
            return " (the right choice's text)"
