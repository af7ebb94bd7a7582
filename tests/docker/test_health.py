"""The health checks, as the code that they are: run here against what they would ask in a container."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fastapi import FastAPI

from bench.federation import settings_of
from examples.demo.processes import free_ports
from services.client_agent.settings import Settings as AgentSettings
from services.client_agent.status import Status
from services.client_agent.status_page import create_status_page
from services.coordinator.app import create_app
from services.coordinator.context import open_context
from services.coordinator.settings import Settings as CoordinatorSettings
from services.coordinator.tokens import KnownTokens
from services.coordinator.worker.loop import LONGEST_POLL_SECONDS, Worker
from services.coordinator.worker.settings import Settings as WorkerSettings
from shared.configuration import read_settings
from shared.transport import AsgiApp
from tests.support.agents import ADA
from tests.support.containers import EVERY_SERVICE, HOME, PAGE, health_of, last, target_of
from tests.support.tls import Certificates, served

# A check that asked it would fail.
NO_PROXY_HERE = {"http_proxy": "http://127.0.0.1:1", "HTTP_PROXY": "http://127.0.0.1:1"}


def check(code: str, *replaced: tuple[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a health check with things of this machine in place of the container's."""
    for there, here in replaced:
        assert there in code
        code = code.replace(there, here)
    return subprocess.run(  # noqa: S603 - our own
        [sys.executable, "-c", code], env=os.environ | NO_PROXY_HERE, capture_output=True, text=True, check=False
    )


def port_of(name: str, filled: Path) -> int:
    """The port that a service's settings name."""
    if name == "coordinator":
        return read_settings(CoordinatorSettings, filled / "coordinator" / "coordinator.toml").port
    return read_settings(AgentSettings, filled / "agent-1" / "agent.toml").status_port


def of_container(name: str, filled: Path) -> Certificates | None:
    """The certificates that a service shows and whoever asks for its health trusts."""
    tls = filled / name / "tls"
    return Certificates(tls / "ca.pem", tls / "server.pem", tls / "server.key") if tls.exists() else None


def check_at(name: str, port: int | str, filled: Path) -> subprocess.CompletedProcess[str]:
    """Run a service's health check where something else listens, or nothing."""
    replaced = [(f"'127.0.0.1', {port_of(name, filled)},", f"'127.0.0.1', {port},")]
    tls = of_container(name, filled)
    if tls is not None:
        replaced.append((str(HOME / "tls" / "ca.pem"), str(tls.ca_file)))
    return check(health_of(name), *replaced)


def ask(name: str, app: AsgiApp, filled: Path) -> tuple[int, str]:
    """Run a service's health check against an app, and return exit code and output."""
    with served(app, of_container(name, filled)) as url:
        checked = check_at(name, url.rpartition(":")[2], filled)
    assert checked.stderr == ""
    return checked.returncode, checked.stdout.strip()


def test_a_coordinator_is_healthy_if_it_says_so(filled: Path, tmp_path: Path):
    """Asked on the port of its settings, and by no proxy that a machine may have."""
    settings = settings_of(tmp_path)
    with open_context(settings, KnownTokens({}), time.time) as context:
        assert ask("coordinator", create_app(context), filled) == (0, '{"status":"ok"}')


def test_a_coordinator_that_fails_is_not_healthy(filled: Path):
    """Nor is another server on its port."""
    assert ask("coordinator", FastAPI(), filled) == (1, '{"detail":"Not Found"}')


@pytest.mark.parametrize("well", [True, False])
def test_an_agent_is_healthy_if_it_says_so(well: bool, filled: Path):  # noqa: FBT001 - drawn
    """What it answers is kept by Docker, and shown by `docker inspect`."""
    status = Status(answered=well)
    code, shown = ask("agent-1", create_status_page(status, ADA), filled)
    assert (code == 0) is well
    assert (status.unwell or "ok") in shown


@pytest.mark.parametrize("name", ["coordinator", "agent-1"])
def test_a_service_that_is_not_there_is_not_healthy(name: str, filled: Path):
    """Nobody listens."""
    checked = check_at(name, free_ports(1)[0], filled)
    assert checked.returncode == 1
    assert "ConnectionRefusedError" in checked.stderr


@pytest.mark.parametrize(("seconds", "well"), [(0, True), (2 * LONGEST_POLL_SECONDS, True), (120, False)])
def test_a_worker_is_healthy_while_it_is_answered(seconds: float, well: bool, filled: Path, tmp_path: Path):  # noqa: FBT001
    """It touches a file at least once a poll; one answer may be late."""
    alive = tmp_path / Worker.ALIVE
    alive.touch()
    os.utime(alive, (time.time() - seconds,) * 2)
    worker = read_settings(WorkerSettings, filled / "worker" / "worker.toml")
    there = HOME / worker.cache_dir.relative_to(filled / "worker") / Worker.ALIVE
    checked = check(health_of("worker"), (str(there), str(alive)))
    assert (checked.returncode == 0) is well
    assert checked.stderr == ""


def test_a_worker_that_was_never_answered_is_not_healthy(tmp_path: Path):
    """There is no file."""
    assert check(health_of("worker"), (str(HOME), str(tmp_path))).returncode == 1


@pytest.mark.parametrize("name", EVERY_SERVICE)
def test_health_is_asked_as_the_dockerfile_says(name: str):
    """No compose file asks in another way, or not at all."""
    assert "healthcheck" not in EVERY_SERVICE[name]
    assert (last(target_of(name), "HEALTHCHECK") == "NONE") is (name in {"bootstrap", "members"})


@pytest.mark.parametrize("name", ["coordinator", "worker", "agent-1"])
def test_the_page_says_how_long_a_service_has(name: str):
    """Until then a check that fails does not count."""
    options = dict(re.findall(r"--([\w-]+)=(\d+)s", last(target_of(name), "HEALTHCHECK")))
    assert int(options["interval"]) in {5, 10}
    row = {"agent-1": "agents"}.get(name, f"`{name}`")
    (told,) = re.findall(rf"^\| {row} \|.*\| (\d+) s", PAGE, flags=re.MULTILINE)
    assert options["start-period"] == told
