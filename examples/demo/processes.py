"""A federation's processes on this machine: started with settings in the environment, and all stopped at the end."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from examples.demo.members import admit
from services.coordinator.cli.following import waits_for_signature
from services.coordinator.cli.signing import Signer
from services.coordinator.cli.tls import CA_FILE, CERTIFICATE, KEY, write_authority
from services.coordinator.principals import Role
from services.coordinator.tokens import issue_all
from shared.cli.files_written import write_private
from shared.credentials import BearerToken
from shared.egress import TrafficCount
from shared.errors import ConfigurationError
from shared.key_file import keep_key
from shared.protocol.identity import IdentityKey
from shared.protocol.messages import EventList, RunList, RunView
from shared.protocol.rounds import ENDED_RUNS
from shared.protocol.terms import RunTerms
from shared.transport import Transport, open_transport

FEDERATION = "one-machine"
LOOPBACK = "127.0.0.1"
STOP_SECONDS = 5.0

# One torch thread a process, and none that spins while it waits: several trainers share few cores.
QUIET_THREADS = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


@dataclass(frozen=True)
class Address:
    """Where a process of the federation listens."""

    port: int
    scheme: str = "http"

    @property
    def url(self) -> str:
        """Return the address as a URL."""
        return f"{self.scheme}://{LOOPBACK}:{self.port}"


@dataclass
class Processes:
    """What runs, by name, each with a log file and in a session of its own (Ctrl-C reaches the parent alone)."""

    logs: Path
    running: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)

    async def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start a process; its output goes to ``<logs>/<name>.log``."""
        self.logs.mkdir(parents=True, exist_ok=True)
        with (self.logs / f"{name}.log").open("ab") as log:
            self.running[name] = await asyncio.create_subprocess_exec(
                *command,
                env={**os.environ, **QUIET_THREADS, **OFFLINE, **environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def require_alive(self, *names: str) -> None:
        """Raise, with the end of its log, if one of these processes has ended."""
        for name in names:
            process = self.running[name]
            if process.returncode is not None:
                log = self.logs / f"{name}.log"
                end = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
                raise ConfigurationError(f"{name} has ended with code {process.returncode}; {log} ends with:\n{end}")

    async def stop(self) -> None:
        """Ask every process to end, and kill those that do not; a second Ctrl-C does not break that off."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, lambda: None)
        for process in self.running.values():
            _signal(process, signal.SIGTERM)
        waiting = [asyncio.create_task(process.wait()) for process in self.running.values()]
        if waiting:
            await asyncio.wait(waiting, timeout=STOP_SECONDS)
        for process in self.running.values():
            _signal(process, signal.SIGKILL)
        await asyncio.gather(*waiting)
        self.running.clear()


@dataclass(frozen=True)
class LocalFederation:
    """Where everything of a federation on this machine is."""

    processes: Processes
    folder: Path
    public: Address
    work: Address
    agents: Mapping[str, Address]
    tokens: Mapping[str, str]
    operator_key: IdentityKey

    @property
    def ca_file(self) -> Path:
        """Return the only CA that anybody here trusts."""
        return self.folder / "tls" / CA_FILE

    async def start_coordinator(self) -> None:
        """Start the coordinator; the first time, the agents become members as soon as it answers."""
        await self.processes.start(
            "coordinator",
            [sys.executable, "-m", "services.coordinator"],
            {
                "FEDCOLLM_COORDINATOR_DATA_DIR": str(self.folder / "coordinator"),
                "FEDCOLLM_COORDINATOR_PRINCIPALS_FILE": str(self.folder / "principals.json"),
                "FEDCOLLM_COORDINATOR_FEDERATION": FEDERATION,
                "FEDCOLLM_COORDINATOR_OPERATOR_KEY": self.operator_key.public,
                "FEDCOLLM_COORDINATOR_PORT": str(self.public.port),
                "FEDCOLLM_COORDINATOR_WORK_PORT": str(self.work.port),
                "FEDCOLLM_COORDINATOR_TLS_CERTIFICATE_FILE": str(self.folder / "tls" / CERTIFICATE),
                "FEDCOLLM_COORDINATOR_TLS_KEY_FILE": str(self.folder / "tls" / KEY),
                "FEDCOLLM_COORDINATOR_LEASE_SECONDS": "15",
            },
        )
        if strangers := [name for name in self.agents if not self.key_file(name).exists()]:
            async with self.operator() as operator:
                for name in strangers:
                    key = IdentityKey.generate()
                    await admit(operator, self.signer, name, key, coordinator_url=self.public.url)
                    keep_key(self.key_file(name), key)

    @property
    def signer(self) -> Signer:
        """Who invites, approves and signs here, for this machine only: one process has seen everybody's key."""
        return Signer(FEDERATION, self.operator_key)

    def key_file(self, agent: str) -> Path:
        """Return where an agent's key lies."""
        return self.folder / "keys" / f"{agent}.key"

    async def sign(self, operator: Transport, run_id: str, terms: RunTerms) -> None:
        """Sign what a run is, once the worker has prepared it."""
        await sign_once_prepared(operator, self.signer, run_id, terms)

    async def start_worker(self, command: Sequence[str], *, auxiliary: Path, validation: Path) -> None:
        """Start the worker with the coordinator's data."""
        await self.processes.start(
            "worker",
            command,
            {
                "FEDCOLLM_WORKER_COORDINATOR_URL": self.work.url,
                "FEDCOLLM_WORKER_CA_FILE": str(self.ca_file),
                "FEDCOLLM_WORKER_TOKEN_FILE": str(self.folder / "tokens" / "worker"),
                "FEDCOLLM_WORKER_CACHE_DIR": str(self.folder / "worker"),
                "FEDCOLLM_WORKER_AUXILIARY__PATH": str(auxiliary),
                "FEDCOLLM_WORKER_VALIDATION__PATH": str(validation),
                "FEDCOLLM_WORKER_DEVICE": "cpu",
            },
        )

    async def start_agent(
        self,
        name: str,
        command: Sequence[str],
        *,
        slm: str,
        data: Path,
        evaluation: Path | None = None,
        allow_plaintext: bool = False,
    ) -> None:
        """Start an agent with its private data, and with what it evaluates on, if it does."""
        own = {} if evaluation is None else {"FEDCOLLM_AGENT_EVALUATION__PATH": str(evaluation)}
        await self.processes.start(
            name,
            command,
            {
                "FEDCOLLM_AGENT_COORDINATOR_URL": self.public.url,
                "FEDCOLLM_AGENT_CA_FILE": str(self.ca_file),
                "FEDCOLLM_AGENT_NAME": name,
                "FEDCOLLM_AGENT_FEDERATION": FEDERATION,
                "FEDCOLLM_AGENT_OPERATOR_KEY": self.operator_key.public,
                "FEDCOLLM_AGENT_IDENTITY_KEY_FILE": str(self.key_file(name)),
                "FEDCOLLM_AGENT_STATE_DIR": str(self.folder / name),
                "FEDCOLLM_AGENT_SLM": slm,
                "FEDCOLLM_AGENT_DATA__PATH": str(data),
                "FEDCOLLM_AGENT_DEVICE": "cpu",
                "FEDCOLLM_AGENT_POLICY__ALLOW_PLAINTEXT": str(allow_plaintext),
                "FEDCOLLM_AGENT_STATUS_PORT": str(self.agents[name].port),
                **own,
            },
        )

    @asynccontextmanager
    async def operator(self) -> AsyncIterator[Transport]:
        """Open an operator's transport, once the coordinator answers."""
        authenticator = BearerToken(self.tokens["operator"])
        async with open_transport(
            self.public.url, authenticator, TrafficCount(), patience_seconds=30.0, ca_file=self.ca_file
        ) as transport:
            asked = asyncio.create_task(transport.call("GET", "/v1/runs", RunList))
            try:
                while not asked.done():
                    self.processes.require_alive("coordinator")
                    await asyncio.wait([asked], timeout=0.2)
                await asked
            finally:
                asked.cancel()
            yield transport


@asynccontextmanager
async def local_federation(folder: Path, agents: Sequence[str]) -> AsyncIterator[LocalFederation]:
    """Make what a federation in ``folder`` needs; whatever was started ends with the block."""
    write_authority(folder / "tls", [LOOPBACK])
    tokens, principals = issue_all({"operator": Role.OPERATOR, "worker": Role.WORKER})
    write_private(folder / "principals.json", principals.model_dump_json(indent=2))
    for name, token in tokens.items():
        write_private(folder / "tokens" / name, token)
    ports = free_ports(2 + len(agents))
    federation = LocalFederation(
        processes=Processes(folder / "logs"),
        folder=folder,
        public=Address(ports[0], "https"),
        work=Address(ports[1], "https"),
        agents={name: Address(port) for name, port in zip(agents, ports[2:], strict=True)},
        tokens=tokens,
        operator_key=IdentityKey.generate(),
    )
    try:
        yield federation
    finally:
        await federation.processes.stop()


async def sign_once_prepared(operator: Transport, signer: Signer, run_id: str, terms: RunTerms) -> None:
    """Sign a run that says what the terms say, once a worker has prepared it; one that has ended before is left."""
    path, after = f"/v1/runs/{run_id}", 0
    while not waits_for_signature(run := await operator.call("GET", path, RunView)):
        if run.state in ENDED_RUNS:
            return
        page = await operator.call("GET", f"{path}/events", EventList, params={"after": after, "wait_seconds": 5})
        after = page.last
    await signer.sign_run(operator, run_id, terms)


def free_ports(count: int) -> list[int]:
    """Return ports that nobody uses at this moment."""
    sockets = [socket.create_server((LOOPBACK, 0)) for _ in range(count)]
    try:
        return [opened.getsockname()[1] for opened in sockets]
    finally:
        for opened in sockets:
            opened.close()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """Signal a process's whole session: an agent's trainer goes with it."""
    if process.returncode is None or number is signal.SIGKILL:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
