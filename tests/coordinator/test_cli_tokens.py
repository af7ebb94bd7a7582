"""`fedcollm tokens`, as whoever runs a coordinator uses it."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bench.federation import FEDERATION, key_of
from services.coordinator.cli.app import app
from services.coordinator.cli.tokens import changing
from services.coordinator.principals import Principal, Role
from services.coordinator.tokens import TokenFile, issue, read_entries
from shared.cli.console import ExitCode
from shared.credentials import BearerToken
from shared.errors import NotAuthenticated


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A coordinator's folder, where nobody has a token."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "principals.json").write_text("{}")
    settings = {
        "data_dir": "state",
        "principals_file": "principals.json",
        "federation": FEDERATION,
        "operator_key": key_of("operator").public,
    }
    (tmp_path / "coordinator.toml").write_text("".join(f'{name} = "{value}"\n' for name, value in settings.items()))
    return tmp_path


def tokens(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(app, ["tokens", *arguments])


def test_a_token_is_issued_to_a_file_and_known_at_once(folder: Path):
    """By a coordinator that runs already; it is shown nowhere, and only its owner reads the file."""
    running = TokenFile(folder / "principals.json")
    told = tokens("issue", "screen", "--role", "viewer", "--days", "90")
    assert told.exit_code == ExitCode.DONE, told.output
    file = folder / "tokens" / "screen"
    token = BearerToken.read(file).token
    assert running.find(token, 0.0) == Principal("screen", Role.VIEWER)
    assert token not in told.output
    assert "tokens/screen, the token of screen as viewer until 2" in told.output
    assert {path.stat().st_mode & 0o777 for path in (file, folder / "principals.json")} == {0o600}


def test_a_token_is_replaced_only_if_that_is_said(folder: Path):
    """The old one ends with it."""
    running = TokenFile(folder / "principals.json")
    assert tokens("issue", "gpu", "--role", "worker").exit_code == ExitCode.DONE
    old = BearerToken.read(folder / "tokens" / "gpu").token
    refused = tokens("issue", "gpu", "--role", "worker")
    assert refused.exit_code == ExitCode.WRONG_USAGE
    assert "gpu has a token, as worker: replace it with --force" in refused.output
    assert tokens("issue", "gpu", "--role", "worker", "--force", "--into", "new").exit_code == ExitCode.DONE
    assert running.find(BearerToken.read(folder / "new").token, 0.0).name == "gpu"
    with pytest.raises(NotAuthenticated):
        running.find(old, 0.0)


def test_who_has_a_token_is_listed(folder: Path):
    """Names, roles and ends, as a table and as JSON; what has ended says so."""
    tokens("issue", "screen", "--role", "viewer")
    tokens("issue", "gpu", "--role", "worker")
    file = folder / "principals.json"
    entries = json.loads(file.read_text())
    entries["gpu"]["not_after"] = "2020-01-01T00:00:00Z"
    file.write_text(json.dumps(entries))
    assert "2020-01-01 (ended)" in tokens("list").output
    found = json.loads(tokens("list", "--json").output)["tokens"]
    assert [(one["name"], one["role"]) for one in found] == [("gpu", "worker"), ("screen", "viewer")]
    assert set(found[0]) == {"name", "role", "not_after"}


def test_a_revoked_token_is_known_no_more(folder: Path):
    """To a coordinator that runs; whoever has none is named."""
    running = TokenFile(folder / "principals.json")
    tokens("issue", "screen", "--role", "viewer")
    token = BearerToken.read(folder / "tokens" / "screen").token
    assert running.find(token, 0.0).name == "screen"
    assert tokens("revoke", "screen").exit_code == ExitCode.DONE
    with pytest.raises(NotAuthenticated):
        running.find(token, 0.0)
    again = tokens("revoke", "screen")
    assert again.exit_code == ExitCode.REFUSED
    assert "nobody called screen has a token" in again.output


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    "arguments",
    [
        ("issue", "a/b", "--role", "viewer"),
        ("issue", "ada", "--role", "agent"),
        ("issue", "ada", "--role", "viewer", "--days", "0"),
        ("issue", "ada"),
        ("list", "--config", "none.toml"),
    ],
)
def test_what_cannot_be_is_wrong_usage(arguments: tuple[str, ...]):
    """A name, a role, days and a file of settings: each is looked at first."""
    assert tokens(*arguments).exit_code == ExitCode.WRONG_USAGE


def test_of_changes_at_the_same_time_none_is_lost(folder: Path):
    """Somebody revokes a token while others are issued: all of it is in the file."""
    file = folder / "principals.json"
    tokens("issue", "gpu", "--role", "worker")

    def change(place: int) -> None:
        with changing(file) as known:
            known[f"screen-{place}"] = issue(Role.VIEWER)[1]
            known.pop("gpu", None)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(change, range(16)))
    assert read_entries(file).keys() == {f"screen-{place}" for place in range(16)}


@pytest.mark.parametrize("command", [["issue", "gpu", "--role", "worker"], ["revoke", "gpu"], ["list"]])
def test_a_file_that_is_not_there_is_said_to_be_missing(folder: Path, command: list[str]):
    """Its folder, where that is missing too."""
    settings = folder / "coordinator.toml"
    settings.write_text(settings.read_text().replace("principals.json", "elsewhere/principals.json"))
    told = tokens(*command)
    assert told.exit_code == ExitCode.WRONG_USAGE
    assert "nor its folder" in " ".join(told.output.split())
