"""docker-compose.yml, its GPU override and the agent's own file, compared with the images and the code they run."""

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from examples.demo import bootstrap
from examples.demo.preset import AGENTS, MODELS
from services.client_agent.cli.app import app
from services.client_agent.settings import Settings as AgentSettings
from services.coordinator.cli.signing import Signer
from services.coordinator.settings import Settings as CoordinatorSettings
from services.coordinator.worker.settings import Settings as WorkerSettings
from shared.cli.console import ExitCode
from shared.configuration import read_settings
from shared.protocol.identity import IdentityKey
from tests.support.containers import (
    ALONE,
    DOCKERFILE,
    EVERY_SERVICE,
    GPU,
    HOME,
    MAIN,
    ORGANISATIONS_AGENT,
    ORGANISATIONS_FOLDER,
    PAGE,
    ROOT,
    SERVICES,
    STAGES,
    command_of,
    health_of,
    last,
    run_here,
    target_of,
)
from tests.support.tls import certificates

ROW = '{"question": "Why?", "choices": ["x", "y"], "answer": "x"}\n'
MODULES = {
    "bootstrap": "examples.demo.bootstrap",
    "members": "examples.demo.members",
    "coordinator": "services.coordinator",
    "worker": "services.coordinator.worker",
} | dict.fromkeys([*AGENTS, "an organisation's agent"], "services.client_agent")
TARGETS = {name: name for name in ("bootstrap", "coordinator", "members", "worker", "prometheus")} | dict.fromkeys(
    AGENTS, "agent"
)

# What every container is denied: root, writing outside its volumes, and every capability.
CONFINED = {
    "user": "10001:10001",
    "read_only": True,
    "tmpfs": ["/tmp:mode=1777,size=64m"],  # noqa: S108 - in a container
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
}
# What else a compose file may say; what runs, where, and how health is asked is the Dockerfile's to say.
USUAL = {"image", "pull_policy", "restart", "stop_grace_period", "init", "volumes", *CONFINED}
BESIDE = {
    "bootstrap": {"build", "network_mode"},
    "coordinator": {"build", "depends_on", "networks", "ports"},
    "members": {"build", "depends_on", "networks"},
    "worker": {"build", "depends_on", "networks"},
    "agent-1": {"build", "depends_on", "networks"},
    "prometheus": {"build", "depends_on", "networks", "ports", "profiles"},
    "an organisation's agent": {"environment"},
}


# --- images -----------------------------------------------------------------------------------------------------


def test_every_image_is_built_from_the_stage_of_its_service():
    """Here, by our Dockerfile, with the root of a clone as the context."""
    assert {name: target_of(name) for name in SERVICES} == TARGETS
    assert target_of("an organisation's agent") == "agent"
    for service in SERVICES.values():
        if "build" in service:
            context = ROOT / service["build"]["context"]
            assert context.samefile(ROOT)
            assert (context / service["build"]["dockerfile"]).samefile(DOCKERFILE)
            assert set(service["build"]) == {"context", "dockerfile", "additional_contexts", "args", "target"}


def test_the_wheels_context_takes_the_place_of_an_empty_stage():
    """A folder that is there unless another is named."""
    ((name, folder),) = MAIN["x-build"]["additional_contexts"].items()
    assert STAGES[name].base == "scratch"
    assert not STAGES[name].instructions
    assert f"from={name}," in DOCKERFILE.read_text()
    (default,) = re.findall(r"\$\{WHEELS_DIR:-(\S+)\}", folder)
    assert (ROOT / default).is_dir()


def test_what_a_build_is_given_lasts():
    """`up` builds too, so pip's settings come from variables that it reads as well; empty, pip takes no notice."""
    arguments = MAIN["x-build"]["args"]
    assert set(arguments) == {"PIP_INDEX_URL", "PIP_NO_INDEX"}
    assert set(arguments) <= set(STAGES["base"].all("ARG"))
    assert all(value == f"${{{name}:-}}" for name, value in arguments.items())


