"""A training process without torch: does what the run's name says, through the real child's loop."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench.no_op import NoOpTrainer
from services.client_agent.trainer import Measured, MeasureOrder, Progress, StandaloneOrder, Trained, TrainingOrder
from services.client_agent.trainer_process import serve
from shared import errors


class TinyTrainer:
    """Obeys the name of the run."""

    def train(self, order: TrainingOrder, on_progress: Callable[[Progress], None]) -> Trained:
        """Train, make noise, fail or die."""
        match order.manifest.run_name.split():
            case ["noise"]:
                print("a library prints", flush=True)  # noqa: T201 - that is the point
                os.write(1, b'{"kind":"trained"}\n')
            case ["fail", code]:
                kinds = [kind for kind in vars(errors).values() if getattr(kind, "code", None) == code]
                kind = kinds[0] if kinds else type("Newer", (errors.FedCoLLMError,), {"code": code})
                raise kind("what happened")
            case ["exit"]:
                sys.exit(3)
            case ["crash"]:
                raise ZeroDivisionError("by nothing")
            case ["kill"]:
                os.kill(os.getpid(), signal.SIGKILL)
            case ["hang"]:
                on_progress(Progress(step=1, steps=2, loss=0.0))
                time.sleep(600)
        return NoOpTrainer().train(order, on_progress)

    def train_alone(self, order: StandaloneOrder, on_step: Callable[[], None]) -> Trained:
        """Train, or never end."""
        if order.manifest.run_name == "wait":
            order.into.touch()
            while True:
                on_step()
                time.sleep(0.01)
        return NoOpTrainer().train_alone(order, on_step)

    def measure(self, order: MeasureOrder, on_batch: Callable[[], None]) -> Measured:
        """Measure what is no model."""
        return NoOpTrainer().measure(order, on_batch)


if __name__ == "__main__":
    serve(TinyTrainer)
