"""The containers of docker-compose.yml on a real Docker engine, where one answers, from `up` to the end of a run."""

import asyncio
import json
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.demo.bootstrap import FEDERATION, SEED
from examples.demo.preset import AGENTS, MODELS, demo_terms
from examples.demo.processes import free_ports, sign_once_prepared
from services.coordinator.cli.signing import Signer
from shared.credentials import BearerToken
from shared.egress import TrafficCount
from shared.key_file import read_key
from shared.protocol.messages import EventList, RoundList, RunView
from shared.protocol.rounds import ENDED_RUNS, RunState
from shared.transport import Transport, open_transport
from tests.support.containers import MAIN, ORGANISATIONS_FOLDER, PAGE, ROOT
from tests.support.documents import commands

RUN = "/v1/runs/with-a-restart"
TRY = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3)"
STATUS = """
from http.client import HTTPConnection
page = HTTPConnection("127.0.0.1", 8450, timeout=5)
page.request("GET", "/status.json")
print(page.getresponse().read().decode())
"""


def engine_answers() -> bool:
    """Whether there is a Docker engine that this user may ask."""
    docker = shutil.which("docker")
    return docker is not None and subprocess.run([docker, "info"], capture_output=True, check=False).returncode == 0  # noqa: S603


pytestmark = [
    pytest.mark.slow,
    pytest.mark.anyio,
    pytest.mark.timeout(1800),  # the first build installs PyTorch
    pytest.mark.skipif(not engine_answers(), reason="no Docker engine answers `docker info`"),
]


