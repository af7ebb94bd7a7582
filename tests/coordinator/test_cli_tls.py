"""`fedcollm tls`, as an operator uses it."""

import json
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socket import gethostname

import pytest
from typer.testing import CliRunner, Result

from services.coordinator.certificates import (
    AUTHORITY_LASTS,
    hosts_of,
    new_authority,
    read_authority,
    read_certificate,
    serving_tls,
    sha256_of,
)
from services.coordinator.cli.app import app
from services.coordinator.cli.tls import FILES
from shared.cli.console import ExitCode


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The present folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tls(*arguments: str, answers: str | None = None) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(app, ["tls", *arguments], input=answers)


def hosts(folder: Path) -> set[str]:
    """The hosts of the certificate that is there, but for this machine."""
    return set(hosts_of(read_certificate(folder / "server.pem"))) - {"localhost", "127.0.0.1", "::1"}


def test_a_first_deployment_needs_one_command(folder: Path):
    """Four files, keys for their owner alone, and what goes where; all of it can be served with."""
    told = tls("init", "--host", "coordinator.example", "--host", "10.1.2.3")
    assert told.exit_code == ExitCode.DONE, told.output
    made = folder / "tls"
    assert {file.name: file.stat().st_mode & 0o777 for file in made.iterdir()} == {
        "ca.pem": 0o644,
        "ca.key": 0o600,
        "server.pem": 0o644,
        "server.key": 0o600,
    }
    assert hosts(made) == {"coordinator.example", "10.1.2.3"}
    serving_tls(made / "server.pem", made / "server.key")
    assert sha256_of(read_certificate(made / "ca.pem")) in told.output
    shown = tomllib.loads("".join(line for line in told.output.splitlines(keepends=True) if " = " in line))
    assert shown == {
        "host": "0.0.0.0",  # noqa: S104 - with TLS
        "tls_certificate_file": "tls/server.pem",
        "tls_key_file": "tls/server.key",
        "ca_file": "tls/ca.pem",
    }
    assert "keep tls/ca.key off" in told.output


def test_hosts_that_no_option_names_are_asked_for(folder: Path):
    """This machine's name is proposed, and what is no host asked again."""
    told = tls("init", answers="https://here\n,\nhere.test, 10.0.0.1\n")
    assert told.exit_code == ExitCode.DONE, told.output
    assert "is no host" in told.output
    assert "name one host or more" in told.output
    assert hosts(folder / "tls") == {"here.test", "10.0.0.1"}
    assert tls("init", "other", "--yes").exit_code == ExitCode.DONE
    assert hosts(folder / "other") == {gethostname().lower()}


def test_a_ca_is_replaced_only_by_force(folder: Path):
    """Whoever trusts the one that is there would trust nobody."""
    assert tls("init", "--yes").exit_code == ExitCode.DONE
    before = (folder / "tls" / "ca.pem").read_bytes()
    told = tls("init", "--json")
    assert json.loads(told.stderr)["code"] == "output_exists"
    assert (folder / "tls" / "ca.pem").read_bytes() == before
    told = tls("init", "--json", "--force")
    assert set(json.loads(told.stdout)["files"]) == {f"tls/{name}" for name in FILES}
    assert (folder / "tls" / "ca.pem").read_bytes() != before


def test_a_certificate_that_runs_out_is_followed_by_another(folder: Path):
    """Of the same CA, which everybody trusts already, and for the same hosts or for those that are named now."""
    assert tls("init", "--host", "a.test").exit_code == ExitCode.DONE
    made = folder / "tls"
    before = {name: (made / name).read_bytes() for name in FILES}
    told = tls("issue")
    assert told.exit_code == ExitCode.DONE, told.output
    assert "start the coordinator again" in told.output
    assert {name for name in FILES if (made / name).read_bytes() != before[name]} == set(FILES[2:])
    assert (made / "server.key").stat().st_mode & 0o777 == 0o600
    serving_tls(made / "server.pem", made / "server.key")
    assert hosts(made) == {"a.test"}
    read_certificate(made / "server.pem").verify_directly_issued_by(read_certificate(made / "ca.pem"))
    assert tls("issue", "--host", "b.test,c.test").exit_code == ExitCode.DONE
    assert hosts(made) == {"b.test", "c.test"}
    told = tls("issue", "--host", "b.test/")
    assert told.exit_code == ExitCode.WRONG_USAGE
    assert hosts(made) == {"b.test", "c.test"}


def test_a_ca_that_runs_out_is_told_in_time(folder: Path):
    """When the last certificate is issued that it can outlive."""
    assert tls("init", "--yes").exit_code == ExitCode.DONE
    old = new_authority(datetime.now(UTC) + timedelta(days=90) - AUTHORITY_LASTS)
    (folder / "tls" / "ca.pem").write_text(old.certificate_pem)
    (folder / "tls" / "ca.key").write_text(old.key_pem)
    told = tls("issue")
    assert told.exit_code == ExitCode.DONE, told.output
    assert f"the CA itself is over on {old.certificate.not_valid_after_utc:%Y-%m-%d}" in told.stderr


def test_without_a_ca_there_is_nothing_to_issue_with():
    """With what is missing."""
    told = tls("issue")
    assert told.exit_code == ExitCode.WRONG_USAGE
    assert "there is no" in told.stderr
    assert "ca.pem" in told.stderr


def test_the_cas_key_is_needed_and_told(folder: Path):
    """It may be kept elsewhere, as `init` advises."""
    assert tls("init", "--yes").exit_code == ExitCode.DONE
    (folder / "tls" / "ca.key").rename(folder / "ca.key")
    told = tls("issue")
    assert told.exit_code == ExitCode.WRONG_USAGE
    assert "the CA's key: there is no 'ca.key'" in told.stderr
    assert read_authority(folder / "tls" / "ca.pem", folder / "ca.key")
