"""A worker of several processes, from `torchrun` to a published round."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.federation import ManualClock, token_of
from services.coordinator.app import create_work_app
from services.coordinator.context import Context
from services.coordinator.records import Run
from services.coordinator.worker.model_pair import ModelPair
from shared.data.source import DataSource
from shared.protocol.codec import read_file
from shared.protocol.rounds import RoundState
from shared.protocol.terms import CotuningTerms, LoraTerms, OptimiserTerms
from shared.protocol.work import CotuneTask
from tests.support.federations import RUN, kinds, sign, submit, terms_of
from tests.support.served import served
from tests.support.tiny_models import tiny_directory

ROOT = Path(__file__).parent.parent.parent
LORA = LoraTerms(rank=2, alpha=4, dropout=0.0)
OPTIMISER = OptimiserTerms(learning_rate=1e-3)
LEASE_SECONDS = 30


@contextmanager
def worker(folder: Path, port: int, *, sharding: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run two processes as one worker, started anew when one dies, while the block runs; its log is ``log``."""
    (folder / "token").write_text(token_of("worker"))
    settings = {
        "COORDINATOR_URL": f"http://127.0.0.1:{port}",
        "TOKEN_FILE": folder / "token",
        "CACHE_DIR": folder / "cache",
        "AUXILIARY__PATH": folder / "data.jsonl",
        "VALIDATION__PATH": folder / "data.jsonl",
        "NAME": "two",
        "DEVICE": "cpu",
        "SHARDING": sharding,
        "CHECKPOINT_SECONDS": 0,
    }
    environment = {f"FEDCOLLM_WORKER_{name}": str(value) for name, value in settings.items()}
    program = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "2"]
    with (folder / "log").open("wb") as log:
        started = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", *program, "-m", "services.coordinator.worker"],
            cwd=ROOT,
            env=os.environ | environment | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            stderr=log,
        )
        try:
            yield started
        finally:
            started.send_signal(signal.SIGTERM)
            started.wait(timeout=60)


def rank_1(started: subprocess.Popen[bytes]) -> int:
    """Return the process that is not the first."""
    children = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
    (found,) = (child for child in children if b"\0RANK=1\0" in Path(f"/proc/{child}/environ").read_bytes())
    return int(found)


def wait_until(true: Callable[[], bool], folder: Path) -> None:
    """Look often until something is so; a worker that does not come to it says why."""
    deadline = time.monotonic() + 150
    while not true():
        assert time.monotonic() < deadline, (folder / "log").read_text()[-6000:]
        time.sleep(0.01)


def stored_run(context: Context) -> Run:
    """Return the run as it is stored."""
    with context.store.read() as tx:
        return tx.run(RUN)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("sharding", ["none", "full"])
def test_two_processes_of_which_one_is_killed_end_as_one_alone(
    sharding: str, context: Context, tmp_path: Path, clock: ManualClock
) -> None:
    """They prepare, co-tune and evaluate. `torchrun` starts both anew, and they go on from the checkpoint."""
    for seed, name in enumerate(("llm", "slm")):
        tiny_directory(tmp_path / name, seed=seed)
    colours = ["red", "tan", "blue"]
    rows = ({"question": f"{number} is", "choices": colours, "answer": colours[number % 3]} for number in range(10))
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    terms = terms_of(
        llm=str(tmp_path / "llm"),
        slm=str(tmp_path / "slm"),
        slm_lora=LORA,
        llm_lora=LORA,
        gate={"enabled": False},
        cotuning=CotuningTerms(passes=4, batch_size=3, llm_optimiser=OPTIMISER, slm_optimiser=OPTIMISER),
    )
    context.lifecycle.create(RUN, terms, actor="operator")
    context.lifecycle.start(RUN, actor="operator")
    with (
        served(create_work_app(context)) as port,
        worker(tmp_path, port, sharding=sharding) as started,
    ):
        wait_until(lambda: "run.prepared" in kinds(context), tmp_path)
        sign(context, RUN)
        prepared = stored_run(context).prepared
        assert prepared is not None
        for agent, value in (("ada", 0.01), ("bob", 0.03)):
            submit(context, agent, value, layout=prepared.slm.layout)
        context.rounds.reconcile()
        with context.store.read() as tx:
            (job,) = tx.open_jobs(RUN)
        wait_until(lambda: any((tmp_path / "cache" / "checkpoints").glob("*.safetensors")), tmp_path)
        os.kill(rank_1(started), signal.SIGKILL)
        wait_until(lambda: "worker.started" in (tmp_path / "log").read_text().split("exitcode: -9", 1)[-1], tmp_path)
        clock.advance(LEASE_SECONDS + 1)
        context.rounds.reconcile()
        wait_until(lambda: context.lifecycle.rounds(RUN).rounds[0].state is RoundState.PUBLISHED, tmp_path)
        context.changes.stop()
    assert "checkpoint.resumed" in (tmp_path / "log").read_text()
    assert isinstance(job.task, CotuneTask)
    expected = cotuned_alone(context, tmp_path, job.task)
    with context.store.read() as tx:
        (played,) = tx.rounds(RUN)
    layout = prepared.slm.layout
    candidate = read_file(context.work.blob_path(str(played.slm_candidate)), layout)
    for name, values in read_file(expected, layout).items():
        np.testing.assert_allclose(candidate[name], values, atol=5e-4, rtol=0)


def cotuned_alone(context: Context, folder: Path, task: CotuneTask) -> Path:
    """Do the same work in this process, and return the SLM's adapter."""
    data: Any = DataSource(path=folder / "data.jsonl")
    pair = ModelPair(
        auxiliary=data, validation=data, device="cpu", dtype="float32", digest_cache=folder / "digests.json"
    )
    pair.cotune(
        stored_run(context).terms,
        prepared=task.prepared,
        seed=task.seed,
        slm=context.work.blob_path(task.slm_adapter),
        llm=context.work.blob_path(task.llm_adapter),
        slm_into=folder / "slm.alone",
        llm_into=folder / "llm.alone",
        checkpoint=folder / "kept",
        require_lease=lambda: None,
    )
    return folder / "slm.alone"
