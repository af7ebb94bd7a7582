"""What programs of the bench share on their command lines: numbers that can be, and what was asked for, as a record."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path


def whole(at_least: int) -> Callable[[str], int]:
    """Return a type of argument: whole numbers from ``at_least`` on."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < at_least:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number of {at_least} or more")
        return int(text)

    return number


def above_zero(text: str) -> float:
    """Return a number that is finite and above zero."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above zero")
    return number


def record(parser: argparse.ArgumentParser, options: argparse.Namespace) -> list[str]:
    """Return the whole command, defaults included; of a path its last part, because folders are the machine's own."""
    words = parser.prog.split()
    for name, value in vars(options).items():
        values = value if isinstance(value, list) else [value]
        if value is not None and values:
            words.append(f"--{name.replace('_', '-')}")
            words += [one.resolve().name if isinstance(one, Path) else str(one) for one in values]
    return words
