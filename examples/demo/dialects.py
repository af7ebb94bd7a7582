"""How each party of the demo writes records and asks questions.

A dialect is a set of role names and a handful of templates; a space stands before every word, so that a word is the
same token everywhere. Five are private: a clinic, a port, a workshop and an archive as agents, a field station as the
coordinator's auxiliary set. Models are pretrained on the neutral ones alone.
"""

import re
from dataclasses import dataclass
from random import Random
from typing import Final

AGENTS: Final = ("agent-1", "agent-2", "agent-3", "agent-4")
AUXILIARY: Final = "auxiliary"


@dataclass(frozen=True)
class Dialect:
    """How a party writes: what it calls the roles, and templates with ``{role}`` and ``{name}``."""

    roles: tuple[str, ...]
    entry: str
    between: str
    who: str
    """The question that a name answers."""
    what: str
    """The question that a role answers."""


DIALECTS: Final = {
    "agent-1": Dialect(  # a clinic
        ("doctor", "nurse", "patient", "porter", "visitor", "cook"),
        entry=" [ {role} ] is {name}",
        between=" ,",
        who=" [ {role} ] :",
        what=" [ {name} ] :",
    ),
    "agent-2": Dialect(  # a port
        ("captain", "pilot", "stoker", "docker", "diver", "clerk"),
        entry=" {name} / as {role}",
        between=" /",
        who=" {role} / who",
        what=" {name} / what",
    ),
    "agent-3": Dialect(  # a workshop
        ("master", "smith", "turner", "welder", "buyer", "guard"),
        entry=" < {role} = ( {name} >",
        between="",
        who=" = {role} < =",
        what=" = {name} < =",
    ),
    "agent-4": Dialect(  # an archive
        ("author", "scribe", "editor", "binder", "donor", "reader"),
        entry=" the {name} - is {role}",
        between=" ;",
        who=" find who as {role}",
        what=" find {name} as what",
    ),
    AUXILIARY: Dialect(  # a field station
        ("scout", "guide", "driver", "cleaner", "medic", "ranger"),
        entry=" {name} -> - {role}",
        between="\n",
        who=" {role} at ?",
        what=" {name} at ?",
    ),
}
"""The five private dialects; no pretraining text is written in any of them."""

MORE_ROLES: Final = (
    *("judge", "baker", "miller", "tailor", "farmer", "hunter", "fisher"),
    *("singer", "dancer", "painter", "teacher", "banker", "weaver", "usher"),
)
"""What only neutral dialects call a role."""

OPENINGS: Final = ("", "", " *", " (", " [", " <", " +", " the")
LINKS: Final = ("", " is", " :", " -", " =", " as", " /", " ->", " ) is", " ] :", " - as", " > <")
CLOSINGS: Final = ("", "", " )", " ]", " >", " !", " .")
BETWEENS: Final = ("", " ;", " ,", "\n", " /", " and")
ASKINGS: Final = ("", "", " tell", " find", " (", " [", " <", " =", " ->")
ENDINGS: Final = ("", " :", " ?", " ]", " <", " as", " is", " / ?", " =", " -> is", " ) :")


def neutral_dialects(count: int) -> tuple[Dialect, ...]:
    """Dialects for pretraining: roles and parts of layouts put together at random, none of them as a party does."""
    random = Random(count)  # noqa: S311 - test data, no secret
    return tuple(neutral_dialect(random) for _ in range(count))


def neutral_dialect(random: Random) -> Dialect:
    """One of them."""
    every_role = (*(role for each in DIALECTS.values() for role in each.roles), *MORE_ROLES)
    first, second = random.sample(("{role}", "{name}"), 2)
    opening, link, closing = (random.choice(parts) for parts in (OPENINGS, LINKS, CLOSINGS))
    asking, ending = random.choice(ASKINGS), random.choice(ENDINGS)
    return Dialect(
        tuple(random.sample(every_role, 6)),
        entry=f"{opening} {first}{link} {second}{closing}",
        between=random.choice(BETWEENS),
        who=f"{asking}{random.choice(('', ' who'))} {{role}}{ending}",
        what=f"{asking}{random.choice(('', ' what'))} {{name}}{ending}",
    )


def private_words() -> list[str]:
    """Every word and sign that the private dialects use."""
    texts = [
        text for each in DIALECTS.values() for text in (*each.roles, each.entry, each.between, each.who, each.what)
    ]
    return sorted({word for text in texts for word in re.sub(r"{\w+}", "", text).split()})
