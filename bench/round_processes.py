"""The worker and the agent's trainer of ``bench.round``, as processes: real but for the training itself."""

import asyncio
import sys

from bench.no_op import NoOpCoTuner, NoOpTrainer
from bench.peers.payload import DIM, layout
from services.client_agent import service, trainer_process
from services.client_agent.settings import Settings as AgentSettings
from services.client_agent.trainer import TrainerProcess
from services.coordinator.worker.loop import Worker
from services.coordinator.worker.settings import Settings as WorkerSettings
from shared.configuration import read_settings
from shared.credentials import BearerToken
from shared.egress import TrafficCount
from shared.protocol.tensors import Layout
from shared.transport import open_transport

# 96 tensors, 1,572,864 parameters, 6.3 MB as float32.
SLM_LAYOUT: Layout = layout(DIM)
LLM_LAYOUT = {"base_model.model.lora_A.weight": (8, 8)}


async def worker(slm_layout: Layout) -> None:
    """Run a worker whose co-tuning moves bytes only."""
    settings = read_settings(WorkerSettings)
    async with open_transport(
        settings.coordinator_url,
        BearerToken.read(settings.token_file),
        TrafficCount(),
        patience_seconds=None,
        ca_file=settings.ca_file,
    ) as transport:
        await Worker(transport, NoOpCoTuner(slm_layout, LLM_LAYOUT), settings.cache_dir, name="worker").run()


def main() -> None:
    """Be the process that the first argument names."""
    match sys.argv[1]:
        case "worker":
            asyncio.run(worker(SLM_LAYOUT))
        case "agent":
            command = (sys.executable, "-m", "bench.round_processes", "trainer")
            asyncio.run(service.serve(read_settings(AgentSettings), TrainerProcess(command)))
        case "trainer":
            trainer_process.serve(NoOpTrainer)
        case other:
            sys.exit(f"bench.round_processes: there is no process {other!r}")


if __name__ == "__main__":
    main()
