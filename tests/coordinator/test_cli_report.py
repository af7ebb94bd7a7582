"""`fedcollm runs report`: what a run gave, for people at any width and for programs."""

from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from bench.federation import ManualClock
from services.coordinator.cli.app import app
from services.coordinator.cli.report import Report, report_lines
from services.coordinator.context import Context
from shared.cli.console import ExitCode
from shared.protocol.messages import AgentsEvaluation
from shared.protocol.rounds import RoundState
from shared.protocol.terms import CohortTerms, GateTerms
from tests.support.federations import RUN, adapter, begin, play_round, run_of, submit, terms_of
from tests.support.players import SECURE, Players
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


def shown(found: Report, width: int) -> list[str]:
    """The rows of a report on a terminal of this width."""
    screen = Console(file=StringIO(), width=width, force_terminal=True, color_system=None, legacy_windows=False)
    with screen.capture() as capture:
        screen.print(*report_lines(found), sep="\n")
    return capture.get().splitlines()


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
    assert "agents train, and send what may be read" in text
    assert "5 updates of" in text
    assert "slm-adapter" in text


@pytest.mark.parametrize(("name", "begins"), [("", f"run {RUN}: draft"), ("a run", f"run {RUN} (a run): draft")])
def test_a_run_is_called_by_its_id_where_its_terms_have_no_name(operator: Operated, name: str, begins: str):
    """Of one file of terms several runs can be made."""
    operator.context.lifecycle.create(RUN, terms_of(name=name), actor="operator")
    assert report(operator).startswith(begins)


def test_nothing_of_a_report_is_cut_at_80_columns(operator: Operated):
    """However long the losses and digests are; where there is room, accuracy and loss share a table."""
    begin(operator.context, terms_of(rounds=2, gate=GateTerms(enabled=False)))
    play_round(operator.context, 1, loss=1234.567)
    play_round(operator.context, 2, loss=12.345)
    found = Report.model_validate_json(report(operator, "--json"))

    narrow, wide = shown(found, 80), shown(found, 120)
    assert max(len(row.rstrip()) for row in narrow) <= 80
    assert "…" not in "".join([*narrow, *wide])
    assert any(row.split()[-3:-1] == ["1234.567", "1.000"] for row in narrow)
    assert any("50.0 %  1234.567" in row for row in wide)
    digest = found.artefacts[0].digest
    assert digest in "".join(row.split()[-1] for row in narrow if row.split())
    assert any(digest in row for row in wide)


def test_a_report_counts_updates_before_any_is_aggregated(operator: Operated):
    """Their length is that of the run's layout, and one is not called several."""
    begin(operator.context)
    assert "no update was accepted" in report(operator)
    submit(operator.context, "ada")
    assert f"1 update of {len(adapter(1.0)) / 1000:.1f} kB was accepted\n" in report(operator)
    submit(operator.context, "bob")
    assert " were accepted, 0." in report(operator)


def test_what_is_only_ready_is_no_update_that_was_accepted(operator: Operated, clock: ManualClock):
    """Nothing of a masked update has left its agent before a sum is made of it."""
    players = Players(operator.context, clock)
    begin(operator.context, terms_of(**SECURE))
    players.play(until=RoundState.KEYS)
    assert "no update was accepted" in report(operator)
    players.play()
    assert "4 updates of " in report(operator)


def test_a_report_as_json_is_the_same(operator: Operated):
    """One document with the run, its rounds, times and adapters as the protocol has them."""
    begin(operator.context)
    operator.context.rounds.reconcile()
    play_round(operator.context, 1)
    found = Report.model_validate_json(report(operator, "--json"))

    assert found.run == run_of(operator.context)
    assert found.rounds == operator.context.lifecycle.rounds(RUN).rounds
    assert list(found.artefacts) == operator.context.lifecycle.artefacts(RUN)
    assert found.updates == 2
    assert found.update_bytes == found.rounds[0].aggregate_bytes
    assert set(found.seconds) == {"prepare", "open", "masking", "aggregated", "cotuning", "evaluating"}


def test_a_report_of_a_run_that_made_nothing_says_so(operator: Operated):
    """A draft has no scores, no rounds and no adapters."""
    operator.context.lifecycle.create(RUN, terms_of(), actor="operator")
    assert "there are no adapters yet" in report(operator)


def test_what_agents_have_measured_and_what_sums_cost_is_in_the_report(operator: Operated):
    """Of the adapter that each round began with; and nothing is cut at 80 columns, in the longest state either."""
    begin(operator.context, terms_of(rounds=2, gate=GateTerms(enabled=False)))
    play_round(operator.context, 1)
    found = Report.model_validate_json(report(operator, "--json"))
    assert not any("agents on" in row or "attempts" in row for row in shown(found, 80))

    cohort = CohortTerms(min_count=3, max_count=4, min_seconds=0, max_seconds=60)
    terms = terms_of(aggregation="SecureAggregation", cohort=cohort, evaluation_examples=100)
    told = AgentsEvaluation(examples=300, accuracy=0.625, loss=0.75)
    rounds = (
        found.rounds[0].model_copy(update={"attempts": 2, "error_bound": 9.3e-8, "evaluation": told}),
        found.rounds[1].model_copy(update={"attempts": 1, "state": RoundState.CONSISTENCY, "seconds": {"open": 5e3}}),
    )
    secure = found.model_copy(
        update={"run": found.run.model_copy(update={"terms": terms}), "rounds": rounds, "seconds": {}}
    )
    narrow, wide = shown(secure, 80), shown(secure, 140)
    assert max(len(row.rstrip()) for row in narrow) <= 80
    assert "…" not in "".join([*narrow, *wide])
    assert any(row.split()[:6] == ["1", "published", "2", "62.5", "%", "50.0"] for row in narrow)
    assert any("62.5 %  0.750" in row for row in wide)
    assert "SLM at agents: each agent on 100 examples of its own, before it trained" in narrow
    assert any("no number of an aggregate is off by more than 9.3e-08" in row for row in narrow)
    assert [row for row in narrow if "attempts" in row] == ["round 1 took 2 attempts"]
