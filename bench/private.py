"""The figures of secure aggregation: how exact it is, how long it takes beside Flower's SecAgg+, and how many bytes.

    python -m bench.private [--peers FOLDER] [--repeats 5]

Seconds are those of this machine while nothing else runs on it; each repeat has both systems one after the other.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np

from bench import flower
from bench.command_line import machine, whole
from bench.environments import environment
from bench.private_attempt import masked_attempt, unmask
from bench.private_bytes import request_bytes
from bench.private_oracle import exactness, weights_of
from services.coordinator.blobs import FileBlobs
from services.coordinator.masked_sums import LARGEST_ERROR
from services.coordinator.unmasking import Unmasking, processes
from shared.protocol.secagg.coding import SLOTS

PARTIES, PARAMETERS, LOST = 50, 1_000_000, 5
GROUPS, GROUP_SIZE = 8, 125


def errors() -> Iterator[str]:
    """Yield how exact sums and means are."""
    yield "error of the mean against float64 (and the bound published), multiples of the clip; wanted: 1e-6 or less"
    for parties in (4, 10, 50):
        tenth, spread = range(max(1, parties // 10)), weights_of(parties)
        for what, weights, lost in (
            ("unweighted", None, ()),
            ("unweighted", None, tenth),
            ("weights spread from 1 to 1,000,000", spread, ()),
            ("weights spread from 1 to 1,000,000", spread, tenth),
            ("weights spread from 1 to 1,000,000, the heaviest lost", spread, [parties - 1]),
            ("all weights 1 but one of 1,000,000, and that one lost", [1] * (parties - 1) + [10**6], [parties - 1]),
        ):
            found = exactness(parties, weights=weights, lost=lost)
            bits = "bit-exact" if found.bit_exact else "NOT BIT-EXACT"
            end = "; the coordinator refuses that" if found.bound > LARGEST_ERROR else ""
            yield (
                f"  n = {parties:2}, {len(lost)} lost: sum {bits}, {found.error:.0e} ({found.bound:.0e}), {what}{end}"
            )


def beside_flower(python: Path, repeats: int) -> Iterator[str]:
    """Yield what agents and coordinators take, ours and Flower's."""
    yield (
        f"beside {flower.PACKAGE}'s SecAgg+: n = {PARTIES}, {PARAMETERS:,} parameters, {LOST} lost with their masked "
        f"vectors, a threshold of {2 * PARTIES // 3 + 1} both; median of {repeats} (least to most)"
    )
    ours, theirs = [], []
    with unmasking_processes() as unmasking, tempfile.TemporaryDirectory() as folder:
        blobs = FileBlobs(Path(folder))
        for repeat in range(repeats + 1):
            masked = masked_attempt(PARTIES, PARAMETERS, LOST, blobs)
            watch = unmask(masked, blobs, unmasking)
            for blob in masked.blobs:
                blobs.remove(blob.digest)
            if repeat == 0:
                first = watch.seconds  # its processes start with it
                continue
            coordinator = (masked.checking.seconds + watch.seconds, masked.checking.cpu_seconds + watch.cpu_seconds)
            ours.append((masked.agent, coordinator))
            theirs.append(flower.sec_agg_plus(python, parties=PARTIES, parameters=PARAMETERS, lost=LOST))
    for clock, unit in enumerate(("seconds", "of a processor's seconds")):
        agents, coordinators = ([each[who][clock] for each in ours] for who in (0, 1))
        yield _compared(f"  agent, {unit}", agents, [each.agent[clock] for each in theirs], wanted=12)
        yield _compared(f"  coordinator, {unit}", coordinators, [each.coordinator[clock] for each in theirs], wanted=40)
    yield f"  the coordinator's first unmasking, whose processes start with it: {first:.3f} seconds"
    yield f"  bytes of a masked vector: ours {4 * (PARAMETERS + SLOTS):,}, Flower's {theirs[0].masked_bytes:,}"
    yield f"  error of Flower's mean, numbers of 0.1, all weights its max_weight: {theirs[0].error:.1e}"


def many_agents(parameters: int) -> Iterator[str]:
    """Yield what the coordinator takes to unmask many agents in groups."""
    lost = [GROUP_SIZE * (group + 1) // 10 - GROUP_SIZE * group // 10 for group in range(GROUPS)]
    unmasked, checking = np.zeros(2), np.zeros(2)
    with unmasking_processes() as unmasking:
        for silent in lost:
            with tempfile.TemporaryDirectory() as folder:
                blobs = FileBlobs(Path(folder))
                masked = masked_attempt(GROUP_SIZE, parameters, silent, blobs)
                unmasked += unmask(masked, blobs, unmasking).taken
                checking += masked.checking.taken
    yield (
        f"{GROUPS * GROUP_SIZE:,} agents in {GROUPS} groups, {sum(lost)} lost with their masked vectors, "
        f"{parameters:,} parameters"
    )
    yield (
        f"  coordinator, from stored vectors and shares to the sum: {unmasked[0]:.1f} seconds in all (wanted: 10 or "
        f"less), {unmasked[1]:.1f} of a processor's"
    )
    yield f"  before that, to check the keys and signatures as they come: {checking[0]:.1f}, {checking[1]:.1f}"
    yield "  (one group after the other, each of agents that answer for real, in this process and not over a network)"


async def sizes() -> list[str]:
    """Return how many bytes an agent sends in a round."""
    sent = await request_bytes(PARTIES, PARAMETERS, LOST)
    return [
        f"an agent's {sent.requests} requests of a round, with their heads; n = {PARTIES}, {PARAMETERS:,} parameters",
        f"  {sent.bytes:,} bytes, {sent.bytes / PARAMETERS:.4f} a parameter (wanted: 4.05 or less)",
        f"  of which the masked vector {sent.masked:,} = 4 x ({PARAMETERS:,} + {SLOTS})",
    ]


@contextmanager
def unmasking_processes() -> Iterator[Unmasking]:
    """Give what the coordinator unmasks with, and end its processes afterwards."""
    unmasking = Unmasking(processes)
    try:
        yield unmasking
    finally:
        unmasking.close()


def _compared(what: str, ours: Sequence[float], theirs: Sequence[float], *, wanted: int) -> str:
    ratios = [their / our for our, their in zip(ours, theirs, strict=True)]
    return (
        f"{what}: {_range(ours, '.3f')}, Flower {_range(theirs, '.2f')}, ratio {_range(ratios, '.0f')}, wanted {wanted}"
    )


def _range(values: Collection[float], form: str) -> str:
    return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def main() -> None:
    """Measure, and print each figure when it is there."""
    parser = argparse.ArgumentParser(prog="python -m bench.private", description=__doc__)
    parser.add_argument("--peers", type=Path, help="folder for Flower's environment, to use it again")
    parser.add_argument("--repeats", type=whole(1), default=3, help="of the comparison with Flower")
    parser.add_argument("--parameters", type=whole(1), default=PARAMETERS, help="of the 1,000 agents' updates")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for line in machine(parser, options):
            print(line)
        for line in (*errors(), *asyncio.run(sizes())):
            print(line, flush=True)
        python = environment((options.peers or Path(folder)) / "flwr", [flower.PACKAGE])
        for line in beside_flower(python, options.repeats):
            print(line, flush=True)
        for line in many_agents(options.parameters):
            print(line, flush=True)


if __name__ == "__main__":
    main()
