import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.client_agent.trainer import (
    GaveWay,
    GiveWay,
    Measured,
    MeasureOrder,
    Progress,
    StandaloneOrder,
    Trained,
    TrainerProcess,
    TrainingOrder,
)
from shared.errors import BaseModelMismatch, ConfigurationError, LossNotFinite, PartMissing, TrainerStopped
from shared.protocol.digests import digest_of
from shared.protocol.manifest import Manifest
from shared.protocol.terms import TaskTerms
from tests.support.federations import SLM_LAYOUT, adapter, terms_of

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
TERMS = terms_of()
COMMAND = (sys.executable, str(ROOT / "tests" / "support" / "tiny_trainer.py"))


@pytest.fixture
async def trainer() -> AsyncIterator[TrainerProcess]:
    """A trainer whose child is a real process without torch."""
    process = TrainerProcess(COMMAND)
    yield process
    await process.stop()


def order_of(run_name: str, folder: Path) -> TrainingOrder:
    """Return an order; the tiny trainer does what the run's name says."""
    (folder / "theta").write_bytes(adapter(1.0))
    manifest = Manifest(
        federation="clinics",
        run_id="run",
        run_name=run_name,
        seed=1,
        llm_digest=digest_of(b"llm"),
        slm_digest=digest_of(b""),
        tokenizer_digest=digest_of(b""),
        slm_lora=TERMS.slm_lora,
        layout=SLM_LAYOUT,
        adapter_config={},
        task=TaskTerms(),
        training=TERMS.training,
        weighting="unweighted",
        aggregation="PlaintextAggregation",
        cohort=TERMS.cohort,
        masking=TERMS.masking,
        evaluation_examples=0,
    )
    return TrainingOrder(manifest=manifest, adapter=folder / "theta", into=folder / "update", seed=5)


def standalone_of(run_name: str, folder: Path) -> StandaloneOrder:
    """Return an order that no round waits for."""
    manifest = order_of(run_name, folder).manifest
    return StandaloneOrder(manifest=manifest, adapter=None, into=folder / "standalone", seed=5)


def measure_of(run_name: str, folder: Path) -> MeasureOrder:
    """Return an order to measure."""
    order = order_of(run_name, folder)
    return MeasureOrder(manifest=order.manifest, adapter=order.adapter)


async def test_a_rounds_training_does_not_wait_for_what_none_waits_for(trainer: TrainerProcess, tmp_path: Path) -> None:
    """It comes in between after a step, in the same child; what gave way may be ordered again, and then ends."""
    standalone = asyncio.create_task(trainer.between(standalone_of("wait", tmp_path)))
    async with asyncio.timeout(30):
        while not (tmp_path / "standalone").exists():
            await asyncio.sleep(0.01)
    process = trainer._process
    trained = await trainer.train(order_of("train", tmp_path), lambda _: None)
    assert digest_of((tmp_path / "update").read_bytes()) == trained.digest
    assert await standalone == GaveWay()
    again = await trainer.between(standalone_of("train", tmp_path))
    assert isinstance(again, Trained)
    assert digest_of((tmp_path / "standalone").read_bytes()) == again.digest
    assert isinstance(await trainer.between(measure_of("train", tmp_path)), Measured)
    assert trainer._process is process


async def test_what_no_round_waits_for_does_not_begin_when_one_waits(trainer: TrainerProcess, tmp_path: Path) -> None:
    """Though its turn came first."""
    measure, train = measure_of("train", tmp_path), order_of("train", tmp_path)
    async with trainer._turn:
        between = asyncio.create_task(trainer.between(measure))
        await asyncio.sleep(0)
        training = asyncio.create_task(trainer.train(train, lambda _: None))
        await asyncio.sleep(0)
    assert await between == GaveWay()
    assert isinstance(await training, Trained)


