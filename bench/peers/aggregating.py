"""Adapters aggregated a second by each system's own code, in one process."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.aggregation import rates, stored_adapters
from bench.environments import answer
from bench.flower import NO_TELEMETRY
from bench.peers.payload import layout
from services.coordinator.blobs import FileBlobs


@dataclass(frozen=True)
class Aggregated:
    """What a system's aggregation of a cohort made, each time that it was tried."""

    what: str
    adapter_bytes: int
    cohort: int
    rates: list[float]


def ours(dim: int, cohort: int) -> list[float]:
    """Return the rates of the coordinator's own, from blobs on the disk."""
    with tempfile.TemporaryDirectory() as folder:
        blobs = FileBlobs(Path(folder))
        return rates(blobs, stored_adapters(blobs, layout(dim), cohort), layout(dim), cohort)


def theirs(python: Path, app: str, dim: int, cohort: int) -> list[float]:
    """Return the rates of another system's, from arrays in memory."""
    said = answer([str(python), "-m", f"bench.peers.{app}.aggregate", str(dim), str(cohort)], NO_TELEMETRY)
    found: list[float] = json.loads(said)
    return found
