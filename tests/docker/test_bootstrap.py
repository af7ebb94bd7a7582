"""What `docker compose up` puts into the demo's volumes: settings, tokens, data, models."""

import json
import shutil
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from examples.demo import bootstrap
from examples.demo.preset import AGENTS, demo_terms
from services.client_agent.settings import Settings as AgentSettings
from services.coordinator.certificates import hosts_of, read_certificate, serving_tls
from services.coordinator.cli.settings import OperatorSettings
from services.coordinator.presets import read_terms
from services.coordinator.settings import Settings as CoordinatorSettings
from services.coordinator.tokens import TokenFile, read_entries, sha256
from services.coordinator.worker.settings import Settings as WorkerSettings
from shared.configuration import read_settings
from shared.credentials import BearerToken
from shared.data.examples import read_examples
from shared.errors import OutputUnwritable
from shared.key_file import read_key
from shared.trust import trusting
from tests.support.containers import HOME, command_of, run_bootstrap

SETTINGS = {"coordinator": CoordinatorSettings, "worker": WorkerSettings} | dict.fromkeys(AGENTS, AgentSettings)


def contents(folder: Path) -> Mapping[Path, bytes]:
    """All files."""
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_services_settings_can_be_read(name: str, filled: Path):
    """By the service that they are for, from the file that its command names, and nothing that they name is missing."""
    settings = read_settings(SETTINGS[name], filled / name / command_of(name)[-1])
    match settings:
        case CoordinatorSettings():
            assert TokenFile(settings.principals_file)
            assert ip_address(settings.host).is_unspecified  # its port is published, and agents are elsewhere
            assert settings.tls_certificate_file is not None
            assert settings.tls_key_file is not None
            assert serving_tls(settings.tls_certificate_file, settings.tls_key_file)
        case WorkerSettings():
            assert BearerToken.read(settings.token_file)
            assert trusting(settings.ca_file)
            for source in (settings.auxiliary, settings.validation):
                assert read_examples(source, demo_terms(1).task)
        case AgentSettings():
            assert (settings.name, settings.federation) == (name, bootstrap.FEDERATION)
            assert settings.operator_key == read_key(filled / "coordinator" / "operator.key").public
            assert read_key(settings.identity_key_file)
            assert trusting(settings.ca_file)
            assert settings.evaluation is not None
            for source in (settings.data, settings.evaluation):
                assert read_examples(source, demo_terms(1).task)
            assert Path(settings.slm, "model.safetensors").exists()


def test_an_operator_finds_the_coordinator_in_its_own_container(filled: Path):
    """Where docs/docker.md has `fedcollm` run, with the operator's token."""
    operator = read_settings(OperatorSettings, filled / "coordinator" / "operator.toml")
    coordinator = read_settings(CoordinatorSettings, filled / "coordinator" / "coordinator.toml")
    assert operator.coordinator_url == f"https://127.0.0.1:{coordinator.port}"
    assert operator.ca_file == filled / "coordinator" / "tls" / "ca.pem"
    known = read_entries(coordinator.principals_file)["operator"]
    assert sha256(BearerToken.read(operator.token_file).token) == known.token_sha256
    assert known.role == "operator"


def test_everybody_trusts_the_coordinator_by_the_names_that_it_has(filled: Path):
    """On the networks of the containers and, for its published port and its own health, on loopback."""
    made = filled / "coordinator" / "tls"
    shown, authority = read_certificate(made / "server.pem"), read_certificate(made / "ca.pem")
    shown.verify_directly_issued_by(authority)
    for name in ("worker", *AGENTS):
        settings = read_settings(SETTINGS[name], filled / name / command_of(name)[-1])
        assert isinstance(settings, WorkerSettings | AgentSettings)
        assert urlsplit(settings.coordinator_url).hostname in hosts_of(shown)
        assert settings.ca_file is not None
        assert read_certificate(settings.ca_file) == authority
    assert {"work.coordinator", "localhost", "127.0.0.1"} < set(hosts_of(shown))
    keys = {filled / "coordinator" / "operator.key"} | {filled / name / "agent.key" for name in AGENTS}
    assert {file for file in filled.rglob("*.key") if file.parent != made} == keys


def test_each_service_gets_its_own_and_is_told_what_that_is(filled: Path):
    """A folder has its own secret and no other; files are for their owner; each says that it is a demo's."""
    principals = json.loads((filled / "coordinator" / "principals.json").read_text())
    roles = {"operator": "operator", "worker": "worker", "prometheus": "viewer"}
    assert {name: entry["role"] for name, entry in principals.items()} == roles
    tokens = {name: BearerToken.read(filled / file).token for name, file in bootstrap.TOKENS.items()}
    assert {name: sha256(token) for name, token in tokens.items()} == {
        name: entry["token_sha256"] for name, entry in principals.items()
    }
    secrets = dict(tokens)
    secrets |= {name: (filled / name / "agent.key").read_text().strip() for name in AGENTS}
    secrets |= {"operator's key": (filled / "coordinator" / "operator.key").read_text().strip()}
    for service in ("worker", "prometheus", *AGENTS):
        content = b"".join(contents(filled / service).values())
        assert {name for name, secret in secrets.items() if secret.encode() in content} == {service}
    files = list(contents(filled))
    assert {oct(file.stat().st_mode & 0o777) for file in files} == {"0o600"}
    assert {file.parent.name for file in files if file.name == bootstrap.MARK} == {*SETTINGS, "prometheus"}


