"""`fedcollm agents` as an operator uses it, against a real coordinator on a loopback port."""

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bench.federation import FEDERATION, ManualClock, key_of
from services.coordinator.cli.app import app
from services.coordinator.context import Context
from shared.cli.console import ExitCode
from shared.key_file import keep_key
from shared.protocol.identity import IdentityKey, fingerprint
from shared.protocol.membership import Invitation, MemberState, check_code, require_member, token_digest
from tests.support.federations import coordinator
from tests.support.members import certificate, enrolment, member
from tests.support.served import Operated, operated
from tests.support.tls import certificates

KEY = IdentityKey.generate()


@pytest.fixture
def context(tmp_path: Path, clock: ManualClock) -> Iterator[Context]:
    """A coordinator that knows no agent yet."""
    with coordinator(tmp_path / "coordinator", clock, agents=()) as opened:
        yield opened


@pytest.fixture
def operator(context: Context, tmp_path: Path) -> Iterator[Operated]:
    """A coordinator that is served, and how to reach it."""
    with operated(context, tmp_path) as opened:
        yield opened


def agents(operator: Operated, *arguments: str, answers: str | None = None) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(app, ["agents", *arguments, *operator.options], input=answers)


def invite(operator: Operated, folder: Path, *names: str) -> list[Invitation]:
    """Invite agents and return what they are given."""
    told = agents(operator, "invite", *names, "--folder", str(folder))
    assert told.exit_code == ExitCode.DONE, told.output
    assert "only agents on this machine reach" in told.stderr
    return [Invitation.model_validate_json((folder / f"{name}.invitation").read_bytes()) for name in names]


def enrol(operator: Operated, folder: Path, name: str = "dora") -> str:
    """Invite an agent, enrol it, and return its check code."""
    (invitation,) = invite(operator, folder, name)
    operator.context.membership.enrol(enrolment(invitation.token, KEY, name))
    return check_code(federation=FEDERATION, operator_key=key_of("operator").public, name=name, key=KEY.public)


def test_an_invitation_holds_all_that_an_agent_believes(operator: Operated, tmp_path: Path):
    """Where the coordinator is, of which federation, who operates it, and a token that it alone has."""
    dora, emil = invite(operator, tmp_path / "sent", "dora", "emil")
    assert (dora.name, emil.name) == ("dora", "emil")
    assert dora.token != emil.token
    assert (dora.federation, dora.operator_key) == (FEDERATION, key_of("operator").public)
    assert dora.coordinator_url == f"http://127.0.0.1:{operator.port}"
    file = tmp_path / "sent" / "dora.invitation"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with operator.context.store.read() as tx:
        assert tx.members.get("dora").invitation == token_digest(dora.token)


def test_an_invitation_names_the_address_and_the_ca_of_the_agents(operator: Operated, tmp_path: Path):
    """An operator beside the coordinator reaches it where agents do not; a private CA goes along."""
    ca_file = certificates(tmp_path).ca_file
    settings = tmp_path / "operator.toml"
    url = "https://fed.example:8440"
    settings.write_text(f'{settings.read_text()}ca_file = "{ca_file}"\nagents_url = "{url}"\n')
    told = agents(operator, "invite", "dora", "--folder", str(tmp_path))
    assert told.exit_code == ExitCode.DONE, told.output
    assert "only agents on this machine" not in told.output
    invitation = Invitation.model_validate_json((tmp_path / "dora.invitation").read_bytes())
    assert (invitation.coordinator_url, invitation.ca_certificate) == (url, ca_file.read_text())


