"""The hold-out's report: its numbers, its words, its page and its command."""

import json
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from services.client_agent.cli.app import app
from services.client_agent.holdout_folder import AGGREGATE, BASE, PUBLISHED, STANDALONE, Model
from services.client_agent.holdout_report import RunReport, reports, rows, verdict
from services.client_agent.pages import report_html
from services.client_agent.status import Status
from services.client_agent.status_page import create_status_page
from services.client_agent.trainer import Measured
from shared.cli.console import ExitCode
from shared.protocol.terms import TaskTerms
from tests.support.agents import ADA
from tests.support.holdouts import HELPED, keep, manifest_of, measured, measuring
from tests.support.members import IDENTITY

ALONE, TOGETHER = Model(STANDALONE, 1), Model(PUBLISHED, 1)


def told(folder: Path, found: dict[Model, Measured], **changes: object) -> RunReport:
    """Return the report of these measurements."""
    keep(folder, manifest_of(**changes), found)
    (report,) = reports(folder).runs
    return report


def test_the_newest_round_that_is_whole_is_shown(tmp_path: Path):
    """One whose standalone training lags behind is there, and is not compared."""
    lagging = {model: one for model, one in HELPED.items() if model != Model(STANDALONE, 3)}
    report = told(tmp_path, lagging)
    assert [(one.round, one.gain is None) for one in report.rounds] == [(1, False), (2, False), (3, True)]
    assert report.shown.round == 2
    only = told(tmp_path / "other", {BASE: HELPED[BASE], TOGETHER: HELPED[TOGETHER]})
    assert only.shown.round == 1
    assert [row.why for row in rows(only) if row.result is None] == ["0 of 1 trainings are done", "not measured yet"]
    assert verdict(only) == "There is nothing to compare yet."


def test_a_gain_is_over_the_same_examples(tmp_path: Path):
    """Ten right in both, twenty in one alone: what both say alike makes the interval no wider."""
    both, one, other = [1] * 10 + [0] * 90, [1] * 30 + [0] * 70, [1] * 10 + [0] * 90
    alone = measured(10).model_copy(update={"right": tuple(other), "losses": tuple(float(x) for x in both)})
    together = alone.model_copy(update={"right": tuple(one), "losses": tuple(x + 0.5 for x in alone.losses)})
    gain = told(tmp_path, {BASE: alone, ALONE: alone, TOGETHER: together}).shown.gain
    assert gain.accuracy == pytest.approx(0.2)
    assert gain.accuracy_interval == pytest.approx((0.1144, 0.2778), abs=1e-4)
    assert gain.loss == pytest.approx(0.25)
    assert gain.loss_interval == pytest.approx((0.25, 0.25))


def test_completions_are_counted_by_token(tmp_path: Path):
    """Shares of tokens, with the interval of a ratio."""
    task = TaskTerms(kind="completion")
    found = {model: measured(right, completions=True, seed=1) for model, right in ((BASE, 20), (ALONE, 40))}
    report = told(tmp_path, {**found, TOGETHER: measured(60, completions=True, seed=2)}, task=task)
    assert report.zero_shot.accuracy == pytest.approx(0.1)
    assert report.shown.gain.accuracy == pytest.approx(0.1)
    assert report.zero_shot.accuracy_interval[0] < 0.1 < report.zero_shot.accuracy_interval[1]
    assert "tokens are right than with own data only" in verdict(report)


@pytest.mark.parametrize(
    ("alone", "together", "of", "said"),
    [
        (40, 60, 100, "20.0 percentage points more answers are right than with own data only (+"),
        (60, 40, 100, "20.0 percentage points fewer answers are right than with own data only (-"),
        (50, 51, 100, "against own data only: no difference that this hold-out could show (-"),
    ],
)
def test_a_verdict_says_no_more_than_the_interval(alone: int, together: int, of: int, said: str, tmp_path: Path):
    """What is not told apart from chance is no gain."""
    found = {
        BASE: measured(25, of=of),
        ALONE: measured(alone, of=of, seed=5),
        TOGETHER: measured(together, of=of, seed=6),
    }
    assert said in verdict(told(tmp_path, found))


