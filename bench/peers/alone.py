"""The training alone: the same processes without any federation, so that nothing comes on top."""

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.counting_proxy import ByteCount
from bench.peers import noted
from bench.peers.processes import ProcessTree
from bench.peers.systems import Case, RoundEnd, Running
from examples.demo.processes import Processes


@dataclass(frozen=True)
class Alone:
    """Processes that train round after round and wait for nobody."""

    name: str = "training alone"
    mode: str = "a process for each agent, which trains and does nothing else"
    least_agents: int = 1

    @asynccontextmanager
    async def running(self, folder: Path, case: Case) -> AsyncIterator[Running]:
        """Start the processes; the first of them tells of rounds."""
        processes = Processes(folder / "logs")
        command = [sys.executable, "-m", "bench.peers.lora"]
        try:
            for number in range(case.agents):
                numbers = (number, case.dim, case.rounds, case.steps)
                await processes.start(f"agent-{number + 1}", [*command, *map(str, numbers)], {})
            yield _Running(folder)
        finally:
            await processes.stop()


@dataclass
class _Running:
    folder: Path
    port: int = 0
    count: ByteCount = field(default_factory=ByteCount)
    coordinator: ProcessTree = field(default_factory=ProcessTree)

    def rounds(self) -> Sequence[RoundEnd]:
        """Return the trainings of the first process."""
        return noted.rounds(self.folder)

    async def kept(self) -> int | None:
        """Return nothing: there is no coordinator."""
        return None

    async def crash(self) -> None:
        """Do nothing: there is no coordinator."""

    async def restart(self) -> None:
        """Do nothing."""
