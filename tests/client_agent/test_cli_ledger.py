"""`fedcollm-agent ledger`: what has left this machine."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from services.client_agent.cli.app import app
from services.client_agent.egress_ledger import EgressLedger, ledger_folder, months
from shared.cli.console import ExitCode
from shared.egress import NO_BODY, Egress, TrafficCount
from shared.protocol.digests import digest_of
from tests.support.members import IDENTITY

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
QUESTION = Egress("GET", "/v1/wanted?wait_seconds=25.0", 0, NO_BODY)
UPDATE = Egress("PUT", "/v1/runs/demo/rounds/3/update", 6_000_000, digest_of(b"an update"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An agent's own folder, from which something has left."""
    identity = "".join(f"{name} = {json.dumps(value)}\n" for name, value in IDENTITY.items())
    (tmp_path / "agent.toml").write_text(
        f'{identity}coordinator_url = "http://127.0.0.1:1"\nstate_dir = "state"\nslm = "slm"\n'
        '[data]\npath = "data.jsonl"\n'
    )
    for minute, request in enumerate((QUESTION, QUESTION, UPDATE, QUESTION)):
        time = NOON + timedelta(minutes=minute)
        ledger = EgressLedger(tmp_path / "state", TrafficCount(), lambda time=time: time)
        ledger.record(request, to="https://coordinator:443", head_bytes=400)
    return tmp_path


def ledger(folder: Path, *options: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(app, ["ledger", "--config", str(folder / "agent.toml"), *options])


def test_people_read_a_summary_and_the_newest_requests(folder: Path):
    """Since when, how much, to whom, by kind and rule; then line by line, in words."""
    shown = ledger(folder)
    assert shown.exit_code == ExitCode.DONE, shown.output
    assert "2026-11-25 12:00:00 to 2026-11-25 12:03:00 UTC" in shown.stdout
    assert "6.00 MB in 4 requests" in shown.stdout
    assert "https://coordinator:443 (4 requests)" in shown.stdout
    assert "policy.allow_plaintext" in shown.stdout
    summary, rows = shown.stdout.split("when (UTC)")
    assert summary.count("asks whether something is wanted") == 1
    assert [line.split()[:3] for line in rows.splitlines()[2:]] == [
        ["2026-11-25", "12:00:00", "2"],
        ["2026-11-25", "12:02:00", "1"],
        ["2026-11-25", "12:03:00", "1"],
    ]
    assert "12:00:00" not in ledger(folder, "--last", "2").stdout.split("when (UTC)")[1]


def test_programs_read_every_request(folder: Path):
    """One JSON document: all entries with their words, and what they come to."""
    document = json.loads(ledger(folder, "--json").stdout)
    assert [each["entry"]["at"] for each in document["entries"]] == [
        f"2026-11-25T12:0{minute}:00Z" for minute in range(4)
    ]
    assert {each["times"] for each in document["entries"]} == {1}
    assert document["entries"][2]["entry"]["digest"] == UPDATE.digest
    assert document["summary"]["requests"] == 4


def test_requests_are_chosen_by_time_and_run(folder: Path):
    """Also for the page."""
    assert json.loads(ledger(folder, "--json", "--run", "demo").stdout)["summary"]["requests"] == 1
    since = json.loads(ledger(folder, "--json", "--since", "2026-11-25T12:02:00").stdout)
    assert since["summary"]["requests"] == 2
    assert "only      requests of run demo; 3 others are in the ledger" in ledger(folder, "--run", "demo").stdout
    assert ledger(folder, "--since", "yesterday").exit_code == ExitCode.WRONG_USAGE
    assert ledger(folder, "--run", "demo", "--html", str(folder / "page.html")).exit_code == ExitCode.DONE
    page = (folder / "page.html").read_text()
    assert "Only requests of run demo; 3 others are in the ledger" in page
    assert 'title="6,000,000 bytes"' in page
    assert "/v1/wanted" not in page


def test_a_page_is_written_and_not_over_another(folder: Path):
    """A whole page with every request; with --force it may be written again."""
    page = folder / "page.html"
    written = ledger(folder, "--html", str(page), "--json")
    assert json.loads(written.stdout)["summary"]["requests"] == 4
    assert page.read_text().endswith("</html>\n")
    assert ledger(folder, "--html", str(page)).exit_code == ExitCode.WRONG_USAGE
    assert ledger(folder, "--html", str(page), "--force").exit_code == ExitCode.DONE


def test_a_ledger_that_is_not_what_was_written_fails_the_command(folder: Path):
    """The place is told, and the rest is shown all the same."""
    (file,) = months(ledger_folder(folder / "state"))
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([lines[0], *lines[2:]]))
    shown = ledger(folder)
    assert shown.exit_code == ExitCode.FAILED
    assert shown.stdout.startswith("BROKEN    2026-11.jsonl, line 2 does not follow the line before it")
    assert "in 3 requests" in shown.stdout
    assert ledger(folder, "--json").exit_code == ExitCode.FAILED
    assert ledger(folder, "--html", str(folder / "page.html")).exit_code == ExitCode.FAILED


def test_an_agent_that_was_never_started_has_no_ledger(folder: Path, tmp_path: Path):
    """Its folder is not made by looking; one without a ledger is told, for somebody may have taken it away."""
    (tmp_path / "agent.toml").write_text((folder / "agent.toml").read_text().replace('"state"', '"another"'))
    assert "there is no 'another'" in ledger(tmp_path).stderr
    assert not (tmp_path / "another").exists()
    (tmp_path / "another").mkdir()
    shown = ledger(tmp_path)
    assert (shown.exit_code, "there is no" in shown.stderr, "ledger" in shown.stderr) == (2, True, True)


def test_a_selection_of_nothing_does_not_say_that_nothing_has_left(folder: Path):
    """A run whose name has a slip, a time to come: what else there is is said, on the screen and on the page."""
    assert ledger(folder, "--run", "dmeo").stdout == "No request of run dmeo is in the ledger; 4 others are\n"
    said = "No request of run demo since 2026-12-01 00:00:00 UTC is in the ledger"
    assert said in ledger(folder, "--run", "demo", "--since", "2026-12-01").stdout
    page = folder / "page.html"
    assert ledger(folder, "--since", "2026-12-01", "--html", str(page)).exit_code == ExitCode.DONE
    assert "No request since 2026-12-01 00:00:00 UTC is in the ledger" in page.read_text()
    assert ledger(folder, "--run", "demo", "--html", str(page), "--force").exit_code == ExitCode.DONE
    assert "Only requests of run demo; 3 others are in the ledger" in page.read_text()
