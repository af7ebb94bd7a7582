"""A coordinator as a process of its own, over plain HTTP on loopback, and what it costs."""

import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from structlog.testing import capture_logs

from bench.federation import FEDERATION, ManualClock, admit, key_of, open_federation
from bench.no_op import NoOpCoTuner
from examples.demo.processes import LOOPBACK, Processes, free_ports
from services.coordinator.tokens import TokensFile
from shared.credentials import BearerToken
from shared.egress import TrafficCount
from shared.protocol.messages import Health
from shared.protocol.tensors import Layout
from shared.protocol.terms import RunTerms
from shared.transport import open_transport

LLM_LAYOUT: Layout = {"base_model.model.lora_A.weight": (8, 8)}


@dataclass(frozen=True)
class CoordinatorProcess:
    """A coordinator that serves at ``url``, and whose process is ``process``."""

    url: str
    process: psutil.Process

    def cpu_seconds(self) -> float:
        """Return what it has used of processors so far, in itself and in the kernel for it."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def resident(self) -> int:
        """Return how many bytes of it are resident now."""
        return int(self.process.memory_info().rss)

    def forget_peak(self) -> None:
        """Let the peak begin anew (proc(5), ``clear_refs``)."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def peak(self) -> int:
        """Return how many bytes of it were resident at the peak."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) << 10


async def prepare(folder: Path, agents: Sequence[str], run_id: str, terms: RunTerms, layout: Layout) -> None:
    """Make a coordinator's folder with members and a run whose first round is open."""
    clock = ManualClock(time.time())
    federated = open_federation(folder, {}, NoOpCoTuner(layout, LLM_LAYOUT), clock)
    with capture_logs():  # what comes of it is what is told
        async with federated as federation:
            admit(federation.context, agents, clock)
            await federation.start(run_id, terms)
            await federation.work()
            federation.context.rounds.reconcile()


@asynccontextmanager
async def coordinator_process(folder: Path, settings: Mapping[str, str]) -> AsyncIterator[CoordinatorProcess]:
    """Serve what is in ``folder`` until the block ends; ``settings`` go into its environment."""
    processes, (port, work_port) = Processes(folder / "logs"), free_ports(2)
    principals = folder / "principals.json"
    principals.write_text(TokensFile({}).model_dump_json())
    own = {
        "DATA_DIR": str(folder / "coordinator"),
        "PRINCIPALS_FILE": str(principals),
        "FEDERATION": FEDERATION,
        "OPERATOR_KEY": key_of("operator").public,
        "PORT": str(port),
        "WORK_PORT": str(work_port),
    }
    environment = {f"FEDCOLLM_COORDINATOR_{name}": value for name, value in {**own, **settings}.items()}
    await processes.start("coordinator", [sys.executable, "-m", "services.coordinator"], environment)
    url = f"http://{LOOPBACK}:{port}"
    try:
        async with open_transport(url, BearerToken(""), TrafficCount(), patience_seconds=30.0) as transport:
            await transport.call("GET", "/healthz", Health)
        processes.require_alive("coordinator")
        yield CoordinatorProcess(url, psutil.Process(processes.running["coordinator"].pid))
    finally:
        await processes.stop()
