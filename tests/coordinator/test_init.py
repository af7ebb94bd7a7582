"""`fedcollm init`, as an operator uses it."""

import json
from ipaddress import ip_address
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from services.coordinator.certificates import hosts_of, read_certificate, serving_tls, sha256_of
from services.coordinator.cli.app import app
from services.coordinator.cli.settings import OperatorSettings
from services.coordinator.presets import PRESETS, preset_terms, read_terms
from services.coordinator.principals import Role
from services.coordinator.settings import Settings as CoordinatorSettings
from services.coordinator.tokens import PREFIX, read_entries, sha256
from services.coordinator.worker.settings import Settings as WorkerSettings
from shared.cli.console import ExitCode
from shared.configuration import read_settings
from shared.credentials import BearerToken
from shared.key_file import read_key
from shared.listening import listen
from shared.protocol.terms import TaskTerms

ROWS = '{"question": "Why?", "choices": ["x", "y"], "answer": "x"}\n'
PAIRS = '{"prompt": "Say", "answer": "so"}\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The present folder, with two sets of examples in it."""
    monkeypatch.chdir(tmp_path)
    for name in ("auxiliary", "validation"):
        (tmp_path / f"{name}.jsonl").write_text(ROWS)
    return tmp_path


def init(*arguments: str, answers: str | None = None) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(app, ["init", *arguments], input=answers)


def options(**changes: str) -> list[str]:
    """Return options that answer every question for which there is no default."""
    usual = {"llm": "org/large", "slm": "org/small", "auxiliary": "auxiliary.jsonl", "validation": "validation.jsonl"}
    return [part for name, value in (usual | changes).items() for part in (f"--{name}", value)]


def test_answers_become_a_federation_that_fits_together(folder: Path):
    """Each process reads its file, and every token is one that the coordinator will know."""
    answers = "\n2\n\norg/large\norg/small\nauxiliary.jsonl\n\nvalidation.jsonl\n\n\n\n\n"
    told = init(answers=answers)
    assert told.exit_code == ExitCode.DONE, told.output
    coordinator = read_settings(CoordinatorSettings, folder / "coordinator.toml")
    worker = read_settings(WorkerSettings, folder / "worker.toml")
    operator = read_settings(OperatorSettings, folder / "operator.toml")
    assert worker.coordinator_url.endswith(f":{coordinator.work_port}")
    assert operator.coordinator_url.endswith(f":{coordinator.port}")
    assert worker.auxiliary.path == folder / "auxiliary.jsonl"
    entries = read_entries(coordinator.principals_file)
    assert {name: entry.role for name, entry in entries.items()} == {"operator": Role.OPERATOR, "worker": Role.WORKER}
    for name, entry in entries.items():
        assert sha256(BearerToken.read(folder / "tokens" / name).token) == entry.token_sha256
    assert worker.token_file == folder / "tokens" / "worker"
    assert operator.token_file == folder / "tokens" / "operator"
    terms = read_terms(folder / "run.toml")
    assert (terms.llm, terms.slm, terms.cohort.max_count) == ("org/large", "org/small", 2)
    assert terms.name == ""  # every run of these terms would be called so


@pytest.mark.usefixtures("folder")
def test_a_port_that_is_in_use_is_told():
    """It may be this installation's own coordinator, so it is no refusal."""
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        told = init(*options(port=str(port)), "--yes")
    assert told.exit_code == ExitCode.DONE, told.output
    assert f"port {port} is in use on this machine: if by somebody else, choose another with --port" in told.output


def test_what_was_answered_of_one_file_is_proposed_for_the_next(folder: Path):
    """Where it fits; a file of other columns is asked about, and not for its kind, which is the run's."""
    for name in ("auxiliary", "validation"):
        (folder / f"{name}.csv").write_text("Frage;erste;zweite;Lösung\nWarum?;x;y;y\n")
    (folder / "other.csv").write_text("Frage;dritte;vierte;Antwort\nWarum?;x;y;x\n")
    first = "multiple choice\nFrage\nerste, zweite\nLösung\ntext\n"
    chosen = options(agents="1", preset="qwen", auxiliary="auxiliary.csv", validation="validation.csv")
    told = init(*chosen, answers=f"\n{first}\n\n\n\n")
    assert told.exit_code == ExitCode.DONE, told.output
    worker = read_settings(WorkerSettings, folder / "worker.toml")
    assert worker.auxiliary.columns == worker.validation.columns
    assert worker.validation.columns.choices == ("erste", "zweite")
    chosen = options(agents="1", preset="qwen", auxiliary="auxiliary.csv", validation="other.csv")
    told = init("other", *chosen, answers=f"\n{first}\ndritte, vierte\nAntwort\n\n\n\n\n")
    assert told.exit_code == ExitCode.DONE, told.output
    assert read_settings(WorkerSettings, folder / "other" / "worker.toml").validation.columns.answer == "Antwort"


