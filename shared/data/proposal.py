"""What a data file's columns probably mean, from its first row: a proposal for whoever writes a configuration.

By the names that public data sets use, and by what the columns hold. It may be wrong, and so it is asked about.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, TypeAlias

from shared.data.files import format_by_name, held_still
from shared.data.rows import PlacedRow, read_rows
from shared.data.source import DataSource
from shared.errors import DataEmpty

Kind: TypeAlias = Literal["multiple_choice", "completion"]
Setting: TypeAlias = str | tuple[str, ...]

_QUESTIONS = ("question", "stem", "questionstem", "query", "problem", "q")
_PROMPTS = ("prompt", "instruction", *_QUESTIONS, "input", "text")
_CONTEXTS = ("context", "passage", "input")
_CHOICES = ("choices", "options", "answers", "alternatives", "candidates", "endings")
_LABELS = ("label", "labels", "key", "keys", "id")
_ANSWERS = (
    "answer",
    "answerkey",
    "correctanswer",
    "correct",
    "correctoption",
    "answeridx",
    "label",
    "target",
    "gold",
    "key",
)
_COMPLETIONS = ("answer", "response", "completion", "output", "target", "reply", "summary")
# A column that holds one choice of several: what they all begin with, and the choice's own label.
_ONE_CHOICE = re.compile(r"(.*?)[ _-]?([a-h]|[0-9]{1,2})", re.IGNORECASE)
_LABELLINGS = (list("ABCDEFGH"), list(map(str, range(100))), list(map(str, range(1, 100))))
_FEWEST_CHOICES = 2


@dataclass(frozen=True)
class Proposal:
    """A kind of task, and the settings under ``columns`` that it needs."""

    kind: Kind
    columns: dict[str, Setting] = field(default_factory=dict)


def first_row(source: DataSource) -> PlacedRow:
    """Return the first row of a file, and where it stands.

    Raises:
        DataError: as ``read_examples``.
    """
    path = source.path
    with held_still(path):
        for placed in read_rows(path, source.format or format_by_name(path), source.split):
            return placed
    raise DataEmpty(f"{path} holds no example: name a file with at least one row")


def likely_kind(source: DataSource) -> Kind:
    """Return the kind of task that a file's examples are probably for: by what its settings name, else by its columns.

    Raises:
        DataError: as ``first_row``.
    """
    return _kind_by(source.columns.model_fields_set) or propose(first_row(source)[1]).kind


def propose(
    row: Mapping[str, object], known: Mapping[str, Setting] = MappingProxyType({}), kind: Kind | None = None
) -> Proposal:
    """Return what the columns of ``row`` probably mean, beside what is known; what is not found is left out."""
    cells = dict(_cells(row, ""))
    choices, labels = _choices(cells)
    choices = known.get("choices", choices)
    kind = kind or _kind_by(known.keys()) or ("completion" if choices is None else "multiple_choice")
    if kind == "completion":
        return Proposal(kind, _completion(cells) | dict(known))
    columns: dict[str, Setting] = {}
    taken = {choices} if isinstance(choices, str) else set(choices or ())
    if (question := _named(cells, _QUESTIONS, taken)) is not None:
        columns["question"] = question
    if choices is not None:
        columns["choices"] = choices
    answer = known.get("answer") or _named(cells, _ANSWERS, taken | {labels if isinstance(labels, str) else ""})
    if isinstance(answer, str):
        columns["answer"] = answer
        if choices is not None and not known.keys() & {"labels", "answer_is"}:
            columns |= _form(cells, answer, choices, labels)
    return Proposal(kind, columns | dict(known))


def paths(row: Mapping[str, object]) -> list[str]:
    """Return the names of all columns of a row, those inside others by their dotted paths."""
    return [path for path, _ in _cells(row, "")]


def _kind_by(named: AbstractSet[str]) -> Kind | None:
    if named & {"question", "choices"}:
        return "multiple_choice"
    return "completion" if "prompt" in named else None


def _cells(value: Mapping[str, object], above: str) -> Iterator[tuple[str, object]]:
    """Yield all columns, those inside others by their dotted paths, as settings name them."""
    for name in value:
        path, held = f"{above}{name}", value[name]
        if isinstance(held, Mapping):
            yield from _cells(held, f"{path}.")
        elif isinstance(held, list) and held and all(isinstance(one, Mapping) for one in held):
            for inner in held[0]:
                yield f"{path}.{inner}", [one.get(inner) for one in held]
        else:
            yield path, held


def _completion(cells: Mapping[str, object]) -> dict[str, Setting]:
    columns: dict[str, Setting] = {}
    answer = _named(cells, _COMPLETIONS, set())
    if answer is not None:
        columns["answer"] = answer
    prompt = _named(cells, _PROMPTS, {answer or ""})
    if prompt is not None:
        context = _named(cells, _CONTEXTS, {answer or "", prompt})
        columns["prompt"] = prompt if context is None else (prompt, context)
    return columns


def _choices(cells: Mapping[str, object]) -> tuple[Setting | None, Setting | None]:
    """Return the column (or columns) of the choices, and of their labels, if there are any."""
    for path, held in cells.items():
        if _is_texts(held) and any(_plain(part) in _CHOICES for part in path.split(".")) and not _is_label(path):
            above = path.rpartition(".")[0]
            beside = (other for other in cells if above and other.startswith(f"{above}.") and other != path)
            return path, next((other for other in beside if _is_label(other) and isinstance(cells[other], list)), None)
    several = _a_column_each(cells)
    return (tuple(several), tuple(several.values())) if several else (None, None)


def _a_column_each(cells: Mapping[str, object]) -> dict[str, str]:
    """Return the columns, with their labels, that begin alike and end in A, B, ... or in numbers; the most of them."""
    alike: dict[str, dict[str, str]] = {}
    for path, held in cells.items():
        if isinstance(held, str | None) and (match := _ONE_CHOICE.fullmatch(path)):
            alike.setdefault(match[1].casefold(), {})[path] = match[2]
    several = [columns for columns in alike.values() if len(columns) >= _FEWEST_CHOICES and _in_order(columns.values())]
    return max(several, key=len, default={})


def _in_order(labels: Iterable[str]) -> bool:
    names = [label.upper() for label in labels]
    return any(names == labelling[: len(names)] for labelling in _LABELLINGS)


def _form(cells: Mapping[str, object], answer: str, choices: Setting, labels: Setting | None) -> dict[str, Setting]:
    """Say what the answer column holds: the text of a choice, its label, or its index."""
    texts = cells.get(choices) if isinstance(choices, str) else [cells.get(path) for path in choices]
    if not isinstance(texts, list) or answer not in cells:
        return {}  # reading the data will say what is wrong
    value = str(cells[answer]).strip()
    if value in {str(text).strip() for text in texts}:
        return {}
    names = cells[labels] if isinstance(labels, str) else labels
    if labels is not None and isinstance(names, Sequence) and value in map(str, names):
        return {"labels": labels}
    letters = tuple("ABCDEFGH"[: len(texts)])
    if value.upper() in letters:
        return {"labels": letters if value.isupper() else tuple(letter.lower() for letter in letters)}
    if value.isdecimal() and int(value) < len(texts):
        return {"answer_is": "index"}
    return {}


def _named(cells: Mapping[str, object], names: Sequence[str], taken: set[str]) -> str | None:
    """Return the first column of one of these names that holds one value, and is not taken."""
    for name in names:
        for path, held in cells.items():
            if path not in taken and _plain(path.rpartition(".")[2]) == name and not isinstance(held, list):
                return path
    return None


def _is_texts(held: object) -> bool:
    return isinstance(held, list) and len(held) >= _FEWEST_CHOICES and all(isinstance(one, str) for one in held)


def _is_label(path: str) -> bool:
    return "." in path and _plain(path.rpartition(".")[2]) in _LABELS


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
