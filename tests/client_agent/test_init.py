"""`fedcollm-agent init`, as an organisation's administrator uses it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bench.federation import FEDERATION, ManualClock
from services.client_agent.cli.app import app
from services.client_agent.settings import Settings
from services.coordinator.app import create_app
from services.coordinator.context import Context
from shared.cli.console import ExitCode
from shared.configuration import read_settings
from shared.key_file import read_key
from shared.protocol.membership import Invitation, MemberState, check_code
from tests.support.federations import coordinator
from tests.support.members import OPERATOR, invitation_of, member
from tests.support.served import served
from tests.support.tls import certificates

ROWS = '{"question": "Why?", "choices": ["x", "y"], "answer": "x"}\n'
SHEET = "Q,A,B,Key,Note\nWhy?,x,y,B,\nHow?,v,w,A,\n"


@pytest.fixture
def context(tmp_path_factory: pytest.TempPathFactory, clock: ManualClock) -> Iterator[Context]:
    """A coordinator that has invited an agent."""
    with coordinator(tmp_path_factory.mktemp("coordinator"), clock) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, context: Context) -> Iterator[Path]:
    """The present folder, with a model, data and an invitation in it."""
    monkeypatch.chdir(tmp_path)
    model = tmp_path / "slm"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"")
    (tmp_path / "data.jsonl").write_text(ROWS)
    (tmp_path / "sheet.csv").write_text(SHEET)
    with served(create_app(context)) as port:
        invitation = invitation_of(context, coordinator_url=f"http://127.0.0.1:{port}")
        (tmp_path / "given").write_text(invitation.model_dump_json())
        yield tmp_path


def init(*arguments: str, answers: str | None = None) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(app, ["init", *arguments], input=answers)


def options(**changes: str | None) -> list[str]:
    """Return options that answer every question, some of them changed or left out."""
    usual = {"invitation": "given", "slm": "slm", "data": "data.jsonl"}
    given = {name: value for name, value in (usual | changes).items() if value is not None}
    return [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", value)]


def test_answers_become_a_file_that_the_agent_reads(folder: Path, context: Context):
    """Questions, defaults taken with Enter; what the invitation says is pinned, and the agent's key is brought."""
    told = init(answers="given\nslm\ndata.jsonl\n\n\n\n")
    assert told.exit_code == ExitCode.DONE, told.output
    settings = read_settings(Settings, folder / "agent.toml")
    invitation = Invitation.model_validate_json((folder / "given").read_bytes())
    assert settings.coordinator_url == invitation.coordinator_url
    assert (settings.name, settings.federation, settings.operator_key) == ("dora", FEDERATION, OPERATOR.public)
    assert settings.slm == str(folder / "slm")
    assert settings.data.path == folder / "data.jsonl"
    assert settings.state_dir == folder / "state"
    key = read_key(settings.identity_key_file)
    assert settings.identity_key_file == folder / "agent.key"
    assert settings.identity_key_file.stat().st_mode & 0o777 == 0o600
    assert (member(context, "dora").state, member(context, "dora").key) == (MemberState.PENDING, key.public)
    code = check_code(name="dora", key=key.public, federation=FEDERATION, operator_key=OPERATOR.public)
    assert f"its check code is {code}" in told.output
    assert invitation.token not in told.output + (folder / "agent.toml").read_text()
    assert "1 examples, multiple choice" in told.output
    assert "fedcollm-agent doctor --config agent.toml" in told.output


def test_the_operators_ca_is_pinned(folder: Path):
    """It comes with the invitation, and lies beside the settings from then on."""
    given = Invitation.model_validate_json((folder / "given").read_bytes())
    pem = certificates(folder).ca_file.read_text()
    (folder / "given").write_text(given.model_copy(update={"ca_certificate": pem}).model_dump_json())
    told = init(*options(), "--config", "ada.toml", "--yes")
    assert told.exit_code == ExitCode.DONE, told.output
    settings = read_settings(Settings, folder / "ada.toml")
    assert settings.ca_file == folder / "ada.ca.pem"
    assert settings.ca_file.read_text() == pem
    assert settings.identity_key_file == folder / "ada.key"  # so that another agent can have its own beside it


