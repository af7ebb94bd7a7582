"""`fedcollm audit` as an operator uses it, against a real coordinator on a loopback port."""

import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bench.federation import FEDERATION
from services.coordinator.audit_log import coordinator_key
from services.coordinator.cli.app import app
from services.coordinator.cli.audit_logs import MOST_ENTRIES_A_PAGE
from services.coordinator.context import Context
from shared.cli.console import ExitCode
from shared.protocol.audit import SignedHead, sign_head
from shared.protocol.digests import digest_of
from shared.protocol.identity import IdentityKey, fingerprint
from tests.support.federations import RUN, begin, terms_of
from tests.support.served import Operated, operated


@pytest.fixture
def operator(context: Context, tmp_path: Path) -> Iterator[Operated]:
    """A coordinator with a run in its audit log."""
    begin(context)
    with operated(context, tmp_path) as opened:
        yield opened


def audit(operator: Operated, *arguments: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(app, ["audit", *arguments, *operator.options])


def last(operator: Operated) -> int:
    """Return the number of the newest entry."""
    return operator.context.audit.head().head.seq


def edit(folder: Path, statement: str) -> None:
    """Change the coordinator's database behind its back."""
    database = sqlite3.connect(folder / "coordinator" / "coordinator.db")
    with database:
        assert database.execute(statement).rowcount > 0
    database.close()


def test_the_newest_entries_are_listed(operator: Operated) -> None:
    """Who did what to what; as JSON the protocol's page."""
    listed = audit(operator, "list")
    assert (listed.exit_code, "run.draft" in listed.stdout, "operator" in listed.stdout) == (0, True, True)
    page = json.loads(audit(operator, "list", "--limit", "2", "--json").stdout)
    assert [entry["seq"] for entry in page["entries"]] == [last(operator) - 1, last(operator)]


def test_a_log_is_verified_from_where_it_was_verified_last(operator: Operated, tmp_path: Path) -> None:
    """The first time the coordinator's key is remembered, and each time the head; more entries are no harm."""
    first = audit(operator, "verify")
    assert first.exit_code == 0, first.output
    assert f"the audit log of {FEDERATION} is right, from its first entry to entry {last(operator)}" in first.stdout
    assert fingerprint(operator.context.audit.head().key) in first.stdout
    known = last(operator)
    operator.context.lifecycle.pause(RUN, actor="operator")
    assert f"goes on from entry {known}, which was verified last" in audit(operator, "verify").stdout
    found = json.loads(audit(operator, "verify", "--json").stdout)
    assert found["head"] == found["before"] == json.loads((tmp_path / "audit-head.json").read_text())


def test_a_long_log_is_read_in_pages(operator: Operated) -> None:
    """No answer has more entries than the protocol says, and none is left out."""
    for number in range(MOST_ENTRIES_A_PAGE):
        operator.context.lifecycle.create(f"run-{number}", terms_of(), actor="operator")
    assert last(operator) > MOST_ENTRIES_A_PAGE
    assert audit(operator, "verify").exit_code == 0
    limit = str(MOST_ENTRIES_A_PAGE + 1)
    page = json.loads(audit(operator, "list", "--limit", limit, "--json").stdout)
    assert len(page["entries"]) == MOST_ENTRIES_A_PAGE + 1


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE audit SET actor = 'eve' WHERE seq = 2", "entry 2 of the audit log was changed"),
        ("UPDATE audit SET detail = 'no JSON' WHERE seq = 3", "entry 3 of the audit log was changed"),
        ("DELETE FROM audit WHERE seq = 2", "where entry 2 of the audit log should be is entry 3"),
        ("DELETE FROM audit WHERE seq > 2", "the audit log ends at entry 2"),
    ],
)
def test_what_was_done_to_the_database_is_found(statement: str, said: str, operator: Operated, tmp_path: Path) -> None:
    """The exit code is 1, and the first wrong entry is named; the head that was right stays remembered."""
    assert audit(operator, "verify").exit_code == 0
    known = (tmp_path / "audit-head.json").read_text()
    edit(tmp_path, statement)
    found = audit(operator, "verify")
    assert (found.exit_code, "audit_broken" in found.stderr, said in found.stderr) == (ExitCode.FAILED, True, True)
    assert (tmp_path / "audit-head.json").read_text() == known


def test_a_log_that_was_begun_anew_is_found(operator: Operated, tmp_path: Path) -> None:
    """Another key signs it; who knows that this is right names another file for its head."""
    assert audit(operator, "verify").exit_code == 0
    head = operator.context.audit.head()
    other = tmp_path / "other"
    other.mkdir()
    (tmp_path / "audit-head.json").write_text(sign_head(IdentityKey.generate(), head.head).model_dump_json())
    found = audit(operator, "verify")
    assert (found.exit_code, "ask the operator" in found.stderr) == (ExitCode.FAILED, True)
    assert audit(operator, "verify", "--head", str(other / "head.json")).exit_code == 0
    assert SignedHead.model_validate_json((other / "head.json").read_text()) == head