@pytest.mark.usefixtures("folder")
def test_it_says_what_to_do_next():
    """And shows no token."""
    told = init("fed", *options(agents="2"), "--yes")
    assert told.exit_code == ExitCode.DONE, told.output
    for said in (
        "cd fed",
        "fedcollm doctor",
        "fedcollm coordinator --config",
        "fedcollm worker --config",
        "fedcollm agents invite",
        "runs start",
    ):
        assert said in told.output
    assert PREFIX not in told.output


def test_secrets_are_for_their_owner_alone(folder: Path):
    """Tokens and the principals file have mode 600, and no token is used twice in two federations."""
    tokens = []
    for name in ("one", "two"):
        assert init(name, *options(), "--yes").exit_code == ExitCode.DONE
        secret = [folder / name / "principals.json", *(folder / name / "tokens").iterdir()]
        assert {file.stat().st_mode & 0o777 for file in secret} == {0o600}
        tokens += [entry.token_sha256 for entry in read_entries(folder / name / "principals.json").values()]
    assert len(set(tokens)) == len(tokens) == 4


def test_the_kind_of_task_is_that_of_the_auxiliary_set(folder: Path):
    """Terms say by which kind everybody's data is read."""
    for name in ("auxiliary", "validation"):
        (folder / f"{name}.jsonl").write_text(PAIRS)
    assert init(*options(), "--yes").exit_code == ExitCode.DONE
    assert read_terms(folder / "run.toml").task.kind == "completion"


def test_everything_else_of_a_presets_task_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """How a question is asked, and what becomes of texts that are too long."""
    task = {"template": "Q: {question}", "too_long": "leave_out"}
    monkeypatch.setitem(PRESETS, "ours", {**PRESETS["demo"], "task": task})
    assert init(*options(preset="ours"), "--yes").exit_code == ExitCode.DONE
    assert read_terms(folder / "run.toml").task == TaskTerms(kind="multiple_choice", **task)


def model(folder: Path, config: str) -> None:
    """Write as much of a base model as `init` looks at."""
    folder.mkdir()
    (folder / "config.json").write_text(config)
    (folder / "model.safetensors").write_bytes(b"")


def test_terms_begin_with_a_preset_and_fit_the_models(folder: Path):
    """What the preset trains by, for the agents that there are, and no text longer than both models take."""
    model(folder / "large", json.dumps({"text_config": {"max_position_embeddings": 64}}))
    model(folder / "small", json.dumps({"n_positions": 128}))
    chosen = options(llm="large", slm="small", preset="paper-opt", agents="3")
    assert init(*chosen, "--yes").exit_code == ExitCode.DONE
    terms, preset = read_terms(folder / "run.toml"), preset_terms("paper-opt")
    assert (terms.llm, terms.slm) == (str(folder / "large"), str(folder / "small"))
    assert (terms.cotuning, terms.rounds, terms.gate) == (preset.cotuning, preset.rounds, preset.gate)
    assert terms.training.max_tokens == 64
    assert (terms.cohort.min_count, terms.cohort.max_count, terms.aggregation) == (3, 3, "SecureAggregation")
    init(*chosen[:-2], "--agents", "2", "--yes", "--force")
    terms = read_terms(folder / "run.toml")
    assert (terms.cohort.min_count, terms.cohort.max_count, terms.aggregation) == (2, 2, "PlaintextAggregation")


def test_a_model_whose_configuration_is_damaged_is_asked_for_again(folder: Path):
    """With what is wrong and what to do; everything else that was answered stays."""
    model(folder / "broken", "{")
    model(folder / "whole", "{}")
    told = init(*options(agents="1"), "--llm", "broken", "--yes")
    assert told.exit_code != ExitCode.DONE
    assert "config.json is not JSON: fetch the model again" in told.stderr
    assert not (folder / "run.toml").exists()
    answers = "\n1\n\nbroken\nwhole\nwhole\nauxiliary.jsonl\n\nvalidation.jsonl\n\n\n\n\n"
    told = init(answers=answers)
    assert told.exit_code == ExitCode.DONE, told.output
    assert "fetch the model again" in told.stderr
    assert read_terms(folder / "run.toml").llm == str(folder / "whole")