def test_an_operator_approves_what_was_compared(operator: Operated, tmp_path: Path):
    """Asked with the check code; a no, and another code, leave the agent pending."""
    found = enrol(operator, tmp_path)
    other = agents(operator, "approve", "dora", "--code", "0123-4567-89ab-cdef")
    assert (other.exit_code, "somebody else may have used the invitation" in other.stderr) == (ExitCode.FAILED, True)
    refused = agents(operator, "approve", "dora", answers="n\n")
    assert (refused.exit_code, found in refused.stderr) == (ExitCode.FAILED, True)
    assert member(operator.context, "dora").state is MemberState.PENDING

    told = agents(operator, "approve", "dora", answers="y\n")
    assert told.exit_code == ExitCode.DONE, told.output
    assert f"dora is a member with the key {fingerprint(KEY.public)}, until 20" in told.stdout
    with operator.context.store.read() as tx:
        kept = tx.members.get("dora")
    assert kept.key is not None
    assert kept.not_after is not None
    signed = certificate("dora", kept.key, not_after=kept.not_after)
    assert kept.signature == signed.signature
    require_member(signed, operator_key=key_of("operator").public, federation=FEDERATION, now=0)


def test_a_script_says_what_was_compared(operator: Operated, tmp_path: Path):
    """By the check code or by --yes, for as many days as it says; with --json nobody is asked."""
    found = enrol(operator, tmp_path)
    silent = agents(operator, "approve", "dora", "--json")
    assert (silent.exit_code, json.loads(silent.stderr)["code"]) == (ExitCode.WRONG_USAGE, "configuration_invalid")
    several = agents(operator, "approve", "dora", "emil", "--code", found)
    assert (several.exit_code, "of one agent" in several.stderr) == (ExitCode.WRONG_USAGE, True)
    for arguments in (("--code", found.upper()), ("--yes", "--days", "2")):
        told = agents(operator, "approve", "dora", *arguments, "--json")
        assert json.loads(told.stdout)["agents"][0]["state"] == "approved", told.output
    ends = member(operator.context, "dora").not_after
    assert ends is not None
    assert ends < 2**31


def test_who_is_not_there_is_not_approved(operator: Operated, tmp_path: Path):
    """Nobody by this name, or nobody yet: what to do is told."""
    unknown = agents(operator, "approve", "dora", "--yes")
    assert "`fedcollm agents invite dora` does it" in unknown.stderr
    invite(operator, tmp_path, "dora")
    early = agents(operator, "approve", "dora", "--yes")
    assert "has not enrolled yet" in early.stderr


def test_agents_are_listed_and_revoked(operator: Operated, tmp_path: Path):
    """Each with its state and its key; a revoked one is not found among members."""
    enrol(operator, tmp_path)
    invite(operator, tmp_path, "emil")
    listed = agents(operator, "list").stdout
    assert all(part in listed for part in ("dora", "pending", fingerprint(KEY.public), "emil", "invited"))
    operator.context.presence.agent_asks("dora", version=None, declines={})
    operator.context.presence.agent_runs_twice("dora")
    operator.context.presence.agent_leaves("dora")
    listed = " ".join(agents(operator, "list").stdout.split())
    assert "has stopped; a second one was refused 2023-11-14" in listed
    assert "dora is revoked" in agents(operator, "revoke", "dora", "--reason", "it left").stdout
    assert member(operator.context, "dora").state is MemberState.REVOKED
    assert agents(operator, "revoke", "eve", "--reason", "x").exit_code == ExitCode.REFUSED


def test_a_name_that_is_none_is_told(operator: Operated):
    """Before anything is asked."""
    told = agents(operator, "invite", "a b")
    assert (told.exit_code, "is no agent's name" in told.stderr) == (ExitCode.WRONG_USAGE, True)


def test_whoever_has_no_key_of_the_operators_invites_nobody(operator: Operated, tmp_path: Path):
    """A token alone is not enough."""
    settings = tmp_path / "operator.toml"
    settings.write_text("".join(settings.read_text().splitlines(keepends=True)[:2]))
    told = agents(operator, "invite", "dora")
    assert (told.exit_code, "set federation and key_file" in told.stderr) == (ExitCode.WRONG_USAGE, True)


def test_another_operators_key_invites_nobody(operator: Operated, tmp_path: Path):
    """The coordinator knows whose federation it serves."""
    (tmp_path / "operator.key").unlink()
    keep_key(tmp_path / "operator.key", IdentityKey.generate())
    told = agents(operator, "invite", "dora", "--folder", str(tmp_path))
    assert (told.exit_code, "federation_mismatch" in told.stderr) == (ExitCode.REFUSED, True)
    assert not (tmp_path / "dora.invitation").exists()
