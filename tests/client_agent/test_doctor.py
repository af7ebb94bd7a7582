"""`fedcollm-agent doctor`: each fault gives its finding, and what to do about it."""

import json
import shutil
import time
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bench.federation import FEDERATION, key_of, sign
from services.client_agent.audit_heads import AuditContradiction
from services.client_agent.cli.app import app
from services.client_agent.cli.doctor import PACKAGES
from services.client_agent.egress_ledger import ledger_folder, months, read
from services.client_agent.state import StateFolder
from services.coordinator.app import create_app
from services.coordinator.context import Context
from shared.cli.console import ExitCode
from shared.folders import owned
from shared.key_file import keep_key, read_key
from shared.listening import listen
from shared.ml.digests import base_model_digest, tokenizer_digest
from shared.ml.models import load_tokenizer
from shared.protocol.identity import IdentityKey
from shared.protocol.membership import check_code
from shared.protocol.terms import CohortTerms, RunTerms
from shared.protocol.work import PrepareResult
from tests.support.federations import begin, coordinator, lease, result_of, terms_of
from tests.support.members import IDENTITY, enrolment, invited
from tests.support.served import served
from tests.support.tapped import tapped
from tests.support.tiny_models import tiny_directory

ROWS = '{"question": "Why?", "choices": ["x", "y"], "answer": "x"}\n' * 3


@dataclass
class Installation:
    """An agent's installation, whose settings a test may bend."""

    folder: Path
    settings: dict[str, object] = field(default_factory=dict)

    def run(self, *options: str) -> Result:
        """Write the settings down, and call the doctor."""
        lines = [f"{name} = {json.dumps(value)}" for name, value in self.settings.items()]  # JSON's values are TOML's
        (self.folder / "agent.toml").write_text("\n".join(lines))
        return CliRunner().invoke(app, ["doctor", "--config", str(self.folder / "agent.toml"), *options])

    def findings(self) -> Mapping[str, tuple[str, str]]:
        """Return what each check says, verdict and text."""
        told = json.loads(self.run("--json").stdout)
        return {one["name"]: (one["verdict"], f"{one['detail']} {one['advice']}") for one in told["checks"]}