def test_a_coordinator_that_others_reach_gets_tls(folder: Path):
    """One option more: a CA, a certificate for the hosts, and settings with which everybody here uses both."""
    told = init("fed", *options(), "--host", "coordinator.test", "--host", "10.0.0.1", "--yes")
    assert told.exit_code == ExitCode.DONE, told.output
    coordinator = read_settings(CoordinatorSettings, folder / "fed" / "coordinator.toml")
    worker = read_settings(WorkerSettings, folder / "fed" / "worker.toml")
    operator = read_settings(OperatorSettings, folder / "fed" / "operator.toml")
    assert ip_address(coordinator.host).is_unspecified
    assert coordinator.work_host == "127.0.0.1"
    assert coordinator.tls_certificate_file is not None
    assert coordinator.tls_key_file is not None
    serving_tls(coordinator.tls_certificate_file, coordinator.tls_key_file)
    assert {"coordinator.test", "10.0.0.1"} < set(hosts_of(read_certificate(coordinator.tls_certificate_file)))
    for settings, port in ((worker, coordinator.work_port), (operator, coordinator.port)):
        assert settings.coordinator_url == f"https://127.0.0.1:{port}"
        assert settings.ca_file == folder / "fed" / "tls" / "ca.pem"
    assert "https://coordinator.test:8440, and trust tls/ca.pem" in told.output
    assert sha256_of(read_certificate(folder / "fed" / "tls" / "ca.pem")) in told.output
    assert operator.agents_url == "https://coordinator.test:8440"
    (folder / "fed" / "coordinator.toml").unlink()
    told = init("fed", *options(), "--host", "coordinator.test", "--yes")
    assert told.exit_code == ExitCode.WRONG_USAGE


def test_an_ipv6_address_is_told_as_a_url_has_it(folder: Path):
    """In brackets."""
    told = init(*options(), "--host", "2001:db8::1", "--yes")
    assert told.exit_code == ExitCode.DONE, told.output
    assert "https://[2001:db8::1]:8440" in told.output
    assert (folder / "tls" / "ca.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"agents": "none"}, "--agents: Input should be a valid integer"),
        ({"agents": "0"}, "--agents: Input should be greater than or equal to 1"),
        ({"federation": "../a"}, "--federation: a name begins with"),
        ({"port": "70000"}, "--port: Input should be less than or equal to 65535"),
        ({"port": "8441"}, "each its own"),
        ({"host": "https://here"}, "'https://here' is no host"),
        ({"preset": "smolm2"}, "'smollm2' was meant?"),
        ({"llm": "/nowhere"}, "--llm: there is no folder /nowhere"),
        ({"slm": "models/sl"}, "--slm: there is no folder models/sl: 'slm' was meant?"),
        ({"validation": "auxiliar.jsonl"}, "--validation: there is no 'auxiliar.jsonl' in"),
        ({"validation": "./auxiliary.jsonl"}, "is the file of the auxiliary examples, and no example may be in both"),
    ],
)
def test_a_wrong_answer_ends_it_where_nobody_is_asked(folder: Path, changes: dict[str, str], said: str):
    """With exit code 2, and nothing is written."""
    (folder / "models" / "slm").mkdir(parents=True)
    told = init("fed", *options(**changes), "--yes")
    assert told.exit_code == ExitCode.WRONG_USAGE, told.output
    assert said in told.stderr
    assert not (folder / "fed").exists()


def test_nothing_is_replaced_but_by_force(folder: Path):
    """New tokens would lock everybody out: one file of an older federation is enough to stop."""
    (folder / "principals.json").write_text("{}")
    told = init(*options(), "--yes", "--json")
    assert json.loads(told.stderr)["code"] == "output_exists"
    assert not (folder / "coordinator.toml").exists()
    told = init(*options(), "--json", "--force")
    assert set(json.loads(told.stdout)["tokens"]) == {"operator", "worker"}


def test_the_operators_key_is_the_one_that_the_coordinator_knows(folder: Path):
    """It is never replaced: what it has signed would be lost with it; the federation is called after it."""
    seen = set()
    for arguments in ((), ("--force",)):
        told = init(*options(), "--yes", *arguments)
        assert told.exit_code == ExitCode.DONE, told.output
        operator = read_settings(OperatorSettings, folder / "operator.toml")
        coordinator = read_settings(CoordinatorSettings, folder / "coordinator.toml")
        assert operator.key_file is not None
        assert read_key(operator.key_file).public == coordinator.operator_key
        assert operator.federation == coordinator.federation
        seen.add((coordinator.operator_key, coordinator.federation))
    assert len(seen) == 1
    assert init(*options(federation="clinics"), "--yes", "--force").exit_code == ExitCode.DONE
    assert read_settings(CoordinatorSettings, folder / "coordinator.toml").federation == "clinics"