def test_the_run_names_models_that_the_worker_has(filled: Path):
    """Its terms are the demo's, and its paths are those in the worker's volume."""
    terms = read_terms(filled / "coordinator" / "run.toml")
    assert terms == demo_terms(bootstrap.SEED).model_copy(update={"llm": terms.llm, "slm": terms.slm})
    for model in (terms.llm, terms.slm):
        assert (filled / "worker" / Path(model).relative_to(HOME) / "model.safetensors").exists()


def test_what_is_there_stays(tmp_path: Path):
    """A second call changes nothing; a volume that was lost is filled again, with a new key, and no other changes."""
    run_bootstrap(tmp_path)
    before = contents(tmp_path)
    assert "nothing was changed" in run_bootstrap(tmp_path)
    shutil.rmtree(tmp_path / "agent-2")
    said = run_bootstrap(tmp_path)
    assert "filled: agent-2 " in said
    assert "agent-2 (restart whichever runs)" in said
    changed = {file for file, content in contents(tmp_path).items() if content != before[file]}
    assert changed == {tmp_path / "agent-2" / "agent.key"}


def test_a_coordinator_that_lost_its_volume_locks_nobody_out(tmp_path: Path):
    """Everybody gets what the new one knows or shows, its CA and operator too, is named for it, and keeps the rest."""
    run_bootstrap(tmp_path)
    others = {file: content for file, content in contents(tmp_path).items() if "coordinator" not in file.parts}
    shutil.rmtree(tmp_path / "coordinator")

    said = run_bootstrap(tmp_path)
    assert "filled: coordinator " in said
    assert f"new token, CA or operator: {', '.join(sorted({*bootstrap.TOKENS, *AGENTS}))} " in said
    operator = read_key(tmp_path / "coordinator" / "operator.key").public
    believed = {read_settings(AgentSettings, tmp_path / name / "agent.toml").operator_key for name in AGENTS}
    assert believed == {operator}
    authority = (tmp_path / "coordinator" / "tls" / "ca.pem").read_bytes()
    assert {(tmp_path / file).read_bytes() for file in bootstrap.CA_FILES.values()} == {authority}
    entries = read_entries(tmp_path / "coordinator" / "principals.json")
    known = {name: entry.token_sha256 for name, entry in entries.items()}
    held = {name: sha256(BearerToken.read(tmp_path / file).token) for name, file in bootstrap.TOKENS.items()}
    assert held == known
    assert {file for file, content in others.items() if file.read_bytes() != content} == {
        tmp_path / "worker" / "token",
        tmp_path / "prometheus" / "token",
        *(tmp_path / file for file in bootstrap.CA_FILES.values()),
        *(tmp_path / name / "agent.toml" for name in AGENTS),
    }


def test_a_ca_that_was_broken_off_is_made_again(tmp_path: Path):
    """A coordinator cannot serve without its key: everybody trusts the new one, and keeps the token."""
    bootstrap.bootstrap(tmp_path)
    (tmp_path / "coordinator" / "tls" / "server.key").unlink()
    assert bootstrap.bootstrap(tmp_path) == ([], sorted(bootstrap.CA_FILES))
    authority = (tmp_path / "coordinator" / "tls" / "ca.pem").read_bytes()
    assert {(tmp_path / file).read_bytes() for file in bootstrap.CA_FILES.values()} == {authority}


def test_somebody_whom_the_operator_has_added_gets_no_folder(tmp_path: Path):
    """No service of this file is theirs, and no volume: their token is with them."""
    bootstrap.bootstrap(tmp_path)
    file = tmp_path / "coordinator" / "principals.json"
    entry = json.loads(file.read_text())["operator"] | {"role": "viewer", "token_sha256": sha256("fct_of ada")}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"ada": entry}))
    assert bootstrap.bootstrap(tmp_path) == ([], [])
    assert not (tmp_path / "ada").exists()


@pytest.mark.parametrize("file", [bootstrap.MARK, "agent.toml"])
def test_what_was_broken_off_is_filled_again(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The mark is written last and appears whole, so that none stands for a folder that is not filled."""
    replace = Path.replace

    def full(part: Path, target: Path) -> Path:
        if target.name == file:
            raise OSError(28, "No space left on device")
        return replace(part, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(OutputUnwritable):
            bootstrap.bootstrap(tmp_path)
    bootstrap.bootstrap(tmp_path)
    for name in SETTINGS:
        assert (tmp_path / name / command_of(name)[-1]).read_text()
        assert (tmp_path / name / bootstrap.MARK).read_text() == bootstrap.WARNING
