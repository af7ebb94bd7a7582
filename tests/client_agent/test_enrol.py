"""`fedcollm-agent enrol`: an agent's key, brought with the operator's invitation."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bench.federation import FEDERATION, ManualClock, key_of
from services.client_agent.cli.app import app
from services.coordinator.app import create_app
from services.coordinator.context import Context
from shared.cli.console import ExitCode
from shared.key_file import keep_key, read_key
from shared.protocol.identity import IdentityKey
from shared.protocol.membership import MemberState, check_code
from tests.support.federations import coordinator
from tests.support.members import IDENTITY, certificate, invitation_of, member
from tests.support.served import served


@pytest.fixture
def context(tmp_path: Path, clock: ManualClock) -> Iterator[Context]:
    """A coordinator on an empty folder."""
    with coordinator(tmp_path / "coordinator", clock) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path, context: Context, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An agent whose settings somebody wrote by hand, and an invitation."""
    monkeypatch.chdir(tmp_path)
    with served(create_app(context)) as port:
        url = f"http://127.0.0.1:{port}"
        (tmp_path / "dora.invitation").write_text(invitation_of(context, coordinator_url=url).model_dump_json())
        write(tmp_path, coordinator_url=url)
        yield tmp_path


def write(folder: Path, **changes: str) -> None:
    """Write an agent's settings."""
    settings = {"coordinator_url": "http://127.0.0.1:1", "state_dir": "state", "slm": "slm", "data.path": "d.jsonl"}
    lines = [
        f"{name} = {json.dumps(value)}" for name, value in (settings | IDENTITY | {"name": "dora"} | changes).items()
    ]
    (folder / "agent.toml").write_text("\n".join(lines))


def enrol(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(app, ["enrol", "--invitation", "dora.invitation", *arguments])


def test_an_agent_makes_its_key_and_brings_it(folder: Path, context: Context):
    """The key stays on this machine; the check code is for the operator, and the ledger has what left."""
    told = enrol()
    assert told.exit_code == ExitCode.DONE, told.output
    key = read_key(folder / "agent.key").public
    assert (member(context, "dora").key, member(context, "dora").state) == (key, MemberState.PENDING)
    code = check_code(name="dora", key=key, federation=FEDERATION, operator_key=key_of("operator").public)
    assert f"its check code is {code}" in told.stdout
    assert "read it to the operator" in told.stdout
    (ledger,) = (folder / "state" / "ledger").glob("*.jsonl")
    assert [json.loads(line)["kind"] for line in ledger.read_text().splitlines()] == ["enrolment"]


@pytest.mark.usefixtures("folder")
def test_the_same_again_says_how_far_it_is(context: Context):
    """Also once the operator has approved it."""
    key = json.loads(enrol("--json").stdout)["key"]
    context.membership.approve("dora", certificate("dora", key), actor="operator")
    assert "the operator has approved it" in enrol().stdout


def test_another_key_is_told_to_ask_the_operator(folder: Path, context: Context):
    """A key that was lost, or an invitation that somebody else has used."""
    before = json.loads(enrol("--json").stdout)["key"]
    (folder / "agent.key").unlink()
    keep_key(folder / "agent.key", IdentityKey.generate())
    told = enrol()
    assert (told.exit_code, "was used already" in told.stderr) == (ExitCode.REFUSED, True)
    assert member(context, "dora").key == before


@pytest.mark.parametrize("setting", ["name", "federation", "operator_key"])
def test_an_invitation_that_is_not_this_agents_is_not_used(setting: str, folder: Path, context: Context):
    """What an agent believes changes by nobody's file alone."""
    write(folder, **{setting: IdentityKey.generate().public if setting == "operator_key" else "another"})
    told = enrol()
    assert (told.exit_code, f"{setting} is not what the invitation says" in told.stderr) == (
        ExitCode.WRONG_USAGE,
        True,
    )
    assert member(context, "dora").state is MemberState.INVITED
    assert not (folder / "agent.key").exists()


def test_what_is_no_invitation_is_told_and_not_shown(folder: Path):
    """It may be somebody's secret."""
    (folder / "dora.invitation").write_text('{"token": "a-secret"}')
    told = enrol()
    assert (told.exit_code, "is no invitation" in told.stderr) == (ExitCode.WRONG_USAGE, True)
    assert "a-secret" not in told.stderr