def test_a_log_is_verified_with_every_head_that_an_agent_was_told(operator: Operated, tmp_path: Path) -> None:
    """One that was rewritten and has grown since is found by the heads from before, and the file stays as it was."""
    heads = [operator.context.audit.head()]
    for change in (operator.context.lifecycle.pause, operator.context.lifecycle.start):
        change(RUN, actor="operator")
        heads.append(operator.context.audit.head())
    file = tmp_path / "audit-heads.jsonl"

    def verified(*told: SignedHead) -> Result:
        file.write_text("".join(f"{head.model_dump_json()}\n" for head in told))
        before = file.read_bytes()
        operator.context.lifecycle.pause(RUN, actor="operator")
        operator.context.lifecycle.start(RUN, actor="operator")
        found = audit(operator, "verify", "--head", str(file))
        assert file.read_bytes() == before
        return found

    good = verified(*heads, heads[0])
    assert (good.exit_code, f"all 4 heads in {file} are of it" in good.stdout) == (0, True)

    key = coordinator_key(tmp_path / "coordinator")
    other = heads[1].head.model_copy(update={"hash": digest_of(b"what the entry was before")})
    rewritten = verified(heads[0], sign_head(key, other), heads[2])
    said = f"entry {other.seq} of the audit log is another one than was signed"
    assert (rewritten.exit_code, said in rewritten.stderr) == (ExitCode.FAILED, True)
    forged = verified(heads[0], heads[1].model_copy(update={"head": other}), heads[2])
    assert (forged.exit_code, "signature_invalid" in forged.stderr) == (ExitCode.FAILED, True)
    cut = verified(heads[0], sign_head(key, other.model_copy(update={"seq": 10_000})))
    assert (cut.exit_code, "and before it had 10000" in cut.stderr) == (ExitCode.FAILED, True)


def test_an_exported_log_is_verified_without_a_coordinator(operator: Operated, tmp_path: Path) -> None:
    """By whoever has the file; what was done to the file is found too."""
    copy = tmp_path / "audit.jsonl"
    written = audit(operator, "export", str(copy))
    assert (written.exit_code, f"({last(operator)} entries)" in written.stdout) == (0, True)
    assert audit(operator, "export", str(copy)).exit_code == ExitCode.WRONG_USAGE
    assert audit(operator, "export", str(copy), "--force").exit_code == 0
    away = tmp_path / "auditor"
    away.mkdir()
    copy = Path(shutil.move(copy, away))

    def offline(*lines: str) -> Result:
        copy.write_text("".join(lines))
        where = ("--file", str(copy), "--head", str(away / "head.json"))
        return CliRunner().invoke(app, ["audit", "verify", *where])

    lines = copy.read_text().splitlines(keepends=True)
    assert offline(*lines).exit_code == 0
    for damaged, said in (
        (lines[:-1], f"entry {last(operator)} of the audit log is missing"),
        ([*lines[:2], *lines[3:]], "where entry 2"),
        ([*lines[:2], "{}\n", *lines[3:]], "entry 2 of the audit log was changed"),
        ([*lines[:2], lines[2].replace("operator", "eve"), *lines[3:]], "entry 2 of the audit log was changed"),
    ):
        found = offline(*damaged)
        assert (found.exit_code, said in found.stderr) == (ExitCode.FAILED, True), found.stderr


def test_what_is_no_log_and_no_head_is_told_as_that(operator: Operated, tmp_path: Path) -> None:
    """With the file that is meant, and exit code 2."""
    (tmp_path / "something").write_text("else\n")
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    for option, name, said in (
        ("--file", "something", "does not begin with the head of an audit log"),
        ("--file", "missing", "there is no 'missing'"),
        ("--head", "something", "holds no head of an audit log"),
        ("--head", "empty", "holds no head of an audit log"),
        ("--head", "folder", "is a folder"),
    ):
        found = audit(operator, "verify", option, str(tmp_path / name))
        assert (found.exit_code, said in found.stderr) == (ExitCode.WRONG_USAGE, True), found.stderr


def test_a_worker_may_not_read_the_log(operator: Operated, tmp_path: Path) -> None:
    """It names organisations; a refusal is told as one, and as nothing about the log."""
    (tmp_path / "token").write_text("token-of-worker-in-memory")
    found = audit(operator, "list")
    assert (found.exit_code, "not_allowed" in found.stderr) == (ExitCode.REFUSED, True)
