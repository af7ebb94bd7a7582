"""Flower in deployment mode: a SuperLink, and SuperNodes that start their apps as processes, which is its default."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bench.counting_proxy import ByteCount, counting_proxy
from bench.environments import ROOT
from bench.flower import NO_TELEMETRY
from bench.peers import noted
from bench.peers.processes import ProcessTree, end
from bench.peers.starting import finished, served, with_programs
from bench.peers.systems import Case, RoundEnd, Running
from examples.demo.processes import LOOPBACK, Processes, free_ports
from services.coordinator.cli.tls import CA_FILE, CERTIFICATE, KEY, write_authority

APP = Path(__file__).parent / "flower_app"
CONNECTION = "bench"


@dataclass(frozen=True)
class Flower:
    """Flower as it comes, or with TLS and the SuperNodes' keys."""

    python: Path
    authenticated: bool

    least_agents: int = 1

    @property
    def name(self) -> str:
        """Name of the system, and what it is given beyond its defaults."""
        return "Flower, TLS and authentication" if self.authenticated else "Flower"

    @property
    def mode(self) -> str:
        """How it runs here."""
        how = "TLS and SuperNode authentication" if self.authenticated else "--insecure: no TLS, no authentication"
        return (
            f"SuperLink and SuperNodes, {how}; subprocess isolation and state in memory, which are its defaults "
            "(where it is killed: --database FILE); FedAvg, which saves no model unless an app's own code does, and "
            "this one's does not; no installation of dependencies at run time"
        )

    @asynccontextmanager
    async def running(self, folder: Path, case: Case) -> AsyncIterator[Running]:
        """Start everything, and submit the app."""
        port, proxy, *own = free_ports(2 + case.agents)
        processes = Processes(folder / "logs")
        running = _Running(self, folder, case, port, processes)
        try:
            running.write_files()
            await running.start_superlink()
            await served(port)
            async with counting_proxy(proxy, port) as count:
                running.count = count
                for number, runtime in enumerate(own):
                    await running.start_supernode(number, proxy, runtime)
                numbers = {"agents": case.agents, "dim": case.dim, "rounds": case.rounds, "steps": case.steps}
                config = " ".join(f"{name}={value}" for name, value in numbers.items())
                await running.flwr("run", str(APP), CONNECTION, "--run-config", config)
                yield running
        finally:
            await processes.stop()


@dataclass
class _Running:
    flower: Flower
    folder: Path
    case: Case
    port: int
    processes: Processes
    count: ByteCount = field(default_factory=ByteCount)
    coordinator: ProcessTree = field(default_factory=ProcessTree)

    def rounds(self) -> Sequence[RoundEnd]:
        """Return the rounds that the ServerApp has noted."""
        self.processes.require_alive(*(name for name in self.processes.running if name.startswith("supernode-")))
        return noted.rounds(self.folder)

    def write_files(self) -> None:
        """Write what the CLI is to connect to, and certificates and keys."""
        trust = f'root-certificates = "{self._tls / CA_FILE}"' if self.flower.authenticated else "insecure = true"
        home = self.folder / "flwr"
        home.mkdir(parents=True)
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n'
            f'address = "{LOOPBACK}:{self.port}"\n{trust}\n'
        )
        if self.flower.authenticated:
            write_authority(self._tls, [LOOPBACK])
            for number in range(self.case.agents):
                write_key(self._key(number))

    async def start_superlink(self) -> None:
        """Start the SuperLink, which starts the ServerApp."""
        files = {"--ssl-certfile": CERTIFICATE, "--ssl-keyfile": KEY, "--ssl-ca-certfile": CA_FILE}
        how: list[object] = ["--insecure"]
        if self.flower.authenticated:
            how = [word for option, file in files.items() for word in (option, self._tls / file)]
            how.append("--enable-supernode-auth")
        durable = ["--database", self.folder / "superlink.db"] if self.case.durable else []
        listen = ["--host", LOOPBACK, "--port", self.port]
        await self._start(
            "superlink", "flower-superlink", *how, *listen, *durable, "--disable-runtime-dependency-installation"
        )
        self.coordinator.roots.append(self.processes.running["superlink"].pid)

    async def start_supernode(self, number: int, superlink: int, port: int) -> None:
        """Start an agent that reaches the SuperLink at another port, and listens for its own app."""
        if self.flower.authenticated:
            await self.flwr("supernode", "register", str(self._key(number).with_suffix(".pub")), CONNECTION)
            how = ["--root-certificates", self._tls / CA_FILE, "--auth-supernode-private-key", self._key(number)]
        else:
            how = ["--insecure"]
        where = ["--superlink", f"{LOOPBACK}:{superlink}", "--host", LOOPBACK, "--port", port]
        place = f"partition-id={number} num-partitions={self.case.agents}"
        await self._start(f"supernode-{number}", "flower-supernode", *how, *where, "--node-config", place)

    async def flwr(self, *words: str) -> None:
        """Run the command line to its end."""
        await self._start("flwr", "flwr", *words)
        await finished(self.processes, "flwr")

    async def kept(self) -> int | None:
        """Return nothing: its strategies save no model, and leave that to the code of an app."""
        return None

    async def crash(self) -> None:
        """Kill SuperLink, ServerApp and what started it."""
        end(self.coordinator.living())

    async def restart(self) -> None:
        """Start the SuperLink on its database."""
        await self.start_superlink()

    @property
    def _tls(self) -> Path:
        return self.folder / "tls"

    def _key(self, number: int) -> Path:
        return self.folder / "keys" / f"supernode-{number}"

    async def _start(self, name: str, program: str, *options: object) -> None:
        programs = self.flower.python.parent
        await self.processes.start(
            name,
            [str(programs / program), *map(str, options)],
            {
                **NO_TELEMETRY,
                "FLWR_DISABLE_UPDATE_CHECK": "1",
                "FLWR_HOME": str(self.folder / "flwr"),
                "PATH": with_programs(programs),
                "PYTHONPATH": str(ROOT),
            },
        )


def write_key(file: Path) -> None:
    """Write a SuperNode's key pair, as Flower's guide makes it with ssh-keygen: on the curve P-384."""
    key = ec.generate_private_key(ec.SECP384R1())
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
    )
    file.with_suffix(".pub").write_bytes(
        key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    )
