"""The parts of the comparison, in their order; each measures, keeps what it finds and yields its tables."""

import shutil
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from bench.peers import aggregating, report
from bench.peers.aggregating import Aggregated
from bench.peers.alone import Alone
from bench.peers.crashing import Crashed, crash
from bench.peers.fedcollm import FedCoLLM
from bench.peers.flower import Flower
from bench.peers.interrupts import run_alone
from bench.peers.measuring import Measured, measure
from bench.peers.nvflare import NVFlare
from bench.peers.payload import DIM
from bench.peers.systems import Case, System, adapter_bytes
from shared.errors import FedCoLLMError

WIDE = 16 * DIM
"""The width of an adapter of 100 MB."""
COHORTS = ((DIM, 64), (WIDE, 4))
WIDE_ROUNDS, CRASH_ROUNDS, TRAINING_ROUNDS = 4, 6, 4
TRAINED_DIM, TRAINING_STEPS = 256, 20

Result = TypeVar("Result")


@dataclass
class Found:
    """Everything that was measured."""

    about: list[str] = field(default_factory=list)
    rounds: list[Measured] = field(default_factory=list)
    memory: list[Measured] = field(default_factory=list)
    aggregation: list[Aggregated] = field(default_factory=list)
    crashes: list[Crashed] = field(default_factory=list)
    uncrashed: list[Measured] = field(default_factory=list)
    training: list[Measured] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@dataclass
class Parts:
    """What can be compared. Peers have a Python each, by their names; FedCoLLM is there if they are or not."""

    pythons: dict[str, Path]
    ours: bool
    work: Path
    limit_seconds: float
    found: Found = field(default_factory=Found)
    _cases: int = 0

    def systems(self) -> list[System]:
        """Return the systems with their defaults."""
        systems: list[System] = [FedCoLLM("PlaintextAggregation")] if self.ours else []
        if "flower" in self.pythons:
            systems.append(Flower(self.pythons["flower"], authenticated=False))
        if "nvflare" in self.pythons:
            systems.append(NVFlare(self.pythons["nvflare"]))
        return systems

    def all_ways(self) -> list[System]:
        """Return the systems in all their ways, side by side."""
        ways = self.systems()
        if self.ours:
            ways.insert(1, FedCoLLM("SecureAggregation"))
        if "flower" in self.pythons:
            ways.append(Flower(self.pythons["flower"], authenticated=True))
        return ways

    def rounds(self, agents: list[int], rounds: int) -> Iterator[str]:
        """Compare rounds without training."""
        for count in agents:
            for system in self.all_ways():
                if count >= system.least_agents:
                    self._measure(self.found.rounds, system, Case(count, DIM, rounds + 1))
        yield from ("## Rounds without training, the first dropped", "")
        yield from report.rounds(self.found.rounds)

    def memory(self) -> Iterator[str]:
        """Compare memory with a large adapter."""
        for system in self.systems():
            self._measure(self.found.memory, system, Case(2, WIDE, WIDE_ROUNDS))
        yield from ("## An adapter of 100 MB, and how memory grows", "")
        yield from report.rounds(self.found.memory)
        yield ""
        yield from report.memory([*self.found.rounds, *self.found.memory])

    def aggregation(self) -> Iterator[str]:
        """Compare aggregation alone."""
        for dim, cohort in COHORTS:
            rates = {}
            if self.ours:
                rates["FedCoLLM: from the disk, checked, stored and synced"] = aggregating.ours(dim, cohort)
            for name, what in (("flower", "aggregate_arrayrecords"), ("nvflare", "WeightedAggregationHelper")):
                if name in self.pythons:
                    found = aggregating.theirs(self.pythons[name], f"{name}_app", dim, cohort)
                    rates[f"{name}: {what}, in memory"] = found
            self.found.aggregation += [
                Aggregated(what, adapter_bytes(dim), cohort, found) for what, found in rates.items()
            ]
        yield from ("## Aggregation alone, in one process", "")
        yield from report.aggregation(self.found.aggregation)

    def crash(self, crashes: int) -> Iterator[str]:
        """Kill coordinators."""
        for system in [way for way in self.all_ways() if isinstance(way, FedCoLLM) or way in self.systems()]:
            case = Case(max(2, system.least_agents), DIM, CRASH_ROUNDS, durable=True)
            for seed in range(1, crashes + 1):
                killed = partial(crash, system, case, seed, self.limit_seconds)
                if crashed := self._run(f"{system.name}, kill -9 of the coordinator, seed {seed}", killed):
                    self.found.crashes.append(crashed)
            if any(each.system == system.name and each.digest for each in self.found.crashes):
                self._measure(self.found.uncrashed, system, case)
        yield from ("## kill -9 of the coordinator's side", "")
        yield from report.crashes(self.found.crashes, {each.system: each.digest for each in self.found.uncrashed})

    def training(self) -> Iterator[str]:
        """Compare what comes on top of a real training."""
        case = Case(2, TRAINED_DIM, TRAINING_ROUNDS + 1, steps=TRAINING_STEPS)
        for system in (Alone(), *self.systems()):
            self._measure(self.found.training, system, case)
        yield from ("## A real LoRA training in every round", "")
        yield from report.training(self.found.training)

    def _measure(self, into: list[Measured], system: System, case: Case) -> None:
        what = f"{system.name}, {case.agents} agents, {case.adapter_bytes / 1e6:.1f} MB, {case.rounds} rounds"
        measured = self._run(what, partial(measure, system, case, self.limit_seconds))
        if measured is not None:
            into.append(measured)

    def _run(self, what: str, work: Callable[[Path], Coroutine[None, None, Result]]) -> Result | None:
        """Run a case in a folder of its own; one that fails is told of, and the others go on."""
        self._cases += 1
        folder = self.work / f"case-{self._cases:02}"
        folder.mkdir()
        print(f"{time.strftime('%H:%M:%S')} {folder.name}: {what}", file=sys.stderr, flush=True)
        try:
            result = run_alone(work(folder))
        except (FedCoLLMError, OSError, RuntimeError) as error:
            self.found.failures.append(f"{what}: {type(error).__name__}: {error}")
            print(f"  failed: {error}", file=sys.stderr, flush=True)
            return None
        keep_logs(folder)
        return result


def keep_logs(folder: Path) -> None:
    """Remove what a case has left but for its logs: adapters of all rounds are gigabytes."""
    for each in folder.iterdir():
        if not each.is_dir():
            each.unlink()
        elif each.name != "logs":
            shutil.rmtree(each)