def test_the_page_names_every_variable_that_is_read():
    """And none that is not: what is set in vain is missed late."""
    files = [ROOT / "docker-compose.yml", ORGANISATIONS_FOLDER / "docker-compose.yml"]
    read = {name for file in files for name in re.findall(r"\$\{(\w+)", file.read_text())}
    read |= {name for name, value in ORGANISATIONS_AGENT["environment"].items() if value is None}
    named = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)(?:=\w+)?`", PAGE))
    assert named == read


def test_nothing_of_ours_is_asked_of_a_registry():
    """Somebody else may own these names there: every image is built here, or not used."""
    for service in EVERY_SERVICE.values():
        assert service["pull_policy"] == ("build" if "build" in service else "never")


# --- what runs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULES)
def test_every_service_of_ours_runs_its_own_module(name: str):
    """As its image says."""
    assert command_of(name)[:3] == ["python", "-m", MODULES[name]]


@pytest.mark.parametrize("name", ["coordinator", "worker", "agent-1"])
def test_every_command_gets_as_far_as_its_settings(name: str, tmp_path: Path):
    """Started where there are none, a service asks for just the file that its command names."""
    option, file = command_of(name)[3:]
    ended = run_here(name, [option, file], tmp_path)
    assert option == "--config"
    assert ended.returncode == 2
    assert f"there is no '{file}' in" in ended.stderr


@pytest.mark.parametrize("name", EVERY_SERVICE)
def test_a_compose_file_says_nothing_that_an_image_does(name: str):
    """No other command, folder, environment or health check, and none of the host's doors."""
    allowed = USUAL | BESIDE.get(name, BESIDE["agent-1"])
    assert set(EVERY_SERVICE[name]) <= allowed


@pytest.mark.parametrize("name", EVERY_SERVICE)
def test_every_service_is_confined(name: str):
    """No root, nothing written outside volumes, no capability, and none to be gained."""
    service = EVERY_SERVICE[name]
    assert {key: service[key] for key in CONFINED} == CONFINED
    assert service["init"] is True  # or nobody would take care of a trainer's children
    assert service.get("network_mode", "none") == "none"
    assert not any("docker.sock" in str(volume) for volume in service["volumes"])
    assert "`/tmp` is 64 MB" in PAGE


def test_services_start_in_an_order_that_works():
    """Everybody waits for the volumes, who calls the coordinator until it serves, and agents until they are members."""
    ended, serving = {"condition": "service_completed_successfully"}, {"condition": "service_healthy"}
    assert SERVICES["coordinator"]["depends_on"] == {"bootstrap": ended}
    for name in ("worker", "members", "prometheus"):
        assert SERVICES[name]["depends_on"] == {"bootstrap": ended, "coordinator": serving}
    for name in AGENTS:
        assert SERVICES[name]["depends_on"] == {"members": ended}
    once = {"bootstrap", "members"}
    assert {SERVICES[name]["restart"] for name in once} == {"no"}
    assert {each["restart"] for name, each in EVERY_SERVICE.items() if name not in once} == {"unless-stopped"}


# --- ports, networks, volumes -----------------------------------------------------------------------------------


def test_every_port_is_the_one_that_is_listened_on(filled: Path):
    """Published, exposed, and called by agents and worker: always the settings' own."""
    coordinator = read_settings(CoordinatorSettings, filled / "coordinator" / "coordinator.toml")
    worker = read_settings(WorkerSettings, filled / "worker" / "worker.toml")
    agent = read_settings(AgentSettings, filled / "agent-1" / "agent.toml")

    assert SERVICES["coordinator"]["ports"] == [
        f"127.0.0.1:${{COORDINATOR_PORT:-{coordinator.port}}}:{coordinator.port}"
    ]
    assert last("coordinator", "EXPOSE").split() == [str(coordinator.port), str(coordinator.work_port)]
    assert agent.coordinator_url == f"https://coordinator:{coordinator.port}"
    assert worker.coordinator_url == f"https://coordinator:{coordinator.work_port}"
    assert f"`--coordinator https://127.0.0.1:{coordinator.port} " in PAGE


