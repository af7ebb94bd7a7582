"""Flower in a virtual environment of its own, for what ours is compared with."""

import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "flwr==1.41.0"
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Taken:
    """What Flower's SecAgg+ took for one aggregation, seconds and a processor's; the error is the mean's largest."""

    flwr: str
    agent: tuple[float, float]
    coordinator: tuple[float, float]
    masked_bytes: int
    error: float


def installed(folder: Path) -> Path:
    """Return the Python of an environment in ``folder`` that has Flower; it is made, and PIP_ARGS are pip's."""
    python = folder / "flwr" / "bin" / "python"
    if not python.exists():
        _run([sys.executable, "-m", "venv", str(python.parents[1])])
    arguments = shlex.split(os.environ.get("PIP_ARGS", ""))
    _run([str(python), "-m", "pip", "install", "--quiet", *arguments, PACKAGE])
    return python


def sec_agg_plus(python: Path, *, parties: int, parameters: int, lost: int) -> Taken:
    """Run one aggregation with Flower's SecAgg+, complete graph, the same threshold as ours."""
    numbers = {"parties": parties, "parameters": parameters, "lost": lost}
    options = [word for name, value in numbers.items() for word in (f"--{name}", str(value))]
    return Taken(**json.loads(_run([str(python), "-m", "bench.flower_secagg", *options])))


def _run(command: list[str]) -> str:
    environment = {**os.environ, "FLWR_TELEMETRY_ENABLED": "0"}
    answer = subprocess.run(  # noqa: S603 - our own programs
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if answer.returncode:
        raise RuntimeError(f"{shlex.join(command)} has failed:\n{answer.stderr[-2000:]}")
    return answer.stdout
