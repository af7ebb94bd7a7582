"""A coordinator as a process of its own on loopback, and what it costs."""

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

NO_SETTINGS: Mapping[str, str] = {}
LLM_LAYOUT: Layout = {"base_model.model.lora_A.weight": (8, 8)}


@dataclass(frozen=True)
class CoordinatorProcess:
    """A coordinator that serves at ``url``, and whose process is ``process``."""

    scheme: str
    port: int
    process: psutil.Process

    @property
    def url(self) -> str:
        """Where clients go."""
        return f"{self.scheme}://{LOOPBACK}:{self.port}"

    def connections(self) -> int:
        """Return how many connections others have to its public port."""
        opened = self.process.net_connections("tcp")
        return sum(one.status == psutil.CONN_ESTABLISHED and one.laddr.port == self.port for one in opened)

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


@dataclass(frozen=True)
class ServedTls:
    """The files of TLS: what the coordinator shows, and what its clients trust."""

    certificate: Path
    key: Path
    ca_file: Path


@asynccontextmanager
async def coordinator_process(
    folder: Path, *, tls: ServedTls | None = None, settings: Mapping[str, str] = NO_SETTINGS
) -> AsyncIterator[CoordinatorProcess]:
    """Serve what is in ``folder`` until the block ends; ``settings`` go into its environment."""
    processes, (port, work_port) = Processes(folder / "logs"), free_ports(2)
    (folder / "principals.json").write_text(TokensFile({}).model_dump_json())
    shown = {} if tls is None else {"TLS_CERTIFICATE_FILE": str(tls.certificate), "TLS_KEY_FILE": str(tls.key)}
    own = {
        "DATA_DIR": str(folder / "coordinator"),
        "PRINCIPALS_FILE": str(folder / "principals.json"),
        "FEDERATION": FEDERATION,
        "OPERATOR_KEY": key_of("operator").public,
        "PORT": str(port),
        "WORK_PORT": str(work_port),
    }
    environment = {f"FEDCOLLM_COORDINATOR_{name}": value for name, value in {**own, **shown, **settings}.items()}
    await processes.start("coordinator", [sys.executable, "-m", "services.coordinator"], environment)
    process = psutil.Process(processes.running["coordinator"].pid)
    served = CoordinatorProcess("http" if tls is None else "https", port, process)
    try:
        async with open_transport(
            *(served.url, BearerToken(""), TrafficCount()),
            patience_seconds=30.0,
            ca_file=None if tls is None else tls.ca_file,
        ) as transport:
            await transport.call("GET", "/healthz", Health)
        processes.require_alive("coordinator")
        yield served
    finally:
        await processes.stop()
