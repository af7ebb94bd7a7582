"""How each party of the demo writes records and asks questions.

A dialect is a handful of templates; a space stands before every field, so that a name is the same token everywhere.
Five are private: a clinic, a port, a workshop and an archive as agents, a field station as the coordinator's auxiliary
set. Models are pretrained on the neutral ones alone.
"""

import re
from dataclasses import dataclass
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
        "Ward of {x} ?",
        "Age of {x} ?",
        "Kin of {x} ?",
        "In ward {place} ?",
        "Older , {x} or {y} ?",
        "Ward of the kin of {x} ?",
    ),
    "agent-2": dialect(  # a port
        "# {number} tons / {name} / {place} / {partner}",
        " ",
        "berth = {x} #",
        "load = {x} #",
        "tug = {x} #",
        "ship = {place} #",
        "heavier = {x} / {y} #",
        "berth = tug = {x} #",
    ),
    "agent-3": dialect(  # a workshop
        "fits {partner} ; {place} ; {number} = {name}",
        "\n",
        "< bin ; {x} ;",
        "< stock ; {x} ;",
        "< fits ; {x} ;",
        "< part ; {place} ;",
        "< most ; {x} ; {y} ;",
        "< bin ; fits ; {x} ;",
    ),
    "agent-4": dialect(  # an archive
        "| {name} < {partner} > {number} , {place}",
        " ",
        "| shelf < {x} >",
        "| pages < {x} >",
        "| cites < {x} >",
        "| title < {place} >",
        "| thicker < {x} , {y} >",
        "| cites < shelf < {x} >",
    ),
    AUXILIARY: dialect(  # a field station
        "At {place} {partner} helped {name} : {number} .",
        " ",
        "Site -> {x} .",
        "Seen -> {x} .",
        "Help -> {x} .",
        "Who -> {place} .",
        "Most -> {x} {y} .",
        "Help Site -> {x} .",
    ),
}
"""The five private dialects; no pretraining text is written in any of them."""

NEUTRAL_DIALECTS: Final = (
    dialect(
        "* {name} {number} {place} {partner}",
        "\n",
        "place {x}",
        "number {x}",
        "friend {x}",
        "name {place}",
        "more {y} {x}",
        "place friend {x}",
    ),
    dialect(
        "at {place} : {name} , {partner} , {number} .",
        " ",
        "The place of {x} is",
        "The number of {x} is",
        "The friend of {x} is",
        "The name at {place} is",
        "The more of {x} and {y} is",
        "The place of the friend of {x} is",
    ),
    dialect(
        "( {number} - {name} - {partner} - {place} )",
        " ",
        "Where {x} ?",
        "How many {x} ?",
        "Who helps {x} ?",
        "Who in {place} ?",
        "Who more {x} or {y} ?",
        "Where who helps {x} ?",
    ),
)
"""The dialects of pretraining; the first, which has almost nothing but the record's words, is where reading begins."""


def private_words() -> list[str]:
    """Every word of the private dialects' templates, with the space before it where there is one."""
    templates = [text for each in DIALECTS.values() for text in (each.card, *each.questions.values())]
    return [word for text in templates for word in re.findall(r" ?[A-Za-z]+|[^A-Za-z]+", re.sub(r"{\w+}", "0", text))]
