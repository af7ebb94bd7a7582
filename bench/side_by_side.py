"""What benchmarks of two sides share: their options, the lines of a ratio, and the report."""

import argparse
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import median

import numpy as np

from bench.command_line import machine, whole
from shared.protocol.tensors import Tensors


@dataclass(frozen=True)
class Taken:
    """Seconds of one turn, and of a processor: these hardly depend on what else a machine does."""

    seconds: float
    cpu_seconds: float


def options_of(prog: str, description: str | None, *, environment_of: str | None = None) -> argparse.ArgumentParser:
    """Return a parser with what all of them take; ``environment_of`` names what runs in an environment of its own."""
    parser = argparse.ArgumentParser(
        prog=f"python -m bench.{prog}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="a folder with the data sets' original files")
    parser.add_argument("--repeats", type=whole(1), default=3, help="turns of each side")
    parser.add_argument("--threads", type=whole(1), default=os.cpu_count())
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, help="write the lines there as well")
    if environment_of:
        parser.add_argument("--environment", type=Path, help=f"a folder for {environment_of}, to be kept")
    return parser


def ratio_lines(peer: str, ours: Sequence[Taken], theirs: Sequence[Taken], *, wanted: float | None) -> list[str]:
    """Return medians and the ratio of both sides' seconds, and the same of a processor's seconds."""
    target = f"; wanted: {wanted} or more" if wanted else ""
    lines = []
    for name, unit in (("seconds", "seconds"), ("cpu_seconds", "of a processor")):
        mine, others = ([getattr(turn, name) for turn in side] for side in (ours, theirs))
        ratios = sorted(other / own for own, other in zip(mine, others, strict=True))
        lines.append(
            f"  {unit}: ours {median(mine):.1f}, {peer} {median(others):.1f}; "
            f"ratio {median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}){target}"
        )
    return lines


def apart(ours: Tensors, theirs: Tensors, begin: Tensors) -> float:
    """Return how far two adapters are from each other, by how far training moved ours (both as L2 norms)."""
    distances = (
        math.sqrt(math.fsum(float(np.square(ours[name] - other[name], dtype=np.float64).sum()) for name in ours))
        for other in (theirs, begin)
    )
    between, moved = distances
    return between / moved


def print_report(parser: argparse.ArgumentParser, options: argparse.Namespace, lines: Iterable[str]) -> None:
    """Print what the figures are of and the lines as they come, and write them where ``--out`` says."""
    printed = []
    for line in chain(machine(parser, options), lines):
        print(line, flush=True)
        printed.append(line)
    if options.out:
        options.out.write_text("\n".join(printed) + "\n", encoding="utf-8")
