"""The training process: ``python -m services.client_agent.trainer_process``, started by the agent and no one else."""

import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TextIO

import structlog

from services.client_agent.settings import Settings
from services.client_agent.trainer import (
    ORDERS,
    Answer,
    Failed,
    GaveWay,
    GiveWay,
    Measured,
    MeasureOrder,
    Progress,
    SpareTimeOrder,
    StandaloneOrder,
    Trained,
    TrainingOrder,
)
from shared.configuration import config_argument, read_settings
from shared.errors import FedCoLLMError
from shared.logs import log_to_stderr
from shared.storing import storing


class SyncTrainer(Protocol):
    """Trains in the calling thread."""

    def train(self, order: TrainingOrder, on_progress: Callable[[Progress], None]) -> Trained:
        """Train one update."""
        ...

    def train_alone(self, order: StandaloneOrder, on_step: Callable[[], None]) -> Trained:
        """Train an adapter of this organisation's data alone."""
        ...

    def measure(self, order: MeasureOrder, on_batch: Callable[[], None]) -> Measured:
        """Measure one adapter on the hold-out."""
        ...


def serve(make_trainer: Callable[[], SyncTrainer]) -> None:
    """Answer orders from standard input, one at a time, until it closes; then end, even in the middle of a step."""
    answers = _private_output()  # before the trainer's libraries can print
    try:
        trainer = make_trainer()
    except FedCoLLMError as error:  # a device that this machine does not have, say: the agent shows it
        trainer = _Unable(error)
    orders: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read_orders, args=(orders,), daemon=True).start()
    while True:
        order = ORDERS.validate_json(orders.get())
        if not isinstance(order, GiveWay):  # what it was for has ended already
            _write(answers, _answer(trainer, order, answers, orders))


class _Unable:
    """Answers every order with why there is no trainer."""

    def __init__(self, why: FedCoLLMError) -> None:
        self._why = why

    def train(self, order: TrainingOrder, on_progress: Callable[[Progress], None]) -> Trained:  # noqa: ARG002
        """Say why not."""
        raise self._why

    def train_alone(self, order: StandaloneOrder, on_step: Callable[[], None]) -> Trained:  # noqa: ARG002
        """Say why not."""
        raise self._why

    def measure(self, order: MeasureOrder, on_batch: Callable[[], None]) -> Measured:  # noqa: ARG002
        """Say why not."""
        raise self._why


class _GivesWay(Exception):
    """What no round waits for is let go of."""


def _answer(
    trainer: SyncTrainer, order: TrainingOrder | SpareTimeOrder, answers: TextIO, orders: queue.Queue[str]
) -> Answer | Failed:
    def give_way() -> None:
        if not orders.empty():
            raise _GivesWay

    try:
        with structlog.contextvars.bound_contextvars(run_id=order.manifest.run_id), storing("the agent's state_dir"):
            match order:
                case TrainingOrder():
                    return trainer.train(order, lambda progress: _write(answers, progress))
                case StandaloneOrder():
                    return trainer.train_alone(order, give_way)
                case MeasureOrder():
                    return trainer.measure(order, give_way)
    except _GivesWay:
        return GaveWay()
    except FedCoLLMError as error:
        return Failed(code=error.code, message=str(error))
    except Exception as error:  # noqa: BLE001 - a fault of ours or a library's: whoever runs the agent is to read of it
        traceback.print_exc()
        return Failed(
            code=FedCoLLMError.code, message=f"the training failed ({type(error).__name__}: {error}); see its log"
        )


def _write(answers: TextIO, line: Progress | Answer | Failed) -> None:
    answers.write(line.model_dump_json() + "\n")
    answers.flush()


def _read_orders(orders: queue.Queue[str]) -> None:
    for line in sys.stdin:
        orders.put(line)
    os._exit(0)  # the agent has ended: nobody waits for what the main thread is doing


def _private_output() -> TextIO:
    """Keep standard output for answers, and send whatever libraries print there to standard error."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers


def lora_trainer(config: Path | None) -> SyncTrainer:
    """Return the trainer that the agent's own settings ask for."""
    # Imported here, so that the agent can name this module without importing torch.
    import torch  # noqa: PLC0415

    from services.client_agent.lora_trainer import LoraTrainer  # noqa: PLC0415

    settings = read_settings(Settings, config)
    log_to_stderr(settings.log_format, agent=settings.name)
    torch.set_num_threads(settings.threads)
    return LoraTrainer(
        slm=settings.slm,
        data=settings.data,
        evaluation=settings.evaluation,
        holdout=settings.holdout,
        device=settings.device,
        dtype=settings.dtype,
        gradient_checkpointing=settings.gradient_checkpointing,
        digest_cache=settings.digest_cache,
    )


if __name__ == "__main__":
    config = config_argument("services.client_agent.trainer_process", Settings)
    log_to_stderr()
    serve(lambda: lora_trainer(config))
