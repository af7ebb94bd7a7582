"""What may have been meant by a name that is not there."""

from collections.abc import Callable, Iterable
from difflib import SequenceMatcher

# "prot" is as far from "port"; a hint at something else sends its reader the wrong way.
LIKENESS = 0.75


def meant(name: str, known: Iterable[str], *, otherwise: str, part: Callable[[str], str] = str) -> str:
    """Ask whether the names nearest to ``name`` were meant; ``otherwise`` is said where none is near.

    ``part`` is what of a name tells it from others, where they all begin or end alike.
    """

    def likeness(one: str) -> tuple[float, float]:
        return _likeness(part(name), part(one)), _likeness(name, one)

    near = {one: likeness(one) for one in sorted(known)}
    best = max(near.values(), default=(0.0, 0.0))
    if best[0] < LIKENESS:
        return otherwise
    return f"{' or '.join(repr(one) for one in near if near[one] == best)} was meant?"


def _likeness(one: str, other: str) -> float:
    return SequenceMatcher(None, one.casefold(), other.casefold()).ratio()