def test_a_coordinator_that_does_not_answer_is_enrolled_with_later(folder: Path, context: Context):
    """What was answered is kept, and what is left to do is told; `enrol` does it, and twice is as good as once."""
    given = Invitation.model_validate_json((folder / "given").read_bytes())
    (folder / "early").write_text(given.model_copy(update={"coordinator_url": "http://127.0.0.1:1"}).model_dump_json())
    told = init(*options(invitation="early"), "--yes")
    assert told.exit_code == ExitCode.UNREACHABLE, told.output
    assert "what is left is `fedcollm-agent enrol --invitation early --config agent.toml`" in told.stderr
    settings = folder / "agent.toml"
    assert 'slm = "./slm"' in settings.read_text()  # and so never a hub's, should the folder go
    settings.write_text(settings.read_text().replace("http://127.0.0.1:1", given.coordinator_url))
    for _ in range(2):
        told = CliRunner().invoke(app, ["enrol", "--invitation", "given", "--json"])
        assert json.loads(told.stdout)["state"] == "pending", told.output
    assert member(context, "dora").key == read_key(folder / "agent.key").public
    (folder / "agent.key").unlink()
    told = init(*options(), "--config", "another.toml", "--yes")
    assert "what is left is `fedcollm-agent enrol --invitation NEW --config another.toml`" in told.stderr


def test_a_key_that_is_there_stays(folder: Path, context: Context):
    """`--force` replaces settings: the coordinator may know the key already."""
    init(*options(), "--yes")
    before = read_key(folder / "agent.key").public
    told = init(*options(), "--yes", "--force")
    assert told.exit_code == ExitCode.DONE, told.output
    assert read_key(folder / "agent.key").public == member(context, "dora").key == before


def test_an_answer_that_cannot_be_used_is_asked_again(folder: Path):
    """Each at once, and with what is wrong about it."""
    wrong = [
        "here",
        "data.jsonl",
        "given",
        "nothing/like/this",
        "slm",
        "data.txt",
        "data.jsonl",
        "yes",
        "state",
        "gpu",
        "cpu",
    ]
    told = init(answers="\n".join(wrong) + "\n")
    assert told.exit_code == ExitCode.DONE, told.output
    for said in (
        "no 'here' in",
        "data.jsonl is no invitation",
        "no folder nothing/like/this",
        "no 'data.txt' in",
        "a device is auto",
    ):
        assert said in told.output
    assert read_settings(Settings, folder / "agent.toml").device == "cpu"


def test_columns_of_a_sheet_are_proposed_and_kept(folder: Path):
    """From the first row; what is agreed to is what the agent reads the data by."""
    told = init(*options(data="sheet.csv"), answers="\n\n\n")
    assert told.exit_code == ExitCode.DONE, told.output
    columns = read_settings(Settings, folder / "agent.toml").data.columns
    assert (columns.question, columns.choices, columns.labels, columns.answer) == ("Q", ("A", "B"), ("A", "B"), "Key")


def test_columns_that_are_known_need_no_confirmation(folder: Path):
    """What is said by options counts, and what follows from it is found."""
    told = init(*options(data="sheet.csv", column="question=Note"), "--column", "question=Q", "--yes")
    assert told.exit_code == ExitCode.DONE, told.output
    columns = read_settings(Settings, folder / "agent.toml").data.columns
    assert (columns.question, columns.answer_form) == ("Q", "label")


def test_columns_are_asked_for_one_by_one_where_the_proposal_is_wrong(folder: Path):
    """What is there is shown, and each answer is tried before the next question."""
    wrong_and_right = {
        "Is that right?": ["maybe", "No"],
        "Multiple choice, or completion": ["choice", "multiple choice"],
        "Column of the question": ["q4", "Note", "Q"],
        "Columns of the choices": ["Q", "A, C", "A, B"],
        "Column of the right answer": ["Key, Note", "Keys", "Key"],
        "Does it hold": ["letter", "text", "label"],
        "The choices' labels": ["A, B"],
    }
    answers = [answer for several in wrong_and_right.values() for answer in several]
    told = init(*options(data="sheet.csv"), answers="\n".join([*answers, "", "", ""]))
    assert told.exit_code == ExitCode.DONE, told.output
    assert "Its columns: 'Q', 'A', 'B', 'Key', 'Note'" in told.output
    for question, several in wrong_and_right.items():
        assert told.output.count(question) == len(several)
    for said in ("answer yes or no", "no column 'q4'", "no text in 'Note'", "name them all", "'Key' was meant?"):
        assert said in told.output
    columns = read_settings(Settings, folder / "agent.toml").data.columns
    assert (columns.question, columns.choices, columns.labels, columns.answer) == ("Q", ("A", "B"), ("A", "B"), "Key")


