"""What a coordinator bears: ``python -m bench.load --agents 10 100 1000 --out DIR``.

Protocol-level agents (requests, signatures, certificates, state folders and masks are the real ones, training adds
noise) against one coordinator as a process of its own, over TLS on loopback. A share of them is lost in each round, at
any stage. It writes a table, the same and more as JSON, and a page with plots, and ends by itself.
"""

import argparse
import asyncio
import logging
import tempfile
from pathlib import Path

import structlog
from pydantic import TypeAdapter

from bench.command_line import above_zero, machine, whole
from bench.load.measuring import Measured, Setting, measure
from bench.load.report import Summary, page, summary, table

# As long as the slowest agent of a stage takes, where two cores mask for all; a stage with losses lasts so long.
STAGE_SECONDS = 2.0
STAGE_SECONDS_AN_AGENT = 0.06


def stage_seconds(agents: int) -> float:
    """Return how long a stage waits for whoever is lost, or is behind all others on this machine."""
    return STAGE_SECONDS + STAGE_SECONDS_AN_AGENT * agents


def run(setting: Setting) -> Measured:
    """Measure in folders that are gone afterwards; those of agents in memory, where they share no disk with others."""
    memory = Path("/dev/shm")  # noqa: S108 - a folder of our own in it
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as agents,
    ):
        return asyncio.run(measure(Path(folder), Path(agents), setting))


def main() -> None:
    """Measure each number of agents, and write what came of it after each."""
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    parser.add_argument("--agents", type=whole(3), nargs="+", default=[10, 100, 1000])
    parser.add_argument("--rounds", type=whole(1), default=10)
    parser.add_argument("--lost", type=float, default=0.2, help="the share of agents that is lost in a round")
    parser.add_argument("--stage-seconds", type=above_zero, help="how long a stage waits (default: by the agents)")
    parser.add_argument("--processes", type=whole(1), default=2, help="processes that the agents live in")
    parser.add_argument("--minutes", type=above_zero, default=90.0, help="at most, for each number of agents")
    parser.add_argument("--seed", type=whole(0), default=1)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    options.out.mkdir(parents=True, exist_ok=True)
    about, found = list(machine(parser, options)), []
    for count in options.agents:
        setting = Setting(
            agents=count,
            rounds=options.rounds,
            lost_share=options.lost,
            stage_seconds=options.stage_seconds or stage_seconds(count),
            processes=min(options.processes, count),
            seed=options.seed,
            most_seconds=60 * options.minutes,
        )
        found.append(summary(run(setting)))
        text = "\n".join([*about, "", *table(found), ""])
        (options.out / "load.txt").write_text(text)
        (options.out / "load.json").write_bytes(TypeAdapter(list[Summary]).dump_json(found, indent=1) + b"\n")
        (options.out / "load.html").write_text(page(found))
        print(text, flush=True)


if __name__ == "__main__":
    main()
