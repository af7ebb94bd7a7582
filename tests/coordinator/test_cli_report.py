"""`fedcollm runs report`: what a run gave, for people at any width and for programs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.coordinator.cli.app import app
from services.coordinator.cli.report import Report
from services.coordinator.context import Context
from shared.cli.console import ExitCode
from tests.support.federations import RUN, begin, play_round, run_of, submit, terms_of
from tests.support.served import Operated, operated


@pytest.fixture
def operator(context: Context, tmp_path: Path) -> Iterator[Operated]:
    """A coordinator that is served, and how to reach it."""
    with operated(context, tmp_path) as opened:
        yield opened


def report(operator: Operated, *arguments: str) -> str:
    """What the command says of the run."""
    result = CliRunner().invoke(app, ["runs", "report", RUN, *arguments, *operator.options])
    assert result.exit_code == ExitCode.DONE, result.output
    return result.stdout


def test_a_report_says_what_a_run_gave_and_why_rounds_came_to_nothing(operator: Operated):
    """Scores with losses and chance, reasons, times, bytes and adapters."""
    begin(operator.context, terms_of(rounds=2))
    play_round(operator.context, 1)
    play_round(operator.context, 2, loss=2.0)
    submit(operator.context, "ada", number=3)
    text = report(operator)

    assert "1 of 2 rounds published" in text
    assert "(1 examples, chance 25.0 %)" in text
    assert "50.0 %  2.000" in text
    assert "round 2 was refused: the candidate's validation loss is 2.0000" in text
    assert "agents train and send" in text
    assert "5 updates of" in text
    assert "slm-adapter" in text


@pytest.mark.parametrize(("name", "begins"), [("", f"run {RUN}: draft"), ("a run", f"run {RUN} (a run): draft")])
def test_a_run_is_called_by_its_id_where_its_terms_have_no_name(operator: Operated, name: str, begins: str):
    """Of one file of terms several runs can be made."""
    operator.context.lifecycle.create(RUN, terms_of(name=name), actor="operator")
    assert report(operator).startswith(begins)


def test_a_report_as_json_is_the_same(operator: Operated):
    """One document with the run, its rounds, times and adapters as the protocol has them."""
    begin(operator.context)
    operator.context.rounds.reconcile()
    play_round(operator.context, 1)
    found = Report.model_validate_json(report(operator, "--json"))

    assert found.run == run_of(operator.context)
    assert list(found.rounds) == operator.context.lifecycle.rounds(RUN)
    assert list(found.artefacts) == operator.context.lifecycle.artefacts(RUN)
    assert found.updates == 2
    assert found.update_bytes == found.rounds[0].aggregate_bytes
    assert set(found.seconds) == {"prepare", "open", "aggregated", "cotuning", "evaluating"}


def test_a_report_of_a_run_that_made_nothing_says_so(operator: Operated):
    """A draft has no scores, no rounds and no adapters."""
    operator.context.lifecycle.create(RUN, terms_of(), actor="operator")
    assert "there are no adapters yet" in report(operator)