def test_what_a_later_row_finds_wrong_leads_back_to_the_file_with_its_answers_kept(folder: Path):
    """The file may have been mended meanwhile, or it is an answer that was wrong."""
    (folder / "counted.csv").write_text("Q,A,B,Key\nWhy?,x,y,1\nHow?,v,w,2\n")
    told = init(*options(data="counted.csv"), answers="\n" + "\nno\n\n\n\n\nlabel\n1, 2\n" + "\n\n")
    assert told.exit_code == ExitCode.DONE, told.output
    assert "Key (the right choice's index, from 0)" in told.output
    assert "line 3: the answer is the number of choices" in told.output
    assert "File of the private examples [counted.csv]" in told.output
    assert read_settings(Settings, folder / "agent.toml").data.columns.labels == ("1", "2")


def test_a_first_row_that_is_no_header_is_not_shown(folder: Path):
    """Its cells are somebody's data, and the screen may be shared."""
    (folder / "bare.csv").write_text("What did MARKER of ward 3 ask for?,x,y,A\nWhy?,v,w,B\n")
    told = init(*options(data="bare.csv"), answers="\n")
    assert "does the first line name the columns?" in told.output
    assert "MARKER" not in told.output


def test_columns_of_free_text_are_asked_for_in_the_same_way(folder: Path):
    """Several make up a prompt."""
    (folder / "letters.csv").write_text("Betreff,Brief,Antwort\nHello,How are you?,Well.\n")
    told = init(*options(data="letters.csv"), answers="\nBetreff, Brief\nAntwort\n\n\n")
    assert told.exit_code == ExitCode.DONE, told.output
    columns = read_settings(Settings, folder / "agent.toml").data.columns
    assert (columns.prompt, columns.answer) == (("Betreff", "Brief"), "Antwort")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ([], r"which column is the question, and which is the answer\? There are Frage, Wahl A, Wahl B, Lösung: say"),
        (["prompt=Frage"], r"which column is the answer\? .* \(for multiple choice: question, choices and answer\)"),
        (["question=Frage"], r"which column is the answer\? .* like --column answer=Lösung, or leave --yes off"),
        (["answer=Losung"], "--data: --column answer=Losung: .* has no column 'Losung': 'Lösung' was meant"),
    ],
)
def test_unknown_columns_are_said_by_options_where_nobody_is_asked(folder: Path, said: list[str], told: str):
    """Which there are, and how one is said: there are no settings yet that could be corrected."""
    (folder / "frage.csv").write_text("\ufeffFrage;Wahl A;Wahl B;Lösung\nWarum?;x;y;B\n")
    refused = init(*options(data="frage.csv"), *(part for one in said for part in ("--column", one)), "--yes")
    assert refused.exit_code == ExitCode.WRONG_USAGE, refused.output
    assert re.search(told, refused.stderr)


def test_an_option_may_name_several_columns(folder: Path):
    """With commas between them, as in an answer."""
    (folder / "frage.csv").write_text("Frage,erste,zweite,Lösung\nWarum?,x,y,y\n")
    said = ("question=Frage", "choices=erste,zweite", "answer=Lösung")
    told = init(*options(data="frage.csv"), *(part for one in said for part in ("--column", one)), "--yes")
    assert told.exit_code == ExitCode.DONE, told.output
    columns = read_settings(Settings, folder / "agent.toml").data.columns
    assert (columns.question, columns.choices, columns.answer_form) == ("Frage", ("erste", "zweite"), "text")


