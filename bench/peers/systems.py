"""What is asked of each system, and what a system that runs can be asked."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.counting_proxy import ByteCount
from bench.peers.payload import layout
from bench.peers.processes import ProcessTree


@dataclass(frozen=True)
class Case:
    """A run: how many agents, the width of the adapter, its rounds, and steps of a real training (0: noise).

    ``durable`` asks for what a system keeps on the disk, if it is told to: for runs whose coordinator is killed.
    """

    agents: int
    dim: int
    rounds: int
    steps: int = 0
    durable: bool = False

    @property
    def adapter_bytes(self) -> int:
        """Bytes of the adapter's numbers."""
        return adapter_bytes(self.dim)


def adapter_bytes(dim: int) -> int:
    """Return the bytes of the numbers of an adapter of this width."""
    return 4 * sum(rows * columns for rows, columns in layout(dim).values())


@dataclass(frozen=True)
class RoundEnd:
    """A round has ended at that second by the coordinator's clock; of the last one, a digest of its adapter."""

    number: int
    at: float
    digest: str | None = None


class Running(Protocol):
    """A system that runs a case."""

    coordinator: ProcessTree

    @property
    def port(self) -> int:
        """The coordinator's own, behind the proxy."""
        ...

    @property
    def count(self) -> ByteCount:
        """What went through the proxy."""
        ...

    def rounds(self) -> Sequence[RoundEnd]:
        """Return the rounds that have ended, in the order of their ends.

        Raises:
            RuntimeError: the run has failed.
        """
        ...

    async def kept(self) -> int | None:
        """Return the newest round whose adapter the coordinator's side has kept; None if it has kept none."""
        ...

    async def crash(self) -> None:
        """Kill every process on the coordinator's side, as ``kill -9`` does; what restarts them stays."""
        ...

    async def restart(self) -> None:
        """Start the coordinator's side again, if nothing of the system's own does."""
        ...


class System(Protocol):
    """A system, in one way of running it."""

    @property
    def name(self) -> str:
        """Its name, and what it is given beyond its defaults."""
        ...

    @property
    def mode(self) -> str:
        """How it runs here."""
        ...

    @property
    def least_agents(self) -> int:
        """Agents that it needs."""
        ...

    def running(self, folder: Path, case: Case) -> AbstractAsyncContextManager[Running]:
        """Start everything, in an empty folder; all of it ends with the block."""
        ...
