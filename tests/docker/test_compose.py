"""docker-compose.yml, its GPU override, the agent's own file and the Dockerfile, compared with the code they run."""

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.routing import APIRoute

from examples.demo import bootstrap
from examples.demo.preset import AGENTS, demo_terms
from services.client_agent.settings import Settings as AgentSettings
from services.client_agent.status import Status
from services.client_agent.status_page import create_status_page
from services.coordinator.app import health
from services.coordinator.principals import read_principals
from services.coordinator.settings import Settings as CoordinatorSettings
from services.coordinator.worker.loop import Worker
from services.coordinator.worker.settings import Settings as WorkerSettings
from shared.configuration import read_settings
from shared.data.examples import read_examples
from shared.protocol.terms import RunTerms
from shared.transport import BearerToken

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAIN = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
GPU = yaml.safe_load((ROOT / "docker-compose.gpu.yml").read_text())
ALONE = yaml.safe_load((ROOT / "examples" / "agent" / "docker-compose.yml").read_text())
SERVICES: Mapping[str, Mapping[str, Any]] = MAIN["services"]
EVERY_SERVICE = [*SERVICES.items(), *ALONE["services"].items()]
BASE_IMAGE = "python:3.11-slim-bookworm"
HOME = Path("/fedcollm")

SETTINGS = {"coordinator": CoordinatorSettings, "worker": WorkerSettings} | dict.fromkeys(AGENTS, AgentSettings)


@dataclass
class Stage:
    """A stage of the Dockerfile: what it begins from and its instructions in order."""

    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def last(self, word: str) -> str:
        """What the last instruction of a kind says."""
        return [rest for kind, rest in self.instructions if kind == word][-1]


def read_stages() -> dict[str, Stage]:
    """The stages by name; here-documents and comments are left out, continued lines joined."""
    text = re.sub(r"<<'(\w+)'\n.*?\n\1\n", "\n", DOCKERFILE, flags=re.DOTALL)
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", "")
    stages: dict[str, Stage] = {}
    for line in filter(None, text.splitlines()):
        word, rest = line.split(maxsplit=1)
        if word == "FROM":
            base, name = rest.split(" AS ")
            stages[name] = Stage(base)
        else:
            list(stages.values())[-1].instructions.append((word, rest))
    return stages


STAGES = read_stages()


def stage_of(service: Mapping[str, Any]) -> Stage:
    """The stage that a service's image is built from."""
    if "build" in service:
        return STAGES[service["build"]["target"]]
    (target,) = (
        each["build"]["target"] for each in SERVICES.values() if each["image"] == service["image"] and "build" in each
    )
    return STAGES[target]


def command_of(service: Mapping[str, Any]) -> list[str]:
    """What a service's container runs."""
    assert "command" not in service, "the Dockerfile says it"
    return json.loads(stage_of(service).last("CMD"))


def health_of(service: Mapping[str, Any]) -> str:
    """The Python of a service's health check."""
    words = json.loads(stage_of(service).last("HEALTHCHECK").partition(" CMD ")[2])
    assert words[:2] == ["python", "-c"]
    return words[2]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The volumes as `bootstrap` leaves them, a folder each."""
    folder = tmp_path_factory.mktemp("volumes")
    run_bootstrap(folder)
    return folder


def run_bootstrap(folder: Path) -> str:
    """Run what the bootstrap container runs, on another folder."""
    *command, _volumes = command_of(SERVICES["bootstrap"])
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    arguments = [sys.executable, *command[1:], str(folder)]
    return subprocess.run(arguments, env=environment, check=True, capture_output=True, text=True).stdout  # noqa: S603


# --- the Dockerfile ---------------------------------------------------------------------------------------------


def test_one_image_is_pulled_and_no_other():
    """Every stage begins from it, from another stage, or from nothing; and no frontend is fetched."""
    bases = {stage.base for stage in STAGES.values()} - set(STAGES)
    sources = set(re.findall(r"(?:--mount=\S*|--)from=([\w:./-]+)", DOCKERFILE))
    assert bases == {BASE_IMAGE, "scratch"}
    assert sources <= set(STAGES)
    assert not re.search(r"^#\s*syntax", DOCKERFILE, flags=re.MULTILINE | re.IGNORECASE)


def test_what_a_stage_installs_is_an_extra():
    """Each stage installs the extra of its name; the coordinator's and its base have no torch."""
    installed = {
        name: re.findall(r"/requirements/(\w+)\.txt", " ".join(rest for _, rest in stage.instructions))
        for name, stage in STAGES.items()
    }
    extras = PROJECT["optional-dependencies"]
    assert {name: found for name, found in installed.items() if found} == {
        "coordinator": ["coordinator"],
        "models": ["worker"],
        "agent": ["agent"],
    }
    assert STAGES["worker"].base == STAGES["agent"].base == "models"
    assert STAGES["coordinator"].base == "base"
    assert "torch" not in {*extras["coordinator"], *PROJECT["dependencies"]}
    assert "torch" in extras["worker"]