def test_agents_share_no_network_with_the_worker_and_none_with_the_world():
    """The work port listens on the worker's network alone; out of them lead only those of what has a published port."""
    networks = {name: set(service.get("networks", ())) for name, service in SERVICES.items()}
    assert {name: networks.pop(name) for name in AGENTS} == {name: {"public"} for name in AGENTS}
    assert networks == {
        "bootstrap": set(),
        "coordinator": {"public", "work", "outside"},
        "members": {"public"},
        "worker": {"work"},
        "prometheus": {"work", "outside"},
    }
    assert SERVICES["bootstrap"]["network_mode"] == "none"
    assert MAIN["networks"] == {"public": {"internal": True}, "work": {"internal": True}, "outside": {}}
    (alias,) = SERVICES["coordinator"]["networks"]["work"]["aliases"]
    assert f'work_host = "{alias}"' in bootstrap.COORDINATOR


def test_every_volume_is_declared_used_and_private():
    """Bootstrap sees all volumes, and members reads the keys, before agents work; each belongs to one service."""
    mounts = {name: [volume.split(":") for volume in service["volumes"]] for name, service in SERVICES.items()}
    made = {volume: Path(target) for volume, target in mounts.pop("bootstrap")}
    read = mounts.pop("members")
    assert read == [[name, str(made[name]), "ro"] for name in ("coordinator", *AGENTS)]
    assert command_of("members")[-1] == command_of("bootstrap")[-1]
    volumes_folder = Path(command_of("bootstrap")[-1])
    assert made == {name: volumes_folder / name for name in mounts}
    assert mounts == {name: [[name, str(HOME)]] for name in mounts}
    assert set(MAIN["volumes"]) == set(mounts)
    (folders,) = re.findall(r"for service in ([\w -]+);", DOCKERFILE.read_text())
    assert set(folders.split()) == set(mounts)  # a volume begins with its folder's owner


# --- Prometheus -------------------------------------------------------------------------------------------------


def test_prometheus_runs_only_where_it_is_wanted_and_finds_what_it_fetches(filled: Path):
    """By the names and ports of the services that it shares networks with, and with the files of its volume."""
    assert [name for name, service in SERVICES.items() if "profiles" in service] == ["prometheus"]
    assert SERVICES["prometheus"]["profiles"] == ["monitoring"]
    program, *options = command_of("prometheus")
    assert program == "prometheus"
    (config,) = (Path(option.partition("=")[2]) for option in options if option.startswith("--config.file="))
    source, folder = last("prometheus", "COPY").split()[-2:]
    assert config.parent == Path(folder)
    assert (ROOT / source / config.name).exists()
    read = yaml.safe_load((ROOT / source / config.name).read_text())
    assert all((ROOT / source / name).exists() for name in read["rule_files"])

    coordinator, worker = read["scrape_configs"]
    public = read_settings(CoordinatorSettings, filled / "coordinator" / "coordinator.toml").port
    metrics = read_settings(WorkerSettings, filled / "worker" / "worker.toml").metrics_port
    targets = [job["static_configs"][0]["targets"] for job in (coordinator, worker)]
    assert targets == [[f"coordinator:{public}"], [f"worker:{metrics}"]]
    assert "coordinator" in bootstrap.HOSTS  # or its certificate would not be trusted
    for job in (coordinator, worker):
        assert set(SERVICES[job["job_name"]]["networks"]) & set(SERVICES["prometheus"]["networks"])
    for file in (coordinator["authorization"]["credentials_file"], coordinator["tls_config"]["ca_file"]):
        assert (filled / "prometheus" / Path(file).relative_to(HOME)).exists()


def test_what_prometheus_keeps_is_in_its_volume():
    """The rest of its root file system cannot be written."""
    (kept,) = (option.partition("=")[2] for option in command_of("prometheus") if "tsdb.path" in option)
    assert Path(kept).parent == HOME
    assert SERVICES["prometheus"]["ports"] == [f"127.0.0.1:${{PROMETHEUS_PORT:-9090}}:{last('prometheus', 'EXPOSE')}"]
    assert f"'127.0.0.1', {last('prometheus', 'EXPOSE')}," in health_of("prometheus")


# --- the GPU file -----------------------------------------------------------------------------------------------


