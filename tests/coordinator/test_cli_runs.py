"""`fedcollm runs` as an operator uses it, against a real coordinator on a loopback port."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from bench.federation import FEDERATION, ManualClock, sign, token_of
from services.coordinator.app import create_app
from services.coordinator.changes import Changes
from services.coordinator.cli import following
from services.coordinator.cli.app import app
from services.coordinator.context import Context
from shared.cli.console import ExitCode
from shared.errors import RunConflict
from shared.protocol.manifest import Manifest
from shared.protocol.messages import Event, RunList
from shared.protocol.rounds import RunState
from tests.support.federations import (
    RUN,
    begin,
    coordinator,
    kinds,
    lease,
    play_round,
    result_of,
    run_of,
    terms_of,
    work,
)
from tests.support.served import Operated, operated, served

TERMS = """
name = "a run"
llm = "llm"
slm = "slm"
seed = {seed}
rounds = 1
aggregation = "PlaintextAggregation"

[slm_lora]
rank = 2

[training]
batch_size = 2
max_tokens = 64
optimiser.learning_rate = 1e-3

[cotuning]
batch_size = 2
llm_optimiser.learning_rate = 1e-3
slm_optimiser.learning_rate = 1e-3

[cohort]
min_count = 1
max_count = 2
min_seconds = 10
max_seconds = 60
"""


@pytest.fixture
def operator(context: Context, tmp_path: Path) -> Iterator[Operated]:
    """A coordinator that is served, and how to reach it."""
    with operated(context, tmp_path) as opened:
        yield opened


def fedcollm(*arguments: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(app, arguments)


def runs(operator: Operated, *arguments: str) -> Result:
    return fedcollm("runs", *arguments, *operator.options)


def terms_file(folder: Path, *, seed: int = 1) -> str:
    file = folder / "run.toml"
    file.write_text(TERMS.format(seed=seed))
    return str(file)


@contextmanager
def started(operator: Operated, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command as a process of its own."""
    process = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "services.coordinator.cli", *arguments, *operator.options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_line(process: subprocess.Popen[str], words: str) -> list[str]:
    """Read what a process prints up to a line with these words."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if words in line:
            return seen
    raise AssertionError(f"{words!r} was never printed: {seen}")


# --- the life of a run --------------------------------------------------------------------------------------------


def test_a_run_is_made_started_paused_and_stopped(operator: Operated, tmp_path: Path):
    """Each command does one thing at the coordinator, and says what can be done next."""
    terms = terms_file(tmp_path)
    steps: Sequence[tuple[tuple[str, ...], RunState, str]] = [
        (("create", RUN, "--terms", terms), RunState.DRAFT, f"runs start {RUN}"),
        (("start", RUN), RunState.RUNNING, f"runs watch {RUN}"),
        (("pause", RUN), RunState.PAUSED, f"runs start {RUN}"),
        (("start", RUN), RunState.RUNNING, f"runs watch {RUN}"),
        (("stop", RUN, "--reason", "enough"), RunState.FAILED, f"runs report {RUN}"),
    ]
    for arguments, state, told in steps:
        result = runs(operator, *arguments)
        assert result.exit_code == ExitCode.DONE, result.output
        assert told in result.stdout
        assert run_of(operator.context).state is state
    assert run_of(operator.context).reason == "stopped: enough"
    assert run_of(operator.context).terms == terms_of()


def test_starting_with_terms_makes_the_run_too(operator: Operated, tmp_path: Path):
    """One command from a file to a running run; the same again changes nothing, other terms are refused."""
    again = [runs(operator, "start", RUN, "--terms", terms_file(tmp_path)) for _ in range(2)]
    assert [result.exit_code for result in again] == [ExitCode.DONE, ExitCode.DONE]
    assert kinds(operator.context).count("run.running") == 1

    result = runs(operator, "start", RUN, "--terms", terms_file(tmp_path, seed=2))
    assert result.exit_code == ExitCode.REFUSED
    assert f"({RunConflict.code})" in result.stderr
    assert run_of(operator.context).terms.seed == 1


def test_runs_are_listed(operator: Operated, clock: ManualClock):
    """For people as a table, with --json as the protocol's message."""
    assert "no runs yet" in runs(operator, "list").stdout
    begin(operator.context, run_id="ada")
    clock.advance(1)
    begin(operator.context, run_id="bob")
    table = runs(operator, "list").stdout
    assert table.index("bob") < table.index("ada")
    found = RunList.model_validate_json(runs(operator, "list", "--json", "--limit", "1").stdout)
    assert [run.id for run in found.runs] == ["bob"]