@pytest.fixture(scope="module")
def slm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base model."""
    return tiny_directory(tmp_path_factory.mktemp("slm"))


@pytest.fixture
def installed(tmp_path: Path, slm: Path, context: Context) -> Iterator[Installation]:
    """An agent that could be started: model, data, token, and a coordinator that knows it."""
    (tmp_path / "data.jsonl").write_text(ROWS)
    keep_key(tmp_path / "agent.key", key_of("ada"))
    with served(create_app(context)) as port:
        yield Installation(
            tmp_path,
            {
                "coordinator_url": f"http://127.0.0.1:{port}",
                **IDENTITY,
                "policy.allow_plaintext": True,
                "state_dir": "state",
                "slm": str(slm),
                "data.path": "data.jsonl",
                "device": "cpu",
                "status_port": 0,
            },
        )


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    """A coordinator on an empty folder."""
    with coordinator(tmp_path / "coordinator", time.time) as opened:
        yield opened


def begin_on(context: Context, slm: Path, terms: RunTerms) -> None:
    """Make, start, prepare and sign a run of the model that is installed."""
    context.lifecycle.create("run", terms, actor="operator")
    context.lifecycle.start("run", actor="operator")
    granted = lease(context)
    prepared = result_of(context, granted)
    assert isinstance(prepared, PrepareResult)
    own = prepared.slm.model_copy(update={"base_digest": base_model_digest(slm)})
    of_slm = {"slm": own, "tokenizer_digest": tokenizer_digest(load_tokenizer(slm))}
    context.work.complete(granted.job_id, granted.token, prepared.model_copy(update=of_slm), actor="worker")
    sign(context, "run")


def test_a_good_installation_is_well(installed: Installation):
    """Nothing failed, nothing was left out, and the exit code says so."""
    told = installed.run()
    assert told.exit_code == ExitCode.DONE, told.output
    assert "all is well" in told.output
    assert "left out" not in told.output


def test_a_run_for_another_model_is_told(installed: Installation, context: Context):
    """What the trainer would refuse is known before anything is trained."""
    begin(context)
    verdict, said = installed.findings()["run"]
    assert verdict == "failed"
    assert "the tokenizer of" in said
    assert "install the base model that the operator names" in said


@pytest.mark.parametrize("rule", ["allow_plaintext", "base_models"])
def test_a_run_that_this_agents_policy_refuses_is_told(installed: Installation, context: Context, rule: str):
    """By the name of the rule, before the agent has refused it anew each time that it is asked."""
    installed.settings[f"policy.{rule}"] = {"allow_plaintext": False, "base_models": []}[rule]
    begin(context)
    verdict, said = installed.findings()["run"]
    assert verdict == "failed"
    assert f"policy.{rule}" in said
    assert "tell the operator, or change [policy]" in said


@pytest.mark.parametrize(
    ("max_tokens", "verdict", "said"),
    [(128, "ok", "run: its base model; 3 examples"), (129, "failed", "takes 128: lower the run's max_tokens")],
)
def test_a_run_of_this_model_must_have_texts_that_it_takes(
    installed: Installation, context: Context, slm: Path, max_tokens: int, verdict: str, said: str
):
    """However short the examples are that are here: the trainer would refuse it too."""
    training = terms_of().training.model_copy(update={"max_tokens": max_tokens})
    begin_on(context, slm, terms_of(training=training))
    found = installed.findings()["run"]
    assert found[0] == verdict
    assert said in found[1]


@pytest.mark.parametrize(
    ("bent", "check", "said"),
    [
        ({"coordinator_url": "http://127.0.0.1:1"}, "connection", "is the coordinator running"),
        ({"coordinator_url": "http://nowhere.invalid"}, "host name", "nowhere.invalid has no address"),
        ({"coordinator_url": "http://nowhere.invalid"}, "encryption", "use https"),
        ({"slm": "/nowhere"}, "SLM", "/nowhere"),
        ({"data.path": "data.json"}, "data", "'data.jsonl' was meant?"),
        ({"data.columns.question": "stem"}, "data", "line 1 has no column 'stem'; there are: 'question'"),
        ({"device": "cuda:99"}, "device", "set the device to auto"),
        ({"identity_key_file": "agnt.key"}, "key file", "'agent.key' was meant?"),
        ({"state_dir": "data.jsonl"}, "state folder", "data.jsonl is no folder"),
        ({"ca_file": "ca.pem"}, "clock", "ca.pem cannot be used"),
        ({"divice": "cpu"}, "settings", "'device' was meant?"),
    ],
)
def test_a_fault_is_found_where_it_is(installed: Installation, bent: dict[str, object], check: str, said: str):
    """The check that fails is the one that looks at it."""
    installed.settings |= bent
    found = installed.findings()
    assert found[check][0] == "failed"
    assert said in found[check][1]


def test_what_needs_a_thing_that_failed_is_left_out(installed: Installation):
    """One cause is told once, and the exit code says that there is one."""
    installed.settings |= {"coordinator_url": "http://127.0.0.1:1", "slm": "/nowhere"}
    told = installed.run("--json")
    verdicts = {one["name"]: one["verdict"] for one in json.loads(told.stdout)["checks"]}
    assert told.exit_code == ExitCode.FAILED
    assert {name for name, verdict in verdicts.items() if verdict == "failed"} == {"SLM", "connection"}
    left_out = {name for name, verdict in verdicts.items() if verdict == "left out"}
    assert left_out == {"SLM weights", "data", "memory", "clock", "key accepted", "run"}


def test_an_agent_whose_key_is_not_accepted_is_told_what_to_do(installed: Installation, context: Context):
    """Another key than the operator approved; an agent that waits to be approved; one of another federation."""
    (installed.folder / "agent.key").unlink()
    keep_key(installed.folder / "agent.key", IdentityKey.generate())
    for changes, name, said in (
        ({}, "ada", "has the key been made anew?"),
        ({"name": "dora"}, "dora", "read this agent's check code to the operator"),
        ({"federation": "another"}, "ada", "compare federation with what the operator says"),
    ):
        if changes.get("name"):
            context.membership.enrol(enrolment(invited(context, name), read_key(installed.folder / "agent.key"), name))
        if changes.get("federation"):
            (installed.folder / "agent.key").unlink()
            keep_key(installed.folder / "agent.key", key_of(name))
        bent = Installation(installed.folder, installed.settings | changes)
        verdict, told = bent.findings()["key accepted"]
        assert (verdict, said in told) == ("failed", True), told


def test_a_key_that_others_can_read_is_a_warning(installed: Installation):
    """Nothing fails, and the command that mends it is said, beside what the operator knows the key by."""
    (installed.folder / "agent.key").chmod(0o644)
    verdict, said = installed.findings()["key file"]
    assert verdict == "warning"
    known = {"federation": FEDERATION, "operator_key": key_of("operator").public}
    assert check_code(name="ada", key=key_of("ada").public, **known) in said
    assert f"chmod 600 {installed.folder / 'agent.key'}" in said
    assert installed.run().exit_code == ExitCode.DONE


def test_weights_that_are_not_there_are_told(installed: Installation, slm: Path):
    """A folder with configuration and tokenizer alone."""
    bare = installed.folder / "bare"
    shutil.copytree(slm, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    installed.settings["slm"] = str(bare)
    verdict, said = installed.findings()["SLM weights"]
    assert verdict == "failed"
    assert "safetensors" in said


def test_a_model_that_does_not_fit_into_memory_is_told(installed: Installation, slm: Path):
    """By its configuration, before anything is loaded: here one of many terabytes."""
    shutil.copytree(slm, installed.folder / "huge")
    config = installed.folder / "huge" / "config.json"
    sizes = {"hidden_size": 1 << 18, "intermediate_size": 1 << 20}
    config.write_text(json.dumps(json.loads(config.read_text()) | sizes))
    installed.settings["slm"] = str(installed.folder / "huge")
    verdict, said = installed.findings()["memory"]
    assert verdict == "failed"
    assert "choose a smaller model" in said


def test_a_text_that_the_model_cannot_take_is_told(installed: Installation):
    """The tiny model takes 128 tokens."""
    (installed.folder / "data.jsonl").write_text(ROWS.replace("Why?", "why " * 100))
    verdict, said = installed.findings()["data"]
    assert verdict == "failed"
    assert "takes 128" in said


OWN = '{"question": "When?", "choices": ["x", "y"], "answer": "y"}\n' * 2


def test_examples_to_evaluate_on_are_looked_at_like_the_private_ones(installed: Installation):
    """Where there are any: they can be read, and none of them is trained on."""
    assert "evaluation data" not in installed.findings()
    installed.settings["evaluation.path"] = "own.jsonl"
    assert "own.jsonl" in installed.findings()["evaluation data"][1]
    (installed.folder / "own.jsonl").write_text(OWN)
    found = installed.findings()
    assert (found["evaluation data"][0], found["separate data"][0]) == ("ok", "ok")
    (installed.folder / "own.jsonl").write_text(OWN + ROWS)
    verdict, said = installed.findings()["separate data"]
    assert verdict == "warning"
    assert "1 example(s) are in both" in said
    installed.settings["holdout.path"] = "own.jsonl"  # may be those of the evaluation
    found = installed.findings()
    assert (found["hold-out"][0], found["separate hold-out"][0]) == ("ok", "warning")


@pytest.mark.parametrize(
    ("rows", "verdict", "said"),
    [
        ("", "failed", "run run has each agent evaluate on 2 examples of its own"),
        (OWN[: len(OWN) // 2], "failed", "own.jsonl has 1 that fit"),
        (OWN, "ok", "evaluates on 2 of 2 examples"),
    ],
)
def test_a_run_that_agents_evaluate_in_must_find_enough_to_evaluate_on(
    installed: Installation, context: Context, slm: Path, rows: str, verdict: str, said: str
):
    """What the trainer would refuse is known before: no examples, too few of them, or all is well."""
    cohort = CohortTerms(min_count=3, max_count=3, min_seconds=0, max_seconds=60)
    begin_on(context, slm, terms_of(aggregation="SecureAggregation", cohort=cohort, evaluation_examples=2))
    if rows:
        installed.settings["evaluation.path"] = "own.jsonl"
        (installed.folder / "own.jsonl").write_text(rows)
    found = installed.findings()["run"]
    assert found[0] == verdict, found
    assert said in found[1]


def test_a_completion_file_is_read_as_such(installed: Installation):
    """No run says yet which kind of task there will be: the columns do."""
    (installed.folder / "data.jsonl").write_text('{"prompt": "Say", "answer": "so"}\n')
    assert installed.findings()["data"][0] == "ok"


def test_an_audit_log_that_contradicted_itself_is_a_warning(installed: Installation, context: Context):
    """Long after it was told, and though everything else is well."""
    assert installed.findings()["audit log"][0] == "ok"
    head = context.audit.head()
    found = AuditContradiction(known=head, told=None, why="the audit log was cut")
    StateFolder(installed.folder / "state").audit.keep_contradiction(found)
    verdict, said = installed.findings()["audit log"]
    assert (verdict, said.startswith("the audit log was cut")) == ("warning", True)


def test_a_running_agent_is_no_fault(installed: Installation):
    """It holds its folder and its port, and both are its own."""
    (installed.folder / "state").mkdir()
    with owned(installed.folder / "state", "agent"), listen("127.0.0.1", 0) as page:
        installed.settings["status_port"] = page.getsockname()[1]
        found = installed.findings()
    assert found["agent"] == ("ok", "running, and using this folder ")
    assert found["status port"][0] == "ok"


def test_a_port_that_somebody_else_has_is_told(installed: Installation):
    """With the setting to change."""
    with listen("127.0.0.1", 0) as other:
        installed.settings["status_port"] = other.getsockname()[1]
        verdict, said = installed.findings()["status port"]
    assert verdict == "failed"
    assert "status_port" in said


def test_packages_that_are_looked_for_are_those_of_the_extra():
    """pyproject.toml says what an agent needs, and the doctor looks for just that."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert sorted(PACKAGES) == sorted(project["optional-dependencies"]["agent"])


def test_what_the_doctor_asks_is_in_the_ledger(installed: Installation):
    """It leaves this machine like anything else: request by request, and not a byte more."""
    url = str(installed.settings["coordinator_url"])
    with tapped(int(url.rsplit(":", 1)[1])) as tap:
        installed.settings["coordinator_url"] = tap.url
        assert installed.findings()["key accepted"][0] == "ok"
    entries = list(read(months(ledger_folder(installed.folder / "state"))))
    assert [(entry.method, entry.target, entry.head_bytes) for entry in entries] == [
        (request.method, request.target, request.head_bytes) for request in tap.requests()
    ]
    assert {entry.kind for entry in entries} == {"clock", "question"}
    assert sum(entry.head_bytes for entry in entries) == tap.bytes
