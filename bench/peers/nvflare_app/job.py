"""Write the job: ``python -m bench.peers.nvflare_app.job FOLDER AGENTS DIM ROUNDS STEPS DURABLE``."""

import sys
from pathlib import Path

from nvflare.client.config import ExchangeFormat
from nvflare.job_config.api import FedJob
from nvflare.job_config.script_runner import FrameworkType, ScriptRunner

from bench.peers.nvflare_app.controller import NotingFedAvg

PERSISTOR = "persistor"


def main() -> None:
    """Export it."""
    agents, dim, rounds, steps, durable = map(int, sys.argv[2:])
    job = FedJob(name="peers", min_clients=agents)
    if durable:
        from nvflare.app_opt.pt import PTFileModelPersistor  # noqa: PLC0415 - PyTorch, where it is used

        job.to_server(PTFileModelPersistor(), id=PERSISTOR)
    job.to_server(
        NotingFedAvg(num_clients=agents, num_rounds=rounds, dim=dim, persistor_id=PERSISTOR if durable else "")
    )
    job.to_clients(
        ScriptRunner(
            script=str(Path(__file__).with_name("client.py")),
            script_args=str(steps),
            framework=FrameworkType.NUMPY,
            server_expected_format=ExchangeFormat.NUMPY,
        )
    )
    job.export_job(sys.argv[1])


if __name__ == "__main__":
    main()
