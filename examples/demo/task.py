"""The demo's task: answer a question about a short record that stands in the prompt.

A record says who holds which of six roles. A question asks who holds a role, or what role somebody holds; the answer is
always found by reading, and all four choices stand in the record. Chance is 25 %.

Every party writes the same kind of record in its own dialect: a clinic, a port, a workshop and an archive as agents, a
field station as the coordinator's auxiliary set. Models are pretrained on other dialects, so they can read, but
stumble over these five.

No item is ever seen twice: the digest of a record's content decides which party may use the record at all, whatever
dialect it is then written in (``owner``). Pure Python, and the same seed gives the same bytes.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from random import Random
from typing import Final, Literal

from examples.demo.dialects import AGENTS, AUXILIARY, DIALECTS, Dialect

NAMES: Final = tuple(
    onset + coda
    for onset, coda in product(
        ("Bal", "Cor", "Dan", "Fel", "Gar", "Hol", "Kel", "Mir"), ("a", "en", "o", "ix", "um", "y")
    )
)
ENTRIES: Final = 6
"""Entries of a record, one a role."""
CHOICES: Final = 4

Kind = Literal["who", "what"]
KINDS: Final[tuple[Kind, ...]] = ("who", "what")

VALIDATION: Final = "validation"
PRETRAINING: Final = "pretraining"
OWNERS: Final = (*AGENTS, AUXILIARY, VALIDATION)

OWNER_SLOTS: Final = 16
"""Slots that records fall into by digest: one for each of ``OWNERS``, the rest is for pretraining."""


@dataclass(frozen=True)
class Entry:
    """Who holds a role; roles are numbered here and named by a dialect."""

    role: int
    name: str


Record = tuple[Entry, ...]


@dataclass(frozen=True)
class Question:
    """A question as text, and what answers it: each choice stands in the record."""

    text: str
    answer: str
    others: tuple[str, ...]


@dataclass(frozen=True)
class Item:
    """One row of a data file, and what it was made of."""

    record: Record
    wording: str
    kind: Kind
    prompt: str
    choices: tuple[str, ...]
    answer: str

    def line(self) -> str:
        """The row as JSON, without what only the generator knows."""
        return json.dumps({"question": self.prompt, "choices": self.choices, "answer": self.answer})


def owner(record: Record) -> str:
    """Who may use a record: a function of who holds which role, whatever the order and the dialect."""
    content = json.dumps(sorted([entry.role, entry.name] for entry in record))
    slot = int.from_bytes(hashlib.sha256(content.encode()).digest()[:8], "big") % OWNER_SLOTS
    return OWNERS[slot] if slot < len(OWNERS) else PRETRAINING


def random_record(random: Random) -> Record:
    """All roles in some order, each held by somebody else."""
    roles, names = random.sample(range(ENTRIES), ENTRIES), random.sample(NAMES, ENTRIES)
    return tuple(Entry(role, name) for role, name in zip(roles, names, strict=True))


def records_of(party: str, random: Random) -> Iterator[Record]:
    """Random records that belong to a party."""
    while True:
        record = random_record(random)
        if owner(record) == party:
            yield record


def write(record: Record, dialect: Dialect) -> str:
    """The record as text."""
    entries = (dialect.entry.format(role=dialect.roles[entry.role], name=entry.name) for entry in record)
    return dialect.between.join(entries).strip()


def ask(record: Record, entry: Entry, kind: Kind, dialect: Dialect) -> Question:
    """A question about one entry of a record."""
    role = dialect.roles[entry.role]
    template, answer, possible = {
        "who": (dialect.who, entry.name, [each.name for each in record]),
        "what": (dialect.what, role, dialect.roles),
    }[kind]
    text = template.format(role=role, name=entry.name).strip()
    return Question(text, answer, tuple(each for each in possible if each != answer))


def items(party: str, wording: str, seed: int) -> Iterator[Item]:
    """Items from the records of ``party`` in the dialect of ``wording``, both kinds of question in turn."""
    random = Random(f"{seed}/{party}/{wording}")  # noqa: S311 - test data, no secret
    dialect = DIALECTS[wording]
    for number, record in enumerate(records_of(party, random)):
        kind = KINDS[number % len(KINDS)]
        question = ask(record, random.choice(record), kind, dialect)
        choices = [question.answer, *random.sample(question.others, CHOICES - 1)]
        random.shuffle(choices)
        prompt = f"{write(record, dialect)}\n{question.text}"
        yield Item(record, wording, kind, prompt, tuple(choices), question.answer)


def unseen_items(seed: int, count: int) -> list[Item]:
    """Unseen items of all five dialects in turn."""
    streams = [items(VALIDATION, wording, seed) for wording in DIALECTS]
    return [next(streams[number % len(streams)]) for number in range(count)]


def write_demo_data(
    folder: Path,
    *,
    seed: int,
    items_per_agent: int,
    evaluation_items: int,
    auxiliary_items: int,
    validation_items: int,
) -> None:
    """Write ``agent-1.jsonl`` and ``agent-1-evaluation.jsonl`` to ``agent-4``'s, and the coordinator's two files.

    Those are ``auxiliary.jsonl`` and ``validation.jsonl``. An agent's two files have no item in common.
    """
    parties = {}
    for agent in AGENTS:
        own = items(agent, agent, seed)
        parties[agent] = list(islice(own, items_per_agent))
        parties[f"{agent}-evaluation"] = list(islice(own, evaluation_items))
    parties[AUXILIARY] = list(islice(items(AUXILIARY, AUXILIARY, seed), auxiliary_items))
    parties[VALIDATION] = unseen_items(seed, validation_items)
    folder.mkdir(parents=True, exist_ok=True)
    for party, rows in parties.items():
        text = "".join(f"{row.line()}\n" for row in rows)
        (folder / f"{party}.jsonl").write_text(text, encoding="utf-8", newline="\n")


@dataclass(frozen=True)
class Document:
    """A text of pretraining: a record, and then all questions about it with their answers."""

    record: Record
    pieces: tuple[tuple[str, bool], ...]
    """The text in pieces, and whether each can be known from reading what stands before: answers can."""


def documents(seed: int, dialects: Sequence[Dialect]) -> Iterator[Document]:
    """Endless texts for pretraining, each in one of the dialects, from records that no party owns."""
    random = Random(f"{seed}/{PRETRAINING}")  # noqa: S311 - test data, no secret
    for record in records_of(PRETRAINING, random):
        dialect = random.choice(dialects)
        pieces = [(write(record, dialect), False)]
        for entry, kind in random.sample(list(product(record, KINDS)), ENTRIES * len(KINDS)):
            question = ask(record, entry, kind, dialect)
            pieces += [(f"\n{question.text}", False), (f" {question.answer}", True)]
        yield Document(record, tuple(pieces))
