"""NVIDIA FLARE in its proof-of-concept mode: a server and clients provisioned with mutual TLS, and their wrappers."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.counting_proxy import ByteCount, counting_proxy
from bench.environments import ROOT, answer
from bench.peers import noted
from bench.peers.processes import ProcessTree, end
from bench.peers.starting import finished, served, with_programs
from bench.peers.systems import Case, RoundEnd, Running
from examples.demo.processes import Processes, free_ports

PACKAGE = "nvflare==2.9.0"
PROJECT, ADMIN = "peers", "admin@nvidia.com"
# Named so, the server listens on loopback alone; POC's own name for it would have it listen on all interfaces.
SERVER = "localhost"
SAVED = "app_server/FL_global_model.pt"


@dataclass(frozen=True)
class NVFlare:
    """FLARE as its proof-of-concept mode has it."""

    python: Path

    name: str = "NVFlare"
    mode: str = (
        "POC mode: mutual TLS, the HTTP driver, clients in process; its defaults, but for the server's name, its "
        "wrappers started by themselves, and FedAvg that saves no model, which spares it time and memory (where it is "
        "killed: each round's, with PTFileModelPersistor, as in its recipe for PyTorch)"
    )
    least_agents: int = 1

    @asynccontextmanager
    async def running(self, folder: Path, case: Case) -> AsyncIterator[Running]:
        """Provision and start everything, and submit the job."""
        port, proxy = free_ports(2)
        processes = Processes(folder / "logs")
        running = _Running(self.python.parent, folder, case, port, processes)
        try:
            await running.provision(proxy)
            await running.start_wrapper(SERVER)
            running.coordinator.roots.append(processes.running[SERVER].pid)
            await served(port)
            async with counting_proxy(proxy, port) as count:
                running.count = count
                for number in range(case.agents):
                    await running.start_wrapper(f"site-{number + 1}")
                await running.submit()
                yield running
        finally:
            await processes.stop()


@dataclass
class _Running:
    programs: Path
    folder: Path
    case: Case
    port: int
    processes: Processes
    count: ByteCount = field(default_factory=ByteCount)
    coordinator: ProcessTree = field(default_factory=ProcessTree)

    def rounds(self) -> Sequence[RoundEnd]:
        """Return the rounds that the controller has noted."""
        self.processes.require_alive(*self.processes.running)  # the wrappers
        return noted.rounds(self.folder)

    async def provision(self, proxy: int) -> None:
        """Make certificates and start-up kits for everybody."""
        file = self.folder / "project.json"
        self.folder.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(project(self.case.agents, self.port, proxy)))
        await self._run("provision", "nvflare", "poc", "prepare", "-i", str(file), "--force")

    async def start_wrapper(self, name: str) -> None:
        """Start what keeps a server or a client running, as ``start.sh`` does."""
        await self._start(name, str(self._kit(name) / "startup" / "sub_start.sh"))

    async def submit(self) -> None:
        """Write the job and submit it, which needs the clients that it is for."""
        jobs = self.folder / "jobs"
        numbers = (self.case.agents, self.case.dim, self.case.rounds, self.case.steps, int(self.case.durable))
        await self._run("job", "python", "-m", "bench.peers.nvflare_app.job", str(jobs), *map(str, numbers))
        await self._run(
            "submit", "nvflare", "job", "submit", "-j", str(jobs / "peers"), "--startup-kit", str(self._kit(ADMIN))
        )

    async def kept(self) -> int | None:
        """Return the round of the model that its persistor has saved in the job's folder."""
        saved = next(self._kit(SERVER).glob(f"*/{SAVED}"), None)
        if saved is None:
            return None
        command = [str(self.programs / "python"), "-m", "bench.peers.nvflare_app.kept", str(saved)]
        return int(await asyncio.to_thread(answer, command))

    async def crash(self) -> None:
        """Kill the server and its job, and leave the wrapper, which restarts the server."""
        end(process for process in self.coordinator.living() if process.pid not in self.coordinator.roots)

    async def restart(self) -> None:
        """Do nothing: the wrapper does."""

    def _kit(self, name: str) -> Path:
        return self.folder / "poc" / PROJECT / "prod_00" / name

    async def _run(self, name: str, program: str, *words: str) -> None:
        await self._start(name, str(self.programs / program), *words)
        await finished(self.processes, name)

    async def _start(self, name: str, *command: str) -> None:
        await self.processes.start(
            name,
            command,
            {
                "HOME": str(self.folder / "home"),
                "NVFLARE_POC_WORKSPACE": str(self.folder / "poc"),
                "PATH": with_programs(self.programs),
                "PYTHONPATH": str(ROOT),
            },
        )


def project(agents: int, port: int, proxy: int) -> dict[str, object]:
    """Return the project file: that of ``nvflare poc prepare``, with clients that connect to another port."""
    impl = "nvflare.lighter.impl"
    templates = ["master_template.yml", "aws_template.yml", "azure_template.yml"]
    server = {"name": SERVER, "type": "server", "org": "nvidia", "fed_learn_port": port}
    admin = {"name": ADMIN, "type": "admin", "org": "nvidia", "role": "project_admin"}
    connect_to = {"host": SERVER, "port": proxy}
    clients = [
        {"name": f"site-{number + 1}", "type": "client", "org": "nvidia", "connect_to": connect_to}
        for number in range(agents)
    ]
    return {
        "api_version": 3,
        "name": PROJECT,
        "description": "A comparison of what rounds cost",
        "participants": [server, admin, *clients],
        "builders": [
            {"path": f"{impl}.workspace.WorkspaceBuilder", "args": {"template_file": templates}},
            {"path": f"{impl}.static_file.StaticFileBuilder", "args": {"config_folder": "config"}},
            {"path": f"{impl}.cert.CertBuilder"},
            {"path": f"{impl}.signature.SignatureBuilder"},
        ],
    }
