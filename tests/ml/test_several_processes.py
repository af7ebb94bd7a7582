"""One run of two processes, by gloo on the CPU, and what it has to be the same as."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.devices import DtypeName
from shared.errors import ConfigurationError
from shared.ml.adapters import adapter_layout
from shared.ml.memory import shape_of
from shared.ml.process_group import ALONE, OneProcess, device_of_rank, process_group
from shared.protocol.codec import decode
from shared.protocol.terms import LoraTerms
from tests.support.several_ranks import CPU, pair, said, scored, tuned
from tests.support.tiny_models import tiny_directory

ROOT = Path(__file__).parent.parent.parent
SCHEDULES = pytest.mark.parametrize("schedule", ["simultaneous", "sequential"])
KINDS = pytest.mark.parametrize("kind", ["replicated", "sharded"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes have left."""
    made = tmp_path_factory.mktemp("two")
    program = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ended = subprocess.run(  # noqa: S603 - our own module
        [sys.executable, "-m", *program, "-m", "tests.support.several_ranks", str(made)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    # Not its exit status: PyTorch has been seen to abort one of them when all was done.
    assert (made / "found.json").exists(), ended.stderr[-4000:]
    return made


def found(folder: Path) -> dict[str, Any]:
    """Return what they say."""
    return json.loads((folder / "found.json").read_text())


def assert_same(folder: Path, name: str, adapters: list[bytes]) -> None:
    """AdamW divides by the gradient's size, so that rounding shows where it is nearly zero."""
    for part, model, expected in zip(("llm", "slm"), pair(ALONE), adapters, strict=True):
        layout = adapter_layout(model)
        theirs, ours = decode((folder / f"{name}-{part}").read_bytes(), layout), decode(expected, layout)
        for tensor, values in ours.items():
            np.testing.assert_allclose(theirs[tensor], values, atol=5e-4, rtol=0)


@KINDS
@SCHEDULES
def test_two_processes_co_tune_and_evaluate_as_one(kind: str, schedule: str, folder: Path) -> None:
    """Whether each has whole models or a part of their layers, by batches that do not divide by two."""
    models = pair(ALONE)
    adapters = tuned(models, ALONE, schedule=schedule)
    assert_same(folder, f"{kind}-{schedule}", adapters)
    theirs = found(folder)[f"{kind}-{schedule}"]
    assert theirs["scores"] == pytest.approx(scored(models[0], ALONE), rel=1e-2)
    assert theirs["said"] == said(models[1])


def test_memory_that_runs_out_in_one_process_makes_all_take_less_at_once(folder: Path) -> None:
    """The step is the same, and so are the weights of all of them."""
    assert_same(folder, "short", tuned(pair(ALONE), ALONE))
    assert found(folder)["same bytes in all"]


def test_two_processes_go_on_from_a_checkpoint(folder: Path) -> None:
    """Each with its own dropout, to the bytes of two that nothing happened to."""
    assert found(folder)["resumed"]


def test_an_error_of_one_process_is_told_in_all(folder: Path) -> None:
    """So that none waits for an answer that does not come."""
    first, second = map(json.loads, found(folder)["errors"])
    assert first == ["lease_lost: it is lost", "memory_too_small: process 1: no room"]
    assert second == ["lease_lost: process 0: it is lost", "memory_too_small: no room"]


def test_one_process_is_a_group_that_shards_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without torchrun there is nobody to share a model's layers with."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with process_group(CPU, sharded=False) as group:
        assert isinstance(group, OneProcess)
    with pytest.raises(ConfigurationError, match="torchrun"), process_group(CPU, sharded=True):
        pass
    assert device_of_rank("auto") == "auto"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_process_of_two_holds_half_of_the_layers(dtype: DtypeName, tmp_path: Path) -> None:
    """The estimate of memory counts them so, and embeddings and head whole."""
    tiny_directory(tmp_path)
    two = OneProcess()
    two.size, two.sharded = 2, True
    how: dict[str, Any] = {"dtype": dtype, "lora": LoraTerms(rank=4), "gradient_checkpointing": False}
    whole, half = (shape_of(tmp_path, **how, group=group).held.parts["base weights"] for group in (ALONE, two))
    outside = 2 * 264 * 32 * (4 if dtype == "float32" else 2)
    assert half - outside == pytest.approx((whole - outside) / 2, abs=1)
