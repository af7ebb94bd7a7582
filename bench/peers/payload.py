"""What all systems move in a round, and what they note of it; NumPy alone, because it runs in every environment."""

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

LAYERS, RANK = 24, 8
DIM = 2048
FOLDER = "FEDCOLLM_BENCH_FOLDER"
"""The environment variable that names the folder for notes."""
REPEATS = 5

Update = TypeVar("Update")
Tensors: TypeAlias = dict[str, NDArray[np.float32]]


def layout(dim: int) -> dict[str, tuple[int, int]]:
    """Return the shapes of a LoRA adapter of rank 8 on q and v of 24 layers: 96 tensors."""
    return {
        f"base_model.model.model.layers.{layer}.self_attn.{target}_proj.lora_{factor}.weight": shape
        for layer in range(LAYERS)
        for target in ("q", "v")
        for factor, shape in (("A", (RANK, dim)), ("B", (dim, RANK)))
    }


def zeros(dim: int) -> Tensors:
    """Return the adapter that every system begins with."""
    return {name: np.zeros(shape, np.float32) for name, shape in layout(dim).items()}


def noisy(tensors: Mapping[str, NDArray[np.float32]], seed: int) -> Tensors:
    """Return the update of a trainer that trains nothing: noise of standard deviation 0.001, by the seed alone."""
    random = np.random.default_rng(seed)
    scale = np.float32(1e-3)
    return {
        name: tensors[name] + scale * random.standard_normal(tensors[name].shape, np.float32)
        for name in sorted(tensors)
    }


def update_seed(number: int, client: int) -> int:
    """Return the seed of a client's update in a round: the same in a run that is repeated."""
    return 1000 * number + client


def digest(tensors: Mapping[str, NDArray[np.float32]]) -> str:
    """Return a digest of an adapter's numbers."""
    sha256 = hashlib.sha256()
    for name in sorted(tensors):
        sha256.update(np.ascontiguousarray(tensors[name], "<f4").tobytes())
    return sha256.hexdigest()


def note(kind: str, **what: float | str | None) -> None:
    """Add a line to a file that the bench reads: a round that has ended, or a training."""
    with (Path(os.environ[FOLDER]) / f"{kind}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"at": time.time(), **what}) + "\n")


def note_round(number: int, last: Mapping[str, NDArray[np.float32]] | None) -> None:
    """Note that a round has ended, and what the last one gave."""
    note("rounds", number=number, digest=None if last is None else digest(last))


def print_rates(of: Callable[[Tensors], Update], aggregate: Callable[[list[Update]], object]) -> None:
    """Time a system's own aggregation of DIM and COHORT on the command line, and print adapters a second as JSON."""
    dim, cohort = int(sys.argv[1]), int(sys.argv[2])
    updates = [of(noisy(zeros(dim), seed)) for seed in range(cohort)]
    rates = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        aggregate(updates)
        rates.append(cohort / (time.perf_counter() - started))
    print(json.dumps(rates))