async def test_a_child_gives_way_to_nobody_when_it_does_nothing(trainer: TrainerProcess, tmp_path: Path) -> None:
    """What it was for has ended meanwhile."""
    await trainer.start()
    trainer._process.stdin.write(GiveWay().model_dump_json().encode() + b"\n")
    assert isinstance(await trainer.between(measure_of("train", tmp_path)), Measured)
    assert isinstance(await trainer.train(order_of("train", tmp_path), lambda _: None), Trained)


async def test_an_answer_to_another_order_is_none(tmp_path: Path) -> None:
    """The child is stopped: whose answer the next one would be, nobody knows."""
    line = GaveWay().model_dump_json()
    trainer = TrainerProcess((sys.executable, "-c", f"print('{line}', flush=True); input(); input()"))
    with pytest.raises(TrainerStopped, match="answered an order to train with gave_way"):
        await trainer.train(order_of("train", tmp_path), lambda _: None)
    assert trainer._process.returncode is not None


async def test_a_child_that_cannot_train_says_why_to_every_order(tmp_path: Path) -> None:
    """A device that this machine does not have: the agent shows it, and no traceback takes its place."""
    child = (
        "from services.client_agent.trainer_process import serve\n"
        "from shared.errors import ConfigurationError\n"
        "def unable(): raise ConfigurationError('no such device')\n"
        "serve(unable)"
    )
    process = TrainerProcess((sys.executable, "-c", child))
    try:
        for _ in range(2):
            with pytest.raises(ConfigurationError, match="no such device"):
                await process.train(order_of("train", tmp_path), lambda _: None)
            with pytest.raises(ConfigurationError, match="no such device"):
                await process.between(measure_of("measure", tmp_path))
            with pytest.raises(ConfigurationError, match="no such device"):
                await process.between(standalone_of("train", tmp_path))
    finally:
        await process.stop()


async def test_the_child_trains_and_stays(trainer: TrainerProcess, tmp_path: Path) -> None:
    """Two orders, one process; progress comes while it trains, and the update is in the file."""
    await trainer.start()
    process = trainer._process
    for _ in range(2):
        seen: list[Progress] = []
        trained = await trainer.train(order_of("train", tmp_path), seen.append)
        assert [progress.step for progress in seen] == [1]
        assert digest_of((tmp_path / "update").read_bytes()) == trained.digest
    assert trainer._process is process


async def test_noise_on_standard_output_does_not_break_the_protocol(trainer: TrainerProcess, tmp_path: Path) -> None:
    """Libraries that print, in Python or below it, print into the log."""
    trained = await trainer.train(order_of("noise", tmp_path), lambda _: None)
    assert digest_of((tmp_path / "update").read_bytes()) == trained.digest


@pytest.mark.parametrize("line", ["hello", "x" * 3_000_000], ids=["noise", "a line without end"])
async def test_a_program_that_speaks_another_language_is_stopped(line: str, tmp_path: Path) -> None:
    """What is no answer is an error that says so, and the child does not stay."""
    trainer = TrainerProcess((sys.executable, "-c", f"print('{line[0]}' * {len(line)}); input(); input()"))
    with pytest.raises(TrainerStopped, match="no answer"):
        await trainer.train(order_of("train", tmp_path), lambda _: None)
    assert trainer._process is not None
    assert trainer._process.returncode is not None


async def test_a_trainer_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    """A setting that this machine cannot serve reaches the agent's status page as what it is, not as a dead child."""
    program = (
        "from shared.errors import ConfigurationError\n"
        "from services.client_agent.trainer_process import serve\n"
        "def make(): raise ConfigurationError('dtype is nf4, and bitsandbytes is not installed')\n"
        "serve(make)\n"
    )
    trainer = TrainerProcess((sys.executable, "-c", program))
    try:
        for _ in range(2):
            with pytest.raises(ConfigurationError, match="bitsandbytes is not installed"):
                await trainer.train(order_of("train", tmp_path), lambda _: None)
    finally:
        await trainer.stop()