# --- watch --------------------------------------------------------------------------------------------------------


def test_a_run_that_was_stopped_is_not_said_to_have_failed(operator: Operated):
    """In the list, by watch, in the report and in the answer to `stop`; the exit code of watch is 1 all the same."""
    begin(operator.context)
    answers = [runs(operator, "stop", RUN, "--reason", "test")]
    answers += [runs(operator, *command) for command in (("list",), ("watch", RUN), ("report", RUN))]
    assert [answer.exit_code for answer in answers] == [0, 0, ExitCode.FAILED, 0]
    for answer in answers:
        assert "stopped: test" in answer.stdout
        assert "failed:" not in answer.stdout
    assert answers[2].stdout.splitlines()[-1] == "run run was stopped: test"


def stop_at_poll(number: int, operator: Operated, monkeypatch: pytest.MonkeyPatch) -> None:
    """Poll without waiting, and stop the run at the poll of this number."""
    monkeypatch.setattr(following, "LONGEST_POLL_SECONDS", 0.01)
    polls = 0

    def poll(self: Changes, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - passed on
        nonlocal polls
        polls += 1
        if polls == number:
            operator.context.lifecycle.cancel(RUN, "test", actor="operator")
        return real(self, *arguments, **options)

    real = Changes.poll
    monkeypatch.setattr(Changes, "poll", poll)


def test_a_pipe_is_told_once_what_is_waited_for(operator: Operated, monkeypatch: pytest.MonkeyPatch):
    """After a poll that brought no news, between the events, and not again before there is another event."""
    begin(operator.context)
    stop_at_poll(5, operator, monkeypatch)
    lines = runs(operator, "watch", RUN).stdout.splitlines()
    waits = [line for line in lines if line.startswith("round 1: 0 of 2 updates; ")]
    assert len(waits) == 1
    assert lines.index(waits[0]) == len(kinds(operator.context)) - 2  # all events but those of the end come before it


@pytest.mark.parametrize(
    ("loss", "code", "told"),
    [(1.0, ExitCode.DONE, "has finished"), (2.0, ExitCode.FAILED, "has failed: 3 rounds in a row")],
)
def test_a_watched_runs_outcome_is_the_exit_code(operator: Operated, loss: float, code: ExitCode, told: str):
    """A run that finishes is 0, one whose rounds are all refused is 1; the reasons of rounds are told."""

    def play() -> None:
        for number in range(1, 4 if loss > 1 else 2):
            play_round(operator.context, number, loss=loss)

    begin(operator.context)
    player = threading.Thread(target=play)
    player.start()
    result = runs(operator, "watch", RUN)
    player.join()

    assert result.exit_code == code
    lines = result.stdout.splitlines()
    events = [line.split()[1] for line in lines if line.startswith("#")]
    assert events == kinds(operator.context)
    assert told in lines[-1]
    assert ("round 3 was refused: the candidate's validation loss is 2.0000" in result.stdout) == (code != 0)


def test_a_run_is_started_and_watched_in_one_go_as_json(operator: Operated, tmp_path: Path):
    """With --json every line is one event of the log, and nothing else is printed."""
    with started(operator, "runs", "start", RUN, "--terms", terms_file(tmp_path), "--watch", "--json") as process:
        seen = read_line(process, "run.running")
        work(operator.context)
        play_round(operator.context, 1)
        rest, errors = process.communicate()
    assert (process.returncode, errors) == (ExitCode.DONE, "")
    events = [Event.model_validate_json(line) for line in [*seen, *rest.splitlines()]]
    assert [event.kind for event in events] == kinds(operator.context)


def prepared(operator: Operated) -> None:
    """Make, start and prepare a run that nobody has signed."""
    operator.context.lifecycle.create(RUN, terms_of(), actor="operator")
    operator.context.lifecycle.start(RUN, actor="operator")
    prepare(operator)


def prepare(operator: Operated) -> None:
    """Do the worker's part before the first round."""
    granted = lease(operator.context)
    result = result_of(operator.context, granted)
    operator.context.work.complete(granted.job_id, granted.token, result, actor="worker")


def test_an_operator_signs_what_a_run_is(operator: Operated, tmp_path: Path):
    """By hand, after it was prepared; what is signed is shown, and the first round opens."""
    operator.context.lifecycle.create(RUN, terms_of(), actor="operator")
    terms = terms_file(tmp_path)
    early = runs(operator, "sign", RUN, "--terms", terms)
    assert (early.exit_code, "has not been prepared" in early.stderr) == (ExitCode.REFUSED, True)
    operator.context.lifecycle.start(RUN, actor="operator")
    prepare(operator)
    told = runs(operator, "sign", RUN, "--terms", terms)
    assert told.exit_code == ExitCode.DONE, told.output
    manifest = operator.context.lifecycle.manifest(RUN).manifest
    assert f"signed what run {RUN} of {FEDERATION} is" in told.stdout
    for said in (
        f"LLM        {manifest.llm_digest}",
        f"SLM        {manifest.slm_digest}",
        "LoRA       rank 2, alpha 16, dropout 0.05, on slm",
        "updates    14 parameters in 2 tensors, clipped to norm 50",
        "training   1 epochs of multiple_choice, 2 a step, 64 tokens each, rate 0.001",
        "evaluation 0 examples of each agent's own",
        "cohort     1 to 2 agents, 10 to 60 s",
        "sum        PlaintextAggregation, unweighted",
    ):
        assert said in told.stdout
    assert run_of(operator.context).round == 1
    again = runs(operator, "sign", RUN, "--terms", terms, "--json")
    assert Manifest.model_validate_json(again.stdout) == manifest


def test_nothing_is_signed_by_the_coordinators_word_for_the_terms(
    operator: Operated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """An operator whose terms are in no file here signs nothing; `run.toml` is read where there is one."""
    prepared(operator)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    told = runs(operator, "sign", RUN)
    assert (told.exit_code, "there is no run.toml here" in told.stderr) == (ExitCode.WRONG_USAGE, True)
    terms_file(tmp_path / "elsewhere", seed=2)
    Path("run.toml").write_text(Path("run.toml").read_text().replace("Plaintext", "Secure").replace("t = 1", "t = 3"))
    Path("run.toml").write_text(Path("run.toml").read_text().replace("max_count = 2", "max_count = 3"))
    told = runs(operator, "sign", RUN)
    assert (told.exit_code, "the terms say of aggregation, cohort" in told.stderr) == (ExitCode.FAILED, True)
    assert not run_of(operator.context).signed
    terms_file(tmp_path / "elsewhere")
    assert runs(operator, "sign", RUN).exit_code == ExitCode.DONE
    assert run_of(operator.context).signed


def test_watching_without_terms_signs_nothing(operator: Operated, monkeypatch: pytest.MonkeyPatch):
    """It says which command does, though the operator's key is at hand."""
    prepared(operator)
    stop_at_poll(5, operator, monkeypatch)
    told = runs(operator, "watch", RUN)
    assert f"waits for the operator's signature: `fedcollm runs sign {RUN} --terms FILE`" in told.stdout
    assert "run.signed" not in kinds(operator.context)


def test_nothing_is_signed_that_the_terms_do_not_say(operator: Operated, tmp_path: Path):
    """Whoever has changed them on the way, what differs is named."""
    prepared(operator)
    file = terms_file(tmp_path)
    Path(file).write_text(Path(file).read_text().replace("batch_size = 2\nmax_tokens", "batch_size = 3\nmax_tokens"))
    told = runs(operator, "sign", RUN, "--terms", file)
    assert (told.exit_code, "does not say what the terms say of training" in told.stderr) == (ExitCode.FAILED, True)
    assert not run_of(operator.context).signed


def test_watching_signs_what_the_run_is_once_it_is_prepared(operator: Operated, tmp_path: Path):
    """And says so, where terms are named; nobody need come back to give one more command."""
    with started(operator, "runs", "start", RUN, "--terms", terms_file(tmp_path), "--watch") as process:
        read_line(process, "run.running")
        prepare(operator)
        read_line(process, "round.open")
        play_round(operator.context, 1)
        _, errors = process.communicate()
    assert process.returncode == ExitCode.DONE
    assert f"signed what run {RUN} of {FEDERATION} is" in errors


def test_whoever_has_no_key_watches_and_signs_nothing(operator: Operated, tmp_path: Path):
    """It says what is waited for."""
    prepared(operator)
    settings = tmp_path / "operator.toml"
    settings.write_text("".join(settings.read_text().splitlines(keepends=True)[:2]))
    with started(operator, "runs", "watch", RUN) as process:
        read_line(process, "waits_for=the operator's signature")
        sign(operator.context, RUN)
        read_line(process, "round.open")


def test_watching_survives_a_restart_of_the_coordinator(tmp_path: Path, clock: ManualClock):
    """Each event is told once, whichever process of the coordinator told it."""
    with ExitStack() as stack:
        with coordinator(tmp_path / "coordinator", clock) as first, operated(first, tmp_path) as operator:
            begin(first)
            process = stack.enter_context(started(operator, "runs", "watch", RUN))
            seen = read_line(process, "round.open")
        assert process.stderr is not None
        assert "did not answer" in process.stderr.readline()
        with coordinator(tmp_path / "coordinator", clock) as second, served(create_app(second), operator.port):
            play_round(second, 1)
            rest, _ = process.communicate()
            happened = kinds(second)
    assert process.returncode == ExitCode.DONE
    told = [line.split()[1] for line in [*seen, *rest.splitlines()] if line.startswith("#")]
    assert told == happened


def test_ctrl_c_leaves_the_run_running_and_says_so(operator: Operated):
    """130, no traceback, and how to follow the run again."""
    begin(operator.context)
    with started(operator, "runs", "watch", RUN) as process:
        read_line(process, "round.open")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert process.returncode == ExitCode.INTERRUPTED
    assert errors.splitlines() == [f"interrupted: the run goes on: `fedcollm runs watch {RUN}` follows it again"]
    assert run_of(operator.context).state is RunState.RUNNING


# --- when something is wrong --------------------------------------------------------------------------------------


def options(folder: Path, *, url: str, token: str) -> tuple[str, ...]:
    (folder / "other-token").write_text(token)
    return ("--coordinator", url, "--token-file", str(folder / "other-token"))


@pytest.mark.parametrize(
    ("arguments", "code", "problem", "told"),
    [
        (("watch", "nothing"), ExitCode.REFUSED, "not_found", "no run 'nothing'"),
        (("report", "nothing"), ExitCode.REFUSED, "not_found", "no run 'nothing'"),
        (("create", RUN, "--terms", "nowhere.toml"), ExitCode.WRONG_USAGE, "configuration_invalid", "nowhere.toml"),
        (("start", "Not An Id"), ExitCode.WRONG_USAGE, "usage", "no run's id"),
        (("stop", RUN), ExitCode.WRONG_USAGE, "usage", "--reason"),
    ],
)
def test_what_is_refused_has_its_exit_code_and_as_json_its_problem(
    operator: Operated, arguments: tuple[str, ...], code: ExitCode, problem: str, told: str
):
    """The same code and words for people on standard error, and for programs as a document there."""
    result = runs(operator, *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert told in " ".join(result.stderr.replace("│", " ").split())

    with started(operator, "runs", *arguments, "--json") as process:
        output, errors = process.communicate()
    assert (process.returncode, output) == (code, "")
    document = json.loads(errors)
    assert document["code"] == problem
    assert told in document["detail"]


def test_a_coordinator_that_is_not_there_is_said_to_be(tmp_path: Path):
    """Exit code 3, the address, and what to look at."""
    result = fedcollm("runs", "list", *options(tmp_path, url="http://127.0.0.1:1", token="a-token"), "--json")
    assert result.exit_code == ExitCode.UNREACHABLE
    problem = json.loads(result.stderr)
    assert problem["code"] == "unreachable"
    assert "http://127.0.0.1:1/v1/runs did not answer" in problem["detail"]


def test_a_token_that_is_not_the_operators_is_refused(operator: Operated, tmp_path: Path):
    """Options win over the file, and the coordinator's problem code is shown."""
    for token, code in (("a-token-of-nobody", "not_authenticated"), (token_of("worker"), "not_allowed")):
        url = f"http://127.0.0.1:{operator.port}"
        result = fedcollm("runs", "list", *operator.options, *options(tmp_path, url=url, token=token))
        assert result.exit_code == ExitCode.REFUSED
        assert f"({code})" in result.stderr


def test_an_operator_who_says_nothing_is_told_what_to_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Exit code 2, with the settings, the variables and the options; operator.toml is read where there is one."""
    monkeypatch.chdir(tmp_path)
    result = fedcollm("runs", "list")
    assert result.exit_code == ExitCode.WRONG_USAGE
    for said in ("coordinator_url", "token_file", "FEDCOLLM_OPERATOR_", "--coordinator", "operator.toml"):
        assert said in result.stderr

    (tmp_path / "operator.toml").write_text('coordinator_ulr = "http://127.0.0.1:1"')
    assert "'coordinator_url' was meant" in fedcollm("runs", "list").stderr


def test_the_environment_says_which_coordinator(operator: Operated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As for every other process of the federation."""
    monkeypatch.chdir(tmp_path.parent)
    monkeypatch.setenv("FEDCOLLM_OPERATOR_COORDINATOR_URL", f"http://127.0.0.1:{operator.port}")
    monkeypatch.setenv("FEDCOLLM_OPERATOR_TOKEN_FILE", str(tmp_path / "token"))
    assert fedcollm("runs", "list").exit_code == ExitCode.DONE