def test_the_gpu_file_gives_the_worker_one_gpu_and_has_it_used():
    """In Compose's own words for a GPU of NVIDIA's, and in a setting that the worker knows."""
    worker = GPU["services"]["worker"]
    assert set(GPU["services"]) == {"worker"}
    assert set(worker) == {"environment", "deploy"}
    (gpu,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert gpu == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert worker["environment"] == {f"{WorkerSettings.model_config['env_prefix']}DEVICE": "cuda"}
    assert "device" in WorkerSettings.model_fields


# --- an organisation's agent ------------------------------------------------------------------------------------


def test_an_organisations_agent_finds_what_its_settings_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """All that `fedcollm-agent init` names in a copy of the folder is mounted, and only its state can be written."""
    copy = tmp_path / "organisation"
    shutil.copytree(ORGANISATIONS_FOLDER, copy)
    shutil.copytree(MODELS / "slm", copy / "models" / "slm")
    (copy / "data").mkdir()
    (copy / "data" / "examples.jsonl").write_text(ROW)
    pem, operator = certificates(tmp_path).ca_file.read_text(), Signer("clinics", IdentityKey.generate())
    invitation = operator.invite("ada", coordinator_url="https://127.0.0.1:1", expires_at=1, ca_certificate=pem)
    (copy / "ada.invitation").write_text(invitation.model_dump_json())
    monkeypatch.chdir(copy)
    (shown,) = re.findall(r"`docker run [^`]*fedcollm-agent fedcollm-agent (init [^`]*)`", PAGE)
    told = CliRunner().invoke(app, shlex.split(shown.replace("clinic.", "ada.")))
    assert told.exit_code == ExitCode.UNREACHABLE, told.output  # nobody serves there

    settings = read_settings(AgentSettings, copy / "agent.toml")
    volumes = ORGANISATIONS_AGENT["volumes"]
    bound = {Path(each["target"]): each for each in volumes if not isinstance(each, str)}
    kept = {Path(each.split(":")[1]) for each in volumes if isinstance(each, str)}
    assert settings.ca_file is not None
    named = [settings.identity_key_file, settings.ca_file, settings.data.path, Path(settings.slm), settings.state_dir]

    assert HOME / command_of("an organisation's agent")[-1] in bound
    for path in named:
        inside = HOME / path.relative_to(copy)
        assert {inside, *inside.parents} & set(bound), path
    written = {target for target, each in bound.items() if not each["read_only"]}
    assert written == {HOME / settings.state_dir.relative_to(copy)}
    assert not any(each["bind"]["create_host_path"] for each in bound.values())
    assert {HOME / Path(each["source"]) for each in bound.values()} == set(bound)
    assert f"HF_HOME={HOME}/huggingface" in last("agent", "ENV")
    assert kept == {HOME / "huggingface"}
    assert {each.split(":")[0] for each in volumes if isinstance(each, str)} == set(ALONE["volumes"])
    made = shlex.split(next(rest for rest in STAGES["base"].all("RUN")))
    assert set(map(str, kept)) <= set(made)  # owned by the user, or a new volume could not be written


def test_an_organisations_agent_is_one_of_many():
    """Two copies of the folder share nothing: neither project nor container nor volume has a name that is fixed."""
    assert set(ALONE) == {"x-read", "services", "volumes"}
    assert set(ALONE["services"]) == {"agent"}
    assert all(volume == {} for volume in ALONE["volumes"].values())
    assert set(ORGANISATIONS_AGENT["environment"]) == {"HF_HUB_OFFLINE", "HTTPS_PROXY", "NO_PROXY"}


def shown(part: str) -> dict[str, Any]:
    """Return the one override on the page of containers that has a part."""
    overrides = map(yaml.safe_load, re.findall(r"^```yaml\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL))
    (found,) = (override for override in overrides if part in override)
    return found


def test_an_agents_pages_are_published_to_its_own_machine_alone():
    """Where somebody wants them in a browser; the port is the agent's."""
    assert shown("services") == {"services": {"agent": {"ports": ["127.0.0.1:8450:8450"]}}}
    assert AgentSettings.model_fields["status_port"].default == 8450


def test_an_agent_beside_the_demo_joins_the_network_of_its_agents():
    """By the name that Compose gives it."""
    (network,) = SERVICES["agent-1"]["networks"]
    assert shown("networks") == {"networks": {"default": {"name": f"{MAIN['name']}_{network}", "external": True}}}