@pytest.mark.parametrize("error", [BaseModelMismatch, LossNotFinite, PartMissing])
async def test_an_error_of_the_child_is_the_same_error_here(
    error: type[Exception], trainer: TrainerProcess, tmp_path: Path
) -> None:
    """Class and message survive the pipe, and the child goes on."""
    with pytest.raises(error, match="what happened"):
        await trainer.train(order_of(f"fail {error.code}", tmp_path), lambda _: None)
    process = trainer._process
    await trainer.train(order_of("train", tmp_path), lambda _: None)
    assert trainer._process is process


async def test_an_error_whose_code_nobody_knows_is_still_an_error(trainer: TrainerProcess, tmp_path: Path) -> None:
    """A newer child's code becomes TrainerStopped with its message."""
    with pytest.raises(TrainerStopped, match="what happened"):
        await trainer.train(order_of("fail unheard_of", tmp_path), lambda _: None)


async def test_ctrl_c_at_a_terminal_does_not_reach_the_child(trainer: TrainerProcess) -> None:
    """A terminal sends it to the agent's process group; the agent ends its child itself, without a traceback."""
    await trainer.start()
    assert os.getpgid(trainer._process.pid) != os.getpgid(0)


async def test_a_fault_that_nobody_foresaw_is_told_and_the_next_order_gets_a_new_child(
    trainer: TrainerProcess, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What it was reaches the agent, and where it was its log; an error of CUDA would stay with the process."""
    with pytest.raises(TrainerStopped, match=r"the training failed \(ZeroDivisionError: by nothing\); see its log"):
        await trainer.train(order_of("crash", tmp_path), lambda _: None)
    assert "tiny_trainer.py" in capfd.readouterr().err
    trained = await trainer.train(order_of("train", tmp_path), lambda _: None)
    assert digest_of((tmp_path / "update").read_bytes()) == trained.digest


@pytest.mark.parametrize(
    ("end", "told"),
    [("exit", "ended with code 3"), ("kill", "killed, most likely for want of memory")],
)
async def test_a_child_that_dies_is_started_again(end: str, told: str, trainer: TrainerProcess, tmp_path: Path) -> None:
    """Out of memory or an operator's kill: TrainerStopped now, and a new child for the next order."""
    with pytest.raises(TrainerStopped, match=told):
        await trainer.train(order_of(end, tmp_path), lambda _: None)
    trained = await trainer.train(order_of("train", tmp_path), lambda _: None)
    assert digest_of((tmp_path / "update").read_bytes()) == trained.digest


async def test_a_child_that_died_between_two_orders_is_started_again(trainer: TrainerProcess, tmp_path: Path) -> None:
    """Nobody notices a death that cost nothing."""
    await trainer.train(order_of("train", tmp_path), lambda _: None)
    trainer._process.kill()
    await trainer._process.wait()
    await trainer.train(order_of("train", tmp_path), lambda _: None)


async def test_an_order_that_nobody_waits_for_is_given_up(trainer: TrainerProcess, tmp_path: Path) -> None:
    """After a cancelled training the next order gets its own answer, not the cancelled one's."""
    started = asyncio.Event()
    training = asyncio.create_task(trainer.train(order_of("hang", tmp_path), lambda _: started.set()))
    await started.wait()
    training.cancel()
    with pytest.raises(asyncio.CancelledError):
        await training
    trained = await trainer.train(order_of("train", tmp_path), lambda _: None)
    assert digest_of((tmp_path / "update").read_bytes()) == trained.digest


async def test_the_child_ends_with_the_agent(tmp_path: Path) -> None:
    """A child whose standard input closes ends at once, even in the middle of a training."""
    trainer, started = TrainerProcess(COMMAND), asyncio.Event()
    training = asyncio.create_task(trainer.train(order_of("hang", tmp_path), lambda _: started.set()))
    await started.wait()
    process = trainer._process
    process.stdin.close()
    async with asyncio.timeout(30):
        assert await process.wait() == 0
    with pytest.raises(TrainerStopped):
        await training
