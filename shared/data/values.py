"""What stands in a cell, as a task takes it: the same from every format."""

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import TypeGuard

from shared.errors import DataUnreadable

_TYPES: tuple[tuple[type, str], ...] = (
    (bool, "true or false"),
    (float, "a number"),
    (Decimal, "a number"),
    (str, "a text"),
    (list, "a list"),
    (Mapping, "an object"),
    (type(None), "nothing"),
)


def type_name(value: object) -> str:
    """Return what a value is, in words."""
    if _is_whole(value):
        return "a whole number"
    return next((name for kind, name in _TYPES if isinstance(value, kind)), "something else")


def is_empty(value: object) -> bool:
    """Say whether there is nothing in a cell: each format has its own way to leave one empty."""
    return value is None or (isinstance(value, str) and not value.strip())


def plain(value: object) -> str:
    """Return a text without the white space around it, or a whole number's digits; nothing else has a plain text.

    In a table 2 and "2" are the same, and so they are from the formats that tell one from the other.
    """
    if isinstance(value, str):
        return value.strip()
    return str(int(value)) if _is_whole(value) else ""


def as_text(value: object, what: str, where: str) -> str:
    """Return the plain text of a value, which may be empty. ``what`` and ``where`` are for the message.

    Raises:
        DataUnreadable: it is neither a text nor a whole number, or no tokenizer can take it.
    """
    text = plain(value)
    if not text and not is_empty(value):
        raise DataUnreadable(f"{where}: {what} is {type_name(value)} and must be a text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataUnreadable(
            f"{where}: {what} is no valid Unicode: it has half of a character, as the escape \\ud83d is without the "
            "one that belongs to it; write that text again"
        ) from error
    return text


def _is_whole(value: object) -> TypeGuard[int | float | Decimal]:
    # pandas makes floats of whole numbers where a column has gaps, and databases give decimals.
    if isinstance(value, float | Decimal):
        return math.isfinite(value) and value == int(value)
    return isinstance(value, int) and not isinstance(value, bool)
