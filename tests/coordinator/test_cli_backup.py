"""`fedcollm backup` and `restore`, as whoever runs a coordinator uses them."""

import json
import shutil
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bench.federation import FEDERATION, key_of
from services.coordinator.cli.app import app
from services.coordinator.cli.tls import write_authority
from shared.cli.console import ExitCode
from tests.support.federations import RUN, begin, coordinator, play_round, terms_of, theta_of

FILES = ("coordinator.toml", "principals.json", "tls/server.pem", "tls/server.key", "tls/ca.pem", "tls/ca.key")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A coordinator's folder, with TLS, whose run has published a round."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "principals.json").write_text("{}")
    (tmp_path / "principals.json").chmod(0o600)
    write_authority(tmp_path / "tls", ["127.0.0.1"])
    settings = {
        "data_dir": "state",
        "principals_file": "principals.json",
        "federation": FEDERATION,
        "operator_key": key_of("operator").public,
        "tls_certificate_file": "tls/server.pem",
        "tls_key_file": "tls/server.key",
    }
    (tmp_path / "coordinator.toml").write_text("".join(f'{name} = "{value}"\n' for name, value in settings.items()))
    with coordinator(tmp_path / "state", time.time) as context:
        begin(context, terms_of(rounds=2))
        play_round(context, 1)
    return tmp_path


def said(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(app, arguments)


def test_a_coordinator_comes_back_on_a_machine_that_has_nothing(folder: Path):
    """Its settings are in the backup: copied back first, they say where the rest belongs."""
    made = said("backup", "backups/monday")
    assert made.exit_code == ExitCode.DONE, made.output
    assert "wrote backups/monday" in made.output
    assert "fedcollm restore --check backups/monday" in made.output
    with coordinator(folder / "state", time.time) as context:
        theta = theta_of(context)
    before = {name: ((folder / name).read_bytes(), (folder / name).stat().st_mode) for name in FILES}
    for gone in ("state", "tls"):
        shutil.rmtree(folder / gone)
    for gone in FILES[:2]:
        (folder / gone).unlink()
    shutil.copy(folder / "backups/monday/settings/coordinator.toml", folder)
    done = said("restore", "backups/monday")
    assert done.exit_code == ExitCode.DONE, done.output
    assert f"{RUN} is paused: `fedcollm runs start {RUN}`" in done.output
    assert {name: ((folder / name).read_bytes(), (folder / name).stat().st_mode) for name in FILES} == before
    with coordinator(folder / "state", time.time) as context:
        assert theta_of(context) == theta


def test_a_backup_is_checked_anywhere(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """On a machine that is no coordinator's, too; what is wrong is said, and the exit code is for scripts."""
    assert said("backup", "backups/monday").exit_code == ExitCode.DONE
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    whole = said("restore", "--check", "../backups/monday")
    assert (whole.exit_code, "is whole" in whole.output) == (ExitCode.DONE, True)
    (folder / "backups/monday/coordinator.key").write_text("other")
    broken = said("restore", "--check", "../backups/monday", "--json")
    assert broken.exit_code == ExitCode.FAILED
    assert json.loads(broken.stderr)["code"] == "backup_invalid"


def test_what_is_there_already_stays(folder: Path):
    """Whoever lost a token since keeps losing it: newer files are not written over, and a full folder is refused."""
    assert said("backup", "backups/monday").exit_code == ExitCode.DONE
    assert said("backup", "backups/monday").exit_code == ExitCode.WRONG_USAGE
    refused = said("restore", "backups/monday")
    assert (refused.exit_code, "not empty" in refused.output) == (ExitCode.WRONG_USAGE, True)
    shutil.rmtree(folder / "state")
    (folder / "principals.json").write_text('{"changed": "since"}')
    done = said("restore", "backups/monday", "--json")
    assert done.exit_code == ExitCode.DONE, done.output
    assert json.loads(done.stdout)["written"] == []
    assert "since" in (folder / "principals.json").read_text()
