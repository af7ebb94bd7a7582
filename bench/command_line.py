"""What programs of the bench share: numbers that can be on their command lines, and a record of what figures are of."""

import argparse
import math
import os
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
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
    words, usage = parser.prog.split(), parser.format_usage()
    for name, value in vars(options).items():
        values = value if isinstance(value, list) else [value]
        option = f"--{name.replace('_', '-')}"
        if value is not None and values and value != Path():  # the folder where the command was typed
            words += [option] if option in usage else []
            words += [one.resolve().name if isinstance(one, Path) else str(one) for one in values]
    return words


def machine(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Iterator[str]:
    """Yield what figures are of: the command, the machine, the load on it, and the versions."""
    yield f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {' '.join(record(parser, options))}"
    yield f"{processors()}, load {os.getloadavg()[0]:.1f} before"
    packages = " ".join(f"{name} {version(name)}" for name in ("numpy", "cryptography"))
    yield f"Python {platform.python_version()}, {packages}"


def tell(lines: Iterable[str], out: Path | None) -> None:
    """Print a report, and write it to a file if there is to be one."""
    text = "\n".join(lines)
    print(text)
    if out is not None:
        out.write_text(f"{text}\n")


def processors() -> str:
    """Return how many cores there are, and of what kind."""
    names = [line.partition(":")[2].strip() for line in _cpu_info() if line.startswith("model name")]
    return f"{os.cpu_count()} x {names[0] if names else platform.machine()}"


def _cpu_info() -> Sequence[str]:
    file = Path("/proc/cpuinfo")
    return file.read_text().splitlines() if file.exists() else []
