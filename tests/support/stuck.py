"""An agent whose training never ends, and a worker whose preparation never does, as processes: for what stops them.

Beside them a worker that ends at once what it is given.
"""

import asyncio
import sys
import time
from collections.abc import Callable

from bench.no_op import NoOpCoTuner, NoOpTrainer
from bench.round_processes import worker
from services.client_agent import service, trainer_process
from services.client_agent.settings import Settings as AgentSettings
from services.client_agent.trainer import Progress, Trained, TrainerProcess, TrainingOrder
from services.coordinator.worker.cotuner import PreparedPair
from services.coordinator.worker.settings import Settings as WorkerSettings
from shared.configuration import read_settings
from shared.logs import log_to_stderr
from tests.support.federations import LLM_LAYOUT, SLM_LAYOUT


class StuckTrainer(NoOpTrainer):
    """Begins to train, and looks at nothing."""

    def train(self, order: TrainingOrder, on_progress: Callable[[Progress], None]) -> Trained:
        """Say that it has begun, and nothing more."""
        on_progress(Progress(step=1, steps=2, loss=0.0))
        (order.into.parent / "training").touch()
        while True:
            time.sleep(60)


class StuckCoTuner(NoOpCoTuner):
    """Begins to prepare, and looks all the time whether anybody still waits for it, as the real one does."""

    def prepare(self, *_: object, require_lease: Callable[[], None], **__: object) -> PreparedPair:
        """Say nothing any more."""
        while True:
            require_lease()
            time.sleep(0.05)


def main() -> None:
    """Be the process that the first argument names."""
    match sys.argv[1]:
        case "worker":
            from services.coordinator.worker.service import serve  # noqa: PLC0415 - torch

            log_to_stderr()
            asyncio.run(serve(read_settings(WorkerSettings), StuckCoTuner(SLM_LAYOUT, LLM_LAYOUT)))
        case "quick-worker":
            asyncio.run(worker(SLM_LAYOUT))
        case "agent":
            log_to_stderr()
            command = (sys.executable, "-m", "tests.support.stuck", "trainer")
            asyncio.run(service.serve(read_settings(AgentSettings), TrainerProcess(command)))
        case "trainer":
            trainer_process.serve(StuckTrainer)


if __name__ == "__main__":
    main()
