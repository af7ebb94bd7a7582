"""FedCoLLM's worker and agents in this comparison: ``python -m bench.peers.fedcollm_processes WHICH DIM STEPS``.

They are the product's own but for what a training and a co-tuning do.
"""

import asyncio
import sys
from collections.abc import Callable

from bench import round_processes
from bench.no_op import NoOpTrainer
from bench.peers.payload import layout, noisy
from services.client_agent import service, trainer_process
from services.client_agent.settings import Settings
from services.client_agent.trainer import Progress, Trained, TrainerProcess, TrainingOrder
from shared.configuration import read_settings
from shared.protocol.codec import encode, read_file
from shared.protocol.digests import digest_of


class PeersTrainer(NoOpTrainer):
    """Adds noise, as the other systems' clients do, or trains the model that theirs train; nobody has a hold-out."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._steps = steps

    def train(self, order: TrainingOrder, on_progress: Callable[[Progress], None]) -> Trained:
        """Write an update that depends on the order's seed, which round and agent give, and on the adapter."""
        tensors = read_file(order.adapter, order.manifest.layout)
        if self._steps:
            from bench.peers.lora import trained  # noqa: PLC0415 - PyTorch, where it is used

            update = encode(trained(tensors, order.seed, self._steps))
        else:
            update = encode(noisy(tensors, order.seed))
        on_progress(Progress(step=1, steps=1, loss=0.0))
        order.into.write_bytes(update)
        return Trained(digest=digest_of(update), examples=100, steps=1, mean_loss=0.0)


def main() -> None:
    """Be the process that the first argument names."""
    which, dim, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    match which:
        case "worker":
            asyncio.run(round_processes.worker(layout(dim)))
        case "agent":
            command = (sys.executable, "-m", "bench.peers.fedcollm_processes", "trainer", str(dim), str(steps))
            asyncio.run(service.serve(read_settings(Settings), TrainerProcess(command)))
        case "trainer":
            trainer_process.serve(lambda: PeersTrainer(steps))
        case other:
            sys.exit(f"bench.peers.fedcollm_processes: there is no process {other!r}")


if __name__ == "__main__":
    main()