def test_what_is_copied_into_an_image_is_in_the_build_context():
    """.dockerignore lets through what the stages mount and copy, and no folder that may hold a run's secrets."""
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    named = set(re.findall(r"type=bind,source=([\w.]+)", DOCKERFILE)) | {
        "services",
        "shared",
        PROJECT["readme"],
        "LICENSE",
    }
    copied = {rest.split()[-2] for stage in STAGES.values() for kind, rest in stage.instructions if kind == "COPY"}
    assert named | copied == allowed
    assert all((ROOT / name).exists() for name in allowed)


# --- the services -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SERVICES)
def test_every_command_exists(name: str):
    """`python -m` a module that is there, or a console script of the project."""
    command = command_of(SERVICES[name])
    if command[0] != "python":
        assert command[0] in PROJECT["scripts"]
        return
    assert command[1] == "-m"
    module = importlib.util.find_spec(command[2])
    assert module is not None
    if module.submodule_search_locations is not None:
        module = importlib.util.find_spec(f"{command[2]}.__main__")
    assert module is not None
    assert 'if __name__ == "__main__":' in Path(str(module.origin)).read_text()


@pytest.mark.parametrize("name", SETTINGS)
def test_the_settings_that_bootstrap_writes_can_be_read(name: str, filled: Path):
    """By the service that they are for, from the file that its command names, and nothing that they name is missing."""
    command = command_of(SERVICES[name])
    settings = read_settings(SETTINGS[name], filled / name / command[command.index("--config") + 1])
    match settings:
        case CoordinatorSettings():
            assert read_principals(settings.principals_file)
        case WorkerSettings():
            assert BearerToken.read(settings.token_file)
            for source in (settings.auxiliary, settings.validation):
                assert read_examples(source, demo_terms(1).task)
        case AgentSettings():
            assert BearerToken.read(settings.token_file)
            assert read_examples(settings.data, demo_terms(1).task)
            assert Path(settings.slm, "model.safetensors").exists()


def test_every_port_is_the_one_that_is_listened_on(filled: Path):
    """Published, exposed, asked by health checks and called by agents and worker: always the settings' own."""
    coordinator = read_settings(CoordinatorSettings, filled / "coordinator" / "coordinator.toml")
    worker = read_settings(WorkerSettings, filled / "worker" / "worker.toml")
    agent = read_settings(AgentSettings, filled / "agent-1" / "agent.toml")

    assert SERVICES["coordinator"]["ports"] == [
        f"127.0.0.1:${{COORDINATOR_PORT:-{coordinator.port}}}:{coordinator.port}"
    ]
    assert STAGES["coordinator"].last("EXPOSE").split() == [str(coordinator.port), str(coordinator.work_port)]
    assert agent.coordinator_url == f"http://coordinator:{coordinator.port}"
    assert worker.coordinator_url == f"http://coordinator:{coordinator.work_port}"
    assert f"'127.0.0.1', {coordinator.port}," in health_of(SERVICES["coordinator"])
    assert f"'127.0.0.1', {agent.status_port}," in health_of(SERVICES["agent-1"])
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["coordinator"]
    assert "ports" not in ALONE["services"]["agent"]