def test_one_completion_says_too_little(tmp_path: Path):
    """There is a number, and no interval."""
    one = {model: measured(1, of=1, completions=True) for model in (BASE, ALONE, TOGETHER)}
    report = told(tmp_path, one, task=TaskTerms(kind="completion"))
    assert "too few examples to tell (no interval)" in verdict(report)
    assert "50.0 %" in report_html(reports(tmp_path), ADA)


def test_what_a_run_does_not_share_is_said(tmp_path: Path):
    """In the place of the aggregate."""
    shared = {model: one for model, one in HELPED.items() if model.kind != AGGREGATE}
    (fedavg,) = (row for row in rows(told(tmp_path, shared, share_aggregate=False)) if row.method == "FedAvg")
    assert (fedavg.result, fedavg.why) == (None, "this run does not share it")


def test_the_page_has_every_run(tmp_path: Path):
    """The newest first, each with its verdict, its table or its trouble; and what to do where there is none."""
    measuring(tmp_path)
    page = report_html(reports(tmp_path), ADA)
    assert page.index("triage-2") < page.index("triage-1") < page.index("letters-1")
    for said in (
        "After round 3",
        "this run does not share it",
        "data_unreadable: holdout.jsonl is not there",
        "Round by",
    ):
        assert said in page
    assert "[holdout]" in report_html(reports(tmp_path / "nowhere"), ADA)


@pytest.mark.anyio
async def test_the_page_is_served_with_its_json(tmp_path: Path):
    """Both from the state folder, as they are at that moment."""
    transport = httpx.ASGITransport(app=create_status_page(Status(tmp_path), ADA))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        assert (await http.get("/report.json")).json() == {"runs": []}
        measuring(tmp_path)
        assert (await http.get("/report.json")).json()["runs"][0]["run_id"] == "triage-2"
        assert "triage-2" in (await http.get("/report")).text


def command(folder: Path, *options: str) -> Result:
    """Run the command in this process."""
    identity = "".join(f"{name} = {json.dumps(value)}\n" for name, value in IDENTITY.items())
    (folder / "agent.toml").write_text(
        f'{identity}coordinator_url = "http://127.0.0.1:1"\nstate_dir = "."\nslm = "slm"\n[data]\npath = "data.jsonl"\n'
    )
    return CliRunner().invoke(app, ["report", "--config", str(folder / "agent.toml"), *options])


def test_the_command_shows_a_table_for_each_run(tmp_path: Path):
    """Methods in rows, and what they differ by; programs read the same numbers."""
    assert "set holdout.path to examples that are not trained on" in command(tmp_path).stdout
    measuring(tmp_path)
    shown = command(tmp_path)
    assert shown.exit_code == ExitCode.DONE, shown.output
    lines = shown.stdout.splitlines()
    for method in ("Zero-shot", "Own data only", "FedAvg", "FedCoLLM", "FedCoLLM less own data"):
        assert any(line.startswith(method) for line in lines)
    assert "trouble   data_unreadable" in shown.stdout
    runs = json.loads(command(tmp_path, "--json").stdout)["runs"]
    assert runs[0]["rounds"][-1]["published"]["accuracy"] == pytest.approx(246 / 400)


def test_the_command_names_a_state_folder_that_is_not_there(tmp_path: Path):
    """Instead of an empty report."""
    command(tmp_path)
    text = (tmp_path / "agent.toml").read_text().replace('state_dir = "."', 'state_dir = "nowhere"')
    (tmp_path / "agent.toml").write_text(text)
    shown = CliRunner().invoke(app, ["report", "--config", str(tmp_path / "agent.toml")])
    assert shown.exit_code == ExitCode.WRONG_USAGE
    assert "nowhere" in shown.output