def test_without_questions_every_option_counts_and_json_says_what_was_written(folder: Path):
    """For scripts: nothing is asked, paths are the file's, and the result is one JSON document."""
    told = init(*options(), "--config", "etc/agent.toml", "--json")
    assert told.exit_code == ExitCode.DONE, told.output
    written = json.loads(told.stdout)
    assert (written["files"], written["examples"]) == (["etc/agent.toml", "etc/agent.key"], 1)
    assert (written["agent"]["name"], written["agent"]["state"]) == ("dora", "pending")
    settings = read_settings(Settings, folder / "etc" / "agent.toml")
    assert settings.data.path == folder / "data.jsonl"
    assert settings.state_dir == folder / "etc" / "state"


def test_examples_to_evaluate_on_are_taken_like_the_private_ones(folder: Path):
    """Who says so by an option gets a table for them, with columns that fit; nobody is asked for it."""
    (folder / "own.csv").write_text("Q,A,B,Key\nWhen?,x,y,A\n")
    told = init(*options(data="sheet.csv", evaluation="own.csv"), "--yes")
    assert told.exit_code == ExitCode.DONE, told.output
    settings = read_settings(Settings, folder / "agent.toml")
    assert settings.evaluation is not None
    assert settings.evaluation.path == folder / "own.csv"
    assert settings.evaluation.columns == settings.data.columns
    assert init(*options(), "--yes", "--force").exit_code == ExitCode.DONE
    assert read_settings(Settings, folder / "agent.toml").evaluation is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"evaluation": "./data.jsonl"}, "is the file of the private examples, and no example may be in both"),
        ({"slm": None}, "say it with --slm"),
        ({"slm": "/nowhere"}, "--slm: there is no folder /nowhere"),
        ({"data": "dat.jsonl"}, "--data: there is no 'dat.jsonl' in"),
        ({"invitation": None}, "say it with --invitation"),
        ({"invitation": "givn"}, "--invitation: the invitation: there is no 'givn' in"),
        ({"invitation": "data.jsonl"}, "data.jsonl is no invitation"),
        ({"column": "stem=x"}, "SETTING is one of question"),
        ({"device": "tpu"}, "a device is"),
    ],
)
def test_without_questions_a_wrong_or_missing_answer_ends_it(folder: Path, changes: dict[str, str | None], said: str):
    """With exit code 2, and nothing is written."""
    told = init(*options(**changes), "--yes")
    assert told.exit_code == ExitCode.WRONG_USAGE, told.output
    assert said in told.stderr
    assert not (folder / "agent.toml").exists()


def test_plain_http_to_another_machine_is_written_where_it_is_allowed(folder: Path):
    """And that it is, for whoever starts the agent."""
    given = Invitation.model_validate_json((folder / "given").read_bytes())
    (folder / "far").write_text(given.model_copy(update={"coordinator_url": "http://elsewhere.test"}).model_dump_json())
    refused = init(*options(invitation="far"), "--yes")
    assert (refused.exit_code, "http://elsewhere.test is not encrypted" in refused.stderr) == (
        ExitCode.WRONG_USAGE,
        True,
    )
    assert init(*options(invitation="far"), "--yes", "--insecure").exit_code == ExitCode.UNREACHABLE
    settings = read_settings(Settings, folder / "agent.toml")
    assert (settings.coordinator_url, settings.insecure) == ("http://elsewhere.test", True)


def test_a_file_is_replaced_only_by_force(folder: Path):
    """Before the first question."""
    (folder / "agent.toml").write_text("mine")
    told = init(answers="")
    assert "--force" in told.stderr
    assert (folder / "agent.toml").read_text() == "mine"
    assert init(*options(), "--yes", "--force").exit_code == ExitCode.DONE


def test_who_breaks_off_leaves_nothing_behind(folder: Path):
    """The end of the answers, or Ctrl-C, in the middle: no file, and the exit code of an interrupted command."""
    told = init(answers="given\nslm\n")
    assert told.exit_code == ExitCode.INTERRUPTED
    assert "interrupted: nothing was written" in told.stderr
    assert sorted(file.name for file in folder.iterdir()) == ["data.jsonl", "given", "sheet.csv", "slm"]