def test_what_health_checks_ask_exists(filled: Path):
    """Routes of the services, and the file that a worker touches."""
    routes = {
        "coordinator": health.routes,
        "agent-1": create_status_page(Status()).routes,
    }
    for name, known in routes.items():
        (path,) = re.findall(r"'GET', '(\S+)'", health_of(SERVICES[name]))
        assert path in {route.path for route in known if isinstance(route, APIRoute)}
    worker = read_settings(WorkerSettings, filled / "worker" / "worker.toml")
    (file,) = re.findall(r"os\.stat\('(\S+)'\)", health_of(SERVICES["worker"]))
    assert Path(file) == HOME / worker.cache_dir.relative_to(filled / "worker") / Worker.ALIVE


@pytest.mark.parametrize(("name", "service"), EVERY_SERVICE)
def test_every_service_is_confined(name: str, service: Mapping[str, Any]):
    """No root, nothing written outside volumes, no capability, none to be gained, and none of the host's doors."""
    assert service["user"] == "10001:10001", name
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["tmpfs"][0].startswith("/tmp:")  # noqa: S108 - in a container
    assert not {"privileged", "cap_add", "devices", "pid", "ipc"} & set(service)
    assert service.get("network_mode", "none") == "none"
    assert not any("docker.sock" in str(volume) for volume in service["volumes"])
    assert stage_of(service).last("USER") == "10001:10001"


def test_every_volume_is_declared_used_and_private():
    """Bootstrap sees all volumes before anybody works; after that each belongs to one service."""
    mounts = {name: [volume.split(":") for volume in service["volumes"]] for name, service in SERVICES.items()}
    made = {volume: Path(target) for volume, target in mounts.pop("bootstrap")}
    volumes_folder = Path(command_of(SERVICES["bootstrap"])[-1])
    assert made == {name: volumes_folder / name for name in mounts}
    assert mounts == {name: [[name, str(HOME)]] for name in mounts}
    assert set(MAIN["volumes"]) == set(mounts)
    assert {volume.split(":")[0] for volume in ALONE["services"]["agent"]["volumes"] if isinstance(volume, str)} == set(
        ALONE["volumes"]
    )
    (folders,) = re.findall(r"for service in ([\w -]+);", DOCKERFILE)
    assert set(folders.split()) == set(mounts)  # a volume begins with its folder's owner


def test_agents_share_no_network_with_the_worker():
    """The work port listens on an address of the worker's network alone, which has no way out."""
    networks = {name: set(service.get("networks", ())) for name, service in SERVICES.items()}
    assert {name: networks.pop(name) for name in AGENTS} == {name: {"public"} for name in AGENTS}
    assert networks == {"bootstrap": set(), "coordinator": {"public", "work"}, "worker": {"work"}}
    assert MAIN["networks"] == {"public": {}, "work": {"internal": True}}
    (alias,) = SERVICES["coordinator"]["networks"]["work"]["aliases"]
    assert f'work_host = "{alias}"' in bootstrap.COORDINATOR


def test_services_start_in_an_order_that_works():
    """Everybody waits for the volumes, and whoever calls the coordinator waits until it serves."""
    filled, serving = {"condition": "service_completed_successfully"}, {"condition": "service_healthy"}
    assert SERVICES["coordinator"]["depends_on"] == {"bootstrap": filled}
    for name in ("worker", *AGENTS):
        assert SERVICES[name]["depends_on"] == {"bootstrap": filled, "coordinator": serving}
    assert SERVICES["bootstrap"]["restart"] == "no"
    assert {service["restart"] for name, service in EVERY_SERVICE if name != "bootstrap"} == {"unless-stopped"}