class Composition:
    """A composition of its own, beside whatever else the engine runs from the same file."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = f"{name}-{os.getpid()}"
        self.port = free_ports(1)[0]
        self._folder = folder

    def __call__(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Call ``docker compose``."""
        result = subprocess.run(  # noqa: S603
            ["docker", "compose", "--project-name", self.name, *arguments],  # noqa: S607
            cwd=self._folder,
            env=os.environ | {"COORDINATOR_PORT": str(self.port)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0 or not check, f"{arguments} ended with {result.returncode}:\n{result.stderr}"
        return result

    def read(self, service: str, file: str) -> str:
        """Read a file of a service's volume."""
        return self("exec", "-T", service, "cat", file).stdout

    def fetch_ca(self, folder: Path) -> Path:
        """Fetch the CA's certificate as the page says."""
        (command,) = re.findall(r"`docker compose (cp\s\S+ca\.pem) \.`", PAGE)
        self(*command.split(), str(folder))
        return folder / "ca.pem"

    def reaches(self, service: str, host: str, port: int) -> bool:
        """Whether a service's container can connect to an address."""
        return self("exec", "-T", service, "python", "-c", TRY, host, str(port), check=False).returncode == 0

    def has_a_way_out(self, service: str) -> bool:
        """Whether a service's container has a route to any address (that of destination 0.0.0.0)."""
        _, *routes = self.read(service, "/proc/net/route").splitlines()
        return "00000000" in {route.split()[1] for route in routes}

    def rounds_taken_part(self, agent: str) -> int:
        """What an agent says of itself, since it was started last."""
        status = self("exec", "-T", agent, "python", "-c", STATUS).stdout
        return int(json.loads(status)["rounds_taken_part"])


@pytest.fixture(scope="module")
def compose() -> Iterator[Composition]:
    """All services, healthy; afterwards nothing is left of them but the images."""
    composition = Composition(ROOT, "fedcollm-test")
    try:
        composition("up", "--detach", "--wait")
        yield composition
    finally:
        composition("--profile", "monitoring", "down", "--volumes", "--timeout", "5")


def test_agents_reach_the_coordinators_public_port_and_no_other(compose: Composition):
    """Neither the work port nor the worker, by name or by address; and nothing beyond their network."""
    address = compose("exec", "-T", "worker", "getent", "hosts", "coordinator").stdout.split()[0]
    assert compose.reaches("agent-1", "coordinator", 8440)
    assert compose.reaches("worker", address, 8441)
    for host in ("coordinator", "work.coordinator", "worker", address):
        assert not compose.reaches("agent-1", host, 8441), host
    with_a_way_out = {name for name in ("coordinator", "worker", *AGENTS) if compose.has_a_way_out(name)}
    assert with_a_way_out == {"coordinator"}  # whose port is published


def test_the_documents_commands_run(compose: Composition):
    """Line by line, a whole run among them; in the end the page stops everything, and it comes up again."""
    shown = commands("docker.md")
    assert len(shown) > 4
    for command in shown:
        assert command.startswith("docker compose "), command
        verb, *rest = shlex.split(command.removeprefix("docker compose "))
        compose(verb, *(["-T"] if verb == "exec" else []), *rest)  # a test has no terminal
    compose("up", "--detach", "--wait")


def test_nothing_can_be_written_outside_the_volumes(compose: Composition):
    """Also where the image's own user might."""
    for service in ("coordinator", "worker", "agent-1"):
        written = compose("exec", "-T", service, "sh", "-c", "touch /fedcollm/here && touch /var/tmp/here", check=False)
        assert "Read-only file system" in written.stderr


def test_a_second_up_changes_no_key_and_no_ca(compose: Composition):
    """Bootstrap runs again and finds that all is there, and members that all are in."""
    before = [compose.read("agent-1", file) for file in ("agent.key", "ca.pem")]
    compose("up", "--detach", "--wait")
    assert [compose.read("agent-1", file) for file in ("agent.key", "ca.pem")] == before
    assert "all are members already" in compose("logs", "members").stdout


def test_the_next_certificate_is_taken_as_the_page_says(compose: Composition):
    """Of the same CA: nobody but the coordinator is started again."""
    before = compose.read("coordinator", "tls/server.pem")
    shown = re.findall(r"`docker compose ((?:exec coordinator fedcollm tls|restart) [^`]+)`", PAGE)
    assert len(shown) == 2
    for command in shown:
        verb, *rest = command.split()
        compose(verb, *(["-T"] if verb == "exec" else []), *rest)
    assert compose.read("coordinator", "tls/server.pem") != before
    compose("up", "--detach", "--wait")


def test_a_copy_of_the_agents_folder_takes_the_place_of_an_agent(compose: Composition, tmp_path: Path):
    """As the page says; it is healthy once the demo's operator has approved it."""
    copy = tmp_path / "organisation"
    shutil.copytree(ORGANISATIONS_FOLDER, copy)
    shutil.copytree(MODELS / "slm", copy / "models" / "slm")
    (copy / "data").mkdir()
    (copy / "data" / "examples.jsonl").write_text(compose.read("agent-4", "data.jsonl"))
    invite, approve = re.findall(r"`docker compose exec coordinator (fedcollm agents [^`]+)`", PAGE)
    compose("exec", "-T", "coordinator", *invite.split())
    (copy / "clinic.invitation").write_text(compose.read("coordinator", "clinic.invitation"))
    blocks = re.findall(r"^```yaml\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    (override,) = (block for block in blocks if f"{MAIN['name']}_public" in block)
    override = override.replace(f"{MAIN['name']}_", f"{compose.name}_")
    (copy / "docker-compose.override.yml").write_text(override)
    for path in (copy, *copy.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o644)

    compose("stop", "agent-4")
    (init,) = re.findall(r"`docker run ([^`]*fedcollm-agent fedcollm-agent init [^`]*)`", PAGE)
    options = shlex.split(init.replace("$PWD", str(copy)))
    subprocess.run(["docker", "run", "--network", f"{compose.name}_public", *options], check=True)  # noqa: S603, S607
    compose("exec", "-T", "coordinator", *approve.split(), "--yes")
    organisation = Composition(copy, "fedcollm-test-organisation")
    try:
        organisation("up", "--detach", "--wait")
    finally:
        organisation("down", "--volumes", "--timeout", "5")
        compose("start", "agent-4")


async def test_a_run_ends_though_one_agent_is_restarted_and_one_stopped(compose: Composition, tmp_path: Path):
    """The one that was restarted while it trained is needed once the other has gone, and takes part."""
    file = tomllib.loads(compose.read("coordinator", "run.toml"))
    terms = demo_terms(SEED).model_copy(update={"llm": file["llm"], "slm": file["slm"], "rounds": 3})
    token = BearerToken(compose.read("coordinator", "operator.token").strip())
    url = f"https://127.0.0.1:{compose.port}"
    ca_file = compose.fetch_ca(tmp_path)
    (tmp_path / "operator.key").write_text(compose.read("coordinator", "operator.key"))
    signer = Signer(FEDERATION, read_key(tmp_path / "operator.key"))
    async with open_transport(url, token, TrafficCount(), patience_seconds=30, ca_file=ca_file) as operator:
        await operator.call("PUT", RUN, RunView, body=terms)
        await operator.call("POST", f"{RUN}/start", RunView)
        await sign_once_prepared(operator, signer, RUN.removeprefix("/v1/runs/"), terms)

        await reach(operator, "round.open", 2)
        await asyncio.to_thread(compose, "restart", "agent-2")
        await reach(operator, "round.open", 3)
        await asyncio.to_thread(compose, "stop", "agent-3")

        run = await finished(operator)
        rounds = (await operator.call("GET", f"{RUN}/rounds", RoundList)).rounds
    assert run.state is RunState.FINISHED, run.reason
    assert rounds[-1].accepted == terms.cohort.min_count == len(AGENTS) - 1
    assert compose.rounds_taken_part("agent-2") >= 1
    assert run.base_scores is not None
    assert rounds[-1].scores is not None
    assert rounds[-1].scores.slm.accuracy > run.base_scores.slm.accuracy


async def reach(operator: Transport, kind: str, number: int) -> None:
    """Wait until the run's log has the event of this kind for a round."""
    after = 0
    while True:
        page = await operator.call("GET", f"{RUN}/events", EventList, params={"after": after, "wait_seconds": 10})
        if any((event.kind, event.round) == (kind, number) for event in page.events):
            return
        after = page.last


async def finished(operator: Transport) -> RunView:
    """Wait until the run has ended."""
    after = 0
    while (run := await operator.call("GET", RUN, RunView)).state not in ENDED_RUNS:
        page = await operator.call("GET", f"{RUN}/events", EventList, params={"after": after, "wait_seconds": 10})
        after = page.last
    return run
