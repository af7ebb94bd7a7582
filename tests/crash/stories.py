"""What happens in the runs whose processes are killed: between them they pass every kind of durable step."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from shared.protocol.rounds import STAGES
from shared.protocol.terms import CohortTerms, GateTerms, RunTerms
from tests.support.federations import terms_of
from tests.support.players import FOUR, SECURE

# How a run is, as the coordinator tells the conductor: ``Desk.look``.
Look: TypeAlias = Mapping[str, Any]

# Nobody is late: rounds and stages wait until nothing else happens any more.
PATIENT = {"min_seconds": 10, "max_seconds": 10_000}


@dataclass(frozen=True)
class Story:
    """A run: whose it is, by which terms, who is silent when, and when its operator has had enough."""

    name: str
    agents: tuple[str, ...]
    terms: RunTerms
    silent: Callable[[Look], Collection[str]]
    is_enough: Callable[[Look], bool]


def _some_then_one(look: Look) -> Collection[str]:
    """Return who is silent in round 1: too many after the keys of its first attempt, and one that never masks.

    So the first attempt is made again, and the second ends without an agent whose mask is in the sum.
    """
    if look["number"] != 1:
        return ()
    if look["attempts"] == 1 and look["round"] in STAGES[1:]:
        return ("cleo", "dan")
    return ("dan",) if look["attempts"] == 2 and look["round"] in STAGES[2:] else ()


MASKED = Story(
    name="masked",
    agents=FOUR,
    terms=terms_of(
        rounds=2,
        **SECURE | {"cohort": CohortTerms(min_count=3, max_count=4, **PATIENT)},
        gate=GateTerms(enabled=False),
        evaluation_examples=3,
        share_aggregate=True,
    ),
    silent=_some_then_one,
    is_enough=lambda _: False,
)

READ = Story(
    name="read",
    agents=("ada", "bob"),
    terms=terms_of(rounds=2, cohort=CohortTerms(min_count=2, max_count=2, **PATIENT), gate=GateTerms(enabled=True)),
    silent=lambda _: (),
    is_enough=lambda look: bool(look["published"]),
)

STORIES = {story.name: story for story in (MASKED, READ)}
