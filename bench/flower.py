"""Flower in a virtual environment of its own, for what ours is compared with."""

import json
from dataclasses import dataclass
from pathlib import Path

from bench.environments import answer

PACKAGE = "flwr==1.41.0"
NO_TELEMETRY = {"FLWR_TELEMETRY_ENABLED": "0"}


@dataclass(frozen=True)
class Taken:
    """What Flower's SecAgg+ took for one aggregation, seconds and a processor's; the error is the mean's largest."""

    flwr: str
    agent: tuple[float, float]
    coordinator: tuple[float, float]
    masked_bytes: int
    error: float


def sec_agg_plus(python: Path, *, parties: int, parameters: int, lost: int) -> Taken:
    """Run one aggregation with Flower's SecAgg+, complete graph, the same threshold as ours."""
    numbers = {"parties": parties, "parameters": parameters, "lost": lost}
    options = [word for name, value in numbers.items() for word in (f"--{name}", str(value))]
    return Taken(**json.loads(answer([str(python), "-m", "bench.flower_secagg", *options], NO_TELEMETRY)))
