"""The demo's task: answer a question about a short record that stands in the prompt.

A record holds four cards; a card has a name, a place, a number and a partner (the name of another card). The
answer is always found by reading: look a field up, look it up backwards, compare two cards, or follow a partner
first. Chance is 25 %.

Every party writes the same kind of record in its own dialect: a clinic, a port, a workshop and an archive as agents, a
field station as the coordinator's auxiliary set. Models are pretrained on other dialects, so they can read, but
stumble over these five.

No item is ever seen twice: the digest of a record's content decides which party may use the record at all, whatever
dialect it is then written in (``owner``). Pure Python, and the same seed gives the same bytes.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from random import Random
from typing import Final

from examples.demo.dialects import AGENTS, AUXILIARY, DIALECTS, KINDS, Card, Dialect, Question, Record

NAMES: Final = tuple(
    onset + coda
    for onset, coda in product(
        ("Bal", "Cor", "Dan", "Fel", "Gar", "Hol", "Kel", "Mir"),
        ("a", "en", "o"),
    )
)
PLACES: Final = tuple(
    onset + coda
    for onset, coda in product(
        ("Ash", "Birch", "Clay", "Dun", "Elm", "Fox", "Glen", "Hay"),
        ("ford", "ham", "wick"),
    )
)
NUMBERS: Final = tuple(str(number) for number in range(12, 60, 2))

CARDS: Final = 4
"""Cards in a record, and choices of an item: each choice stands in the record."""

PRETRAINING_CARDS: Final = (3, 4)
"""Cards in a record of pretraining; shorter records are easier to begin with."""

QUESTIONS: Final = 36
"""Questions drawn for a text of pretraining; those that are drawn again are asked once."""

VALIDATION: Final = "validation"
PRETRAINING: Final = "pretraining"
OWNERS: Final = (*AGENTS, AUXILIARY, VALIDATION)

OWNER_SLOTS: Final = 16
"""Slots that records fall into by digest: one for each of ``OWNERS``, the rest is for pretraining."""


@dataclass(frozen=True)
class Item:
    """One row of a data file, and the record that it was made of."""

    record: Record
    wording: str
    kind: str
    prompt: str
    choices: tuple[str, ...]
    answer: str

    def line(self) -> str:
        """The row as JSON, without what only the generator knows."""
        return json.dumps({"prompt": self.prompt, "choices": self.choices, "answer": self.answer})


def owner(record: Record) -> str:
    """Who may use a record: a function of its content alone, whatever the order of cards and the dialect."""
    content = json.dumps(sorted([card.name, card.place, card.number, card.partner] for card in record))
    slot = int.from_bytes(hashlib.sha256(content.encode()).digest()[:8], "big") % OWNER_SLOTS
    return OWNERS[slot] if slot < len(OWNERS) else PRETRAINING


def random_record(random: Random, cards: int) -> Record:
    """A record whose cards differ in every field; the partners form one ring, so nobody is left out."""
    names = random.sample(NAMES, cards)
    places = random.sample(PLACES, cards)
    numbers = random.sample(NUMBERS, cards)
    ring = random.sample(range(cards), cards)
    partner = {ring[i]: ring[(i + 1) % cards] for i in range(cards)}
    return tuple(Card(names[i], places[i], numbers[i], names[partner[i]]) for i in range(cards))


def records_of(party: str, random: Random) -> Iterator[Record]:
    """Random records that belong to a party."""
    while True:
        record = random_record(random, random.choice(PRETRAINING_CARDS) if party == PRETRAINING else CARDS)
        if owner(record) == party:
            yield record


def random_question(record: Record, kind: str, random: Random) -> Question:
    """A question of this kind about a record; its choices are the values of that field on all cards."""
    one, other = random.sample(record, 2)
    by_name = {card.name: card for card in record}
    values = {"x": one.name}
    match kind:
        case "place":
            field, answer = "place", one.place
        case "number":
            field, answer = "number", one.number
        case "partner":
            field, answer = "name", one.partner
        case "holder":
            field, answer, values = "name", one.name, {"place": one.place}
        case "more":
            field, answer = "name", max(one, other, key=lambda card: int(card.number)).name
            values["y"] = other.name
        case "partner_place":
            field, answer = "place", by_name[one.partner].place
        case _:
            raise ValueError(f"There is no kind of question called {kind!r}.")
    choices = [getattr(card, field) for card in record]
    random.shuffle(choices)
    return Question(kind, values, tuple(choices), answer)


def items(party: str, wording: str, seed: int) -> Iterator[Item]:
    """Items from the records of ``party`` in the dialect of ``wording``, all kinds of question equally often."""
    random = Random(f"{seed}/{party}/{wording}")  # noqa: S311 - test data, no secret
    speech = DIALECTS[wording]
    for number, record in enumerate(records_of(party, random)):
        question = random_question(record, KINDS[number % len(KINDS)], random)
        prompt = f"{speech.write(record)}\n{speech.ask(question)}"
        yield Item(record, wording, question.kind, prompt, question.choices, question.answer)


def unseen_items(seed: int, count: int) -> list[Item]:
    """Unseen items of all five dialects in turn."""
    streams = [items(VALIDATION, wording, seed) for wording in DIALECTS]
    return [next(streams[number % len(streams)]) for number in range(count)]


def write_demo_data(
    folder: Path, *, seed: int, items_per_agent: int = 40, auxiliary_items: int = 60, validation_items: int = 240
) -> None:
    """Write ``agent-1.jsonl`` to ``agent-4.jsonl``, ``auxiliary.jsonl`` and ``validation.jsonl``."""
    parties = {agent: list(islice(items(agent, agent, seed), items_per_agent)) for agent in AGENTS}
    parties[AUXILIARY] = list(islice(items(AUXILIARY, AUXILIARY, seed), auxiliary_items))
    parties[VALIDATION] = unseen_items(seed, validation_items)
    folder.mkdir(parents=True, exist_ok=True)
    for party, rows in parties.items():
        text = "".join(f"{row.line()}\n" for row in rows)
        (folder / f"{party}.jsonl").write_text(text, encoding="utf-8", newline="\n")


@dataclass(frozen=True)
class Document:
    """A text of pretraining: a record, and then the same record retold or questions about it with their answers."""

    record: Record
    text: str
    known: tuple[tuple[int, int], ...]
    """Where the text can be known from reading what stands before: start and end of each such stretch."""


def documents(seed: int, wordings: Sequence[Dialect], telling: float, characters: int) -> Iterator[Document]:
    """Endless texts for pretraining, each in one of the dialects, from records that no party owns.

    After the record comes either the record again and again, in this share of the texts, or questions, until the text
    has the given number of characters or there is nothing left to ask.
    """
    random = Random(f"{seed}/{PRETRAINING}")  # noqa: S311 - test data, no secret
    for record in records_of(PRETRAINING, random):
        speech = random.choice(wordings)
        text = speech.write(record)
        known: list[tuple[int, int]] = []
        pieces = retold(record, speech, random) if random.random() < telling else asked(record, speech, random)
        for is_known, piece in pieces:
            if is_known:
                known.append((len(text), len(text) + len(piece)))
            text += piece
            if len(text) >= characters:
                break
        yield Document(record, text, tuple(known))


def retold(record: Record, speech: Dialect, random: Random) -> Iterator[tuple[bool, str]]:
    """The cards again and again in other orders, in pieces, each with whether it is known.

    The first field of a card tells which one it is, the others are known.
    """
    while True:
        for card in random.sample(record, len(record)):
            yield False, "\n"
            known = False
            for piece in re.split(r"( ?{\w+})", speech.card):
                is_field = piece.endswith("}")
                yield known and is_field, piece.format(**vars(card))
                known = known or is_field


def asked(record: Record, speech: Dialect, random: Random) -> Iterator[tuple[bool, str]]:
    """Questions in pieces, none of them twice, each with whether it is known: the answers are."""
    questions = dict.fromkeys(
        (speech.ask(question), question.answer)
        for question in (random_question(record, random.choice(KINDS), random) for _ in range(QUESTIONS))
    )
    for question, answer in questions:
        yield False, f"\n{question}"
        yield True, f" {answer}"
