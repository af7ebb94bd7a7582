"""FedCoLLM beside Flower and NVIDIA FLARE, in one run on one machine: ``python -m bench.peers`` (``make bench-peers``).

The same arrays, clients that do the same, the same number of rounds; every system as processes of its own on loopback,
with its defaults, which are printed. Each peer has a virtual environment of its own under ``--work`` (PIP_ARGS are
pip's). A run that is slow is stopped after ``--limit`` seconds, and it is said how many rounds it made. Tables go to
standard output, and what is under way to standard error.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from bench.command_line import above_zero, machine, whole
from bench.environments import answer, environment
from bench.flower import PACKAGE as FLOWER
from bench.peers.nvflare import PACKAGE as NVFLARE
from bench.peers.parts import Found, Parts
from bench.peers.processes import adopt_orphans

PACKAGES = {"flower": FLOWER, "nvflare": NVFLARE}
SYSTEMS = ("fedcollm", *PACKAGES)
PARTS = ("rounds", "memory", "aggregation", "crash", "training")


def arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """Return what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--agents", type=whole(2), nargs="+", default=[2, 4, 8])
    parser.add_argument("--rounds", type=whole(2), default=20, help="after a first that is dropped")
    parser.add_argument("--crashes", type=whole(1), default=3, help="kills of each coordinator, each its own moment")
    parser.add_argument("--limit", type=above_zero, default=300.0, help="seconds that a run's rounds may take")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--work", type=Path, help="folder for environments, which are used again, and for logs")
    parser.add_argument("--out", type=Path, help="write all that was measured as JSON too")
    return parser, parser.parse_args()


def environments(options: argparse.Namespace, work: Path) -> dict[str, Path]:
    """Return a Python for each peer, whose environment is made."""
    torch = {"crash", "training"} & set(options.parts)
    packages = ["numpy", *([f"torch=={version('torch').partition('+')[0]}"] if torch else [])]
    return {
        name: environment(work / name, [package, *packages])
        for name, package in PACKAGES.items()
        if name in options.systems
    }


def versions(pythons: dict[str, Path]) -> Iterator[str]:
    """Yield what the environments have."""
    for name, python in pythons.items():
        show = "from importlib.metadata import version as v; print(v('{}'), 'with numpy', v('numpy'))"
        yield f"{name}: {answer([str(python), '-c', show.format(PACKAGES[name].partition('=')[0])]).strip()}"


def compare(parser: argparse.ArgumentParser, options: argparse.Namespace, work: Path) -> Found:
    """Run the parts, print their tables, and write what is found, be it all or not."""
    pythons = environments(options, work)
    cases = Path(tempfile.mkdtemp(prefix="cases-", dir=work))
    parts = Parts(pythons, "fedcollm" in options.systems, cases, options.limit)
    parts.found.about = [*machine(parser, options), *versions(pythons)]
    parts.found.about += [f"{way.name}: {way.mode}" for way in parts.all_ways()]
    for line in parts.found.about:
        print(f"- {line}", flush=True)
    steps = {
        "rounds": lambda: parts.rounds(options.agents, options.rounds),
        "memory": parts.memory,
        "aggregation": parts.aggregation,
        "crash": lambda: parts.crash(options.crashes),
        "training": parts.training,
    }
    try:
        for name in options.parts:
            for line in ("", *steps[name]()):
                print(line, flush=True)
    finally:  # after hours, what there is by then is worth keeping
        if options.out:
            options.out.write_text(json.dumps(asdict(parts.found), indent=2))
    for failure in parts.found.failures:
        print(f"failed: {failure}")
    return parts.found


def main() -> int:
    """Compare; 0 means that nothing has failed, 130 that it was interrupted."""
    parser, options = arguments()
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # programs of other environments import this repository
    adopt_orphans()
    try:
        if options.work:
            options.work.mkdir(parents=True, exist_ok=True)
            return 1 if compare(parser, options, options.work.resolve()).failures else 0
        with tempfile.TemporaryDirectory() as folder:
            return 1 if compare(parser, options, Path(folder)).failures else 0
    except (asyncio.CancelledError, KeyboardInterrupt):
        print("interrupted: all processes have been ended", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