def test_nothing_of_ours_is_asked_of_a_registry():
    """Somebody else may own these names there: every image is built here, or not used."""
    for _, service in EVERY_SERVICE:
        assert service["pull_policy"] == ("build" if "build" in service else "never")


def test_the_gpu_file_changes_services_that_exist():
    """It sets what the worker's settings know."""
    for name, service in GPU["services"].items():
        known = {f"{SETTINGS[name].model_config['env_prefix']}{each.upper()}" for each in SETTINGS[name].model_fields}
        assert set(service["environment"]) <= known
    assert GPU["services"]["worker"]["environment"] == {"FEDCOLLM_WORKER_DEVICE": "cuda"}


def test_an_organisations_agent_finds_what_its_settings_name():
    """Everything that examples/agent/agent.toml names is mounted, and only its state can be written."""
    folder = ROOT / "examples" / "agent"
    settings = read_settings(AgentSettings, folder / "agent.toml")
    volumes = ALONE["services"]["agent"]["volumes"]
    read = {Path(each["target"]): each for each in volumes if not isinstance(each, str)}
    written = {Path(each.split(":")[1]) for each in volumes if isinstance(each, str)}
    named = [settings.token_file, settings.data.path, folder / settings.slm]

    for path in named:
        inside = HOME / path.relative_to(folder)
        assert {inside, *inside.parents} & set(read), path
    assert HOME / settings.state_dir.relative_to(folder) in written
    assert all(each["read_only"] and not each["bind"]["create_host_path"] for each in read.values())
    assert {HOME / Path(each["source"]) for each in read.values()} == set(read)
    assert f"HF_HOME={HOME}/huggingface" in STAGES["models"].last("ENV")
    assert HOME / "huggingface" in written
    made = shlex.split(next(rest for kind, rest in STAGES["base"].instructions if kind == "RUN"))
    assert set(map(str, written)) <= set(made)  # owned by the user, or a new volume could not be written


# --- bootstrap --------------------------------------------------------------------------------------------------


def test_bootstrap_gives_each_service_its_own_and_says_what_that_is(filled: Path):
    """An agent's folder has its own token and no other; files are for their owner; each says that it is a demo's."""
    principals = json.loads((filled / "coordinator" / "principals.json").read_text())
    roles = {"operator": "operator", "worker": "worker"} | dict.fromkeys(AGENTS, "agent")
    assert {name: entry["role"] for name, entry in principals.items()} == roles
    assert len({entry["token"] for entry in principals.values()}) == len(principals)
    for service in ("worker", *AGENTS):
        content = b"".join(file.read_bytes() for file in (filled / service).rglob("*") if file.is_file())
        found = {name for name, entry in principals.items() if entry["token"].encode() in content}
        assert found == {service}
    files = [file for file in filled.rglob("*") if file.is_file()]
    assert {oct(file.stat().st_mode & 0o777) for file in files} == {"0o600"}
    assert {file.parent.name for file in files if file.name == bootstrap.MARK} == set(SETTINGS)


def test_bootstrap_leaves_what_is_there(tmp_path: Path):
    """A second call changes nothing; a volume that was lost is filled again with the token that is known."""
    run_bootstrap(tmp_path)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    assert "nothing was changed" in run_bootstrap(tmp_path)
    for file in (tmp_path / "agent-2").glob("[Dt]*"):  # the mark, the token
        file.unlink()
    assert run_bootstrap(tmp_path).startswith("filled: agent-2 ")
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_the_run_that_bootstrap_writes_names_models_that_the_worker_has(filled: Path):
    """Its preset is the demo's, and its paths are those in the worker's volume."""
    run = tomllib.loads((filled / "coordinator" / "run.toml").read_text())
    assert run.pop("preset") == demo_terms(1).name
    terms = RunTerms.model_validate(demo_terms(bootstrap.SEED).model_dump() | run)
    for model in (terms.llm, terms.slm):
        assert (filled / "worker" / Path(model).relative_to(HOME) / "model.safetensors").exists()
