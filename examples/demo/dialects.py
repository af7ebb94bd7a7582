"""How each party of the demo writes records and asks questions.

A dialect is a handful of templates; a space stands before every field, so that a name is the same token everywhere.
Five are private: a clinic, a port, a workshop and an archive as agents, a field station as the coordinator's auxiliary
set. Models are pretrained on the neutral ones alone.
"""

import re
from dataclasses import dataclass
from random import Random
from typing import Final

KINDS: Final = ("place", "number", "partner", "holder", "more", "partner_place")
"""Kinds of question; ``holder`` is asked by place, ``more`` compares two cards, ``partner_place`` takes two steps."""

AGENTS: Final = ("agent-1", "agent-2", "agent-3", "agent-4")
AUXILIARY: Final = "auxiliary"


@dataclass(frozen=True)
class Card:
    """One card of a record."""

    name: str
    place: str
    number: str
    partner: str


Record = tuple[Card, ...]


@dataclass(frozen=True)
class Question:
    """What is asked, apart from how a dialect words it."""

    kind: str
    values: dict[str, str]
    choices: tuple[str, ...]
    answer: str


@dataclass(frozen=True)
class Dialect:
    """How a party writes records and asks questions; the templates name the fields of ``Card`` and ``Question``."""

    card: str
    between: str
    questions: dict[str, str]

    def write(self, record: Record) -> str:
        """The record as text."""
        return self.between.join(
            self.card.format(name=card.name, place=card.place, number=card.number, partner=card.partner)
            for card in record
        )

    def ask(self, question: Question) -> str:
        """The question as text."""
        return self.questions[question.kind].format(**question.values)


def dialect(card: str, between: str, *questions: str) -> Dialect:
    """A dialect from its templates, the questions in the order of ``KINDS``."""
    return Dialect(card, between, dict(zip(KINDS, questions, strict=True)))


DIALECTS: Final = {
    "agent-1": dialect(  # a clinic
        "ward {place} [ {name} ] aged {number} + {partner}",
        "\n",
        "[ ward + {x} ]",
        "[ age + {x} ]",
        "[ kin + {x} ]",
        "[ patient + {place} ]",
        "[ older + {y} + {x} ]",
        "[ ward + kin + {x} ]",
    ),
    "agent-2": dialect(  # a port
        "# {number} tons / {name} / {place} / {partner}",
        " ",
        "# berth / {x} =",
        "# load / {x} =",
        "# tug / {x} =",
        "# ship / {place} =",
        "# heavier / {y} / {x} =",
        "# berth / tug / {x} =",
    ),
    "agent-3": dialect(  # a workshop
        "fits {partner} ; {place} ; {number} = {name}",
        "\n",
        "{{ bin ; {x} ;",
        "{{ stock ; {x} ;",
        "{{ spare ; {x} ;",
        "{{ part ; {place} ;",
        "{{ most ; {y} ; {x} ;",
        "{{ bin ; spare ; {x} ;",
    ),
    "agent-4": dialect(  # an archive
        "| {name} < {partner} > {number} , {place}",
        " ",
        "| shelf < {x} >",
        "| pages < {x} >",
        "| source < {x} >",
        "| title < {place} >",
        "| thicker < {y} , {x} >",
        "| shelf < source < {x} >",
    ),
    AUXILIARY: dialect(  # a field station
        "At {place} {partner} helped {name} : {number} .",
        " ",
        "Note site -> {x} .",
        "Note seen -> {x} .",
        "Note guide -> {x} .",
        "Note scout -> {place} .",
        "Note best -> {y} {x} .",
        "Note site -> guide -> {x} .",
    ),
}
"""The five private dialects; no pretraining text is written in any of them."""

PLAIN: Final = dialect(
    "* {name} {number} {place} by {partner}",
    "\n",
    "place {x}",
    "number {x}",
    "friend {x}",
    "name {place}",
    "more {y} {x}",
    "place friend {x}",
)
"""A neutral dialect of almost nothing but the record's words: where reading begins."""


WORDS: Final = (
    ("place", "town", "where", "ward", "berth", "bin", "shelf", "site"),
    ("number", "count", "many", "age", "load", "stock", "pages", "seen"),
    ("friend", "mate", "helper", "kin", "tug", "spare", "source", "guide"),
    ("name", "who", "holder", "patient", "ship", "part", "title", "scout"),
    ("more", "larger", "top", "older", "heavier", "most", "thicker", "best"),
)
"""What a field, or the larger of two, may be called: also by the private dialects, which differ in all else."""


def neutral_dialects(count: int) -> tuple[Dialect, ...]:
    """Dialects for pretraining, put together at random from the words and from layouts of their own."""
    random = Random(count)  # noqa: S311 - test data, no secret
    return tuple(neutral_dialect(random) for _ in range(count))


def neutral_dialect(random: Random) -> Dialect:
    """One of them: the fields in any order, with the partner always marked as such."""
    fields = ["{name}", "{number}", "{place}", random.choice(("by", "with", "and")) + " {partner}"]
    random.shuffle(fields)
    opening, between, closing = (
        random.choice(parts) for parts in (("*", "at", "(", "see"), (" ", " , ", " - ", " : "), ("", " )", " !", " ok"))
    )
    place, number, friend, name, more = (random.choice(words) for words in WORDS)
    asking, link, end = (
        random.choice(parts) for parts in (("", "the ", "tell "), (" ", " of "), ("", " is", " :", " ?"))
    )
    return dialect(
        f"{opening} {between.join(fields)}{closing}",
        random.choice((" ", "\n")),
        f"{asking}{place}{link}{{x}}{end}",
        f"{asking}{number}{link}{{x}}{end}",
        f"{asking}{friend}{link}{{x}}{end}",
        f"{asking}{name}{link}{{place}}{end}",
        f"{asking}{more}{link}{{y}} or {{x}}{end}",
        f"{asking}{place}{link}{friend}{link}{{x}}{end}",
    )


def private_words() -> list[str]:
    """Every word of the private dialects' templates, with the space before it where there is one."""
    templates = [text for each in DIALECTS.values() for text in (each.card, *each.questions.values())]
    return [word for text in templates for word in re.findall(r" ?[A-Za-z]+|[^A-Za-z]+", re.sub(r"{\w+}", "0", text))]
