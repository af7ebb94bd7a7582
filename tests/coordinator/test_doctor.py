"""`fedcollm doctor`: coordinator, worker and terms, each fault with what to do about it."""

import json
import shutil
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from bench.federation import FEDERATION, ManualClock, key_of, token_of
from services.coordinator.app import create_app, create_work_app
from services.coordinator.cli.app import app
from services.coordinator.cli.doctor import COORDINATOR_PACKAGES, WORKER_PACKAGES
from services.coordinator.context import Context
from services.coordinator.principals import Role
from services.coordinator.tokens import TokenEntry
from services.coordinator.worker.model_pair import ModelPair
from shared.cli.commented_toml import commented_toml
from shared.cli.console import ExitCode
from shared.data.source import DataSource
from shared.errors import ContextTooShort
from shared.listening import listen
from shared.protocol.identity import fingerprint
from shared.protocol.terms import RunTerms
from tests.support.federations import coordinator, terms_of
from tests.support.members import pending
from tests.support.served import operated, served
from tests.support.tiny_models import tiny_directory, wrapped
from tests.support.tls import certificates

ROW = '{{"question": "Why {0}?", "choices": ["x", "y"], "answer": "x"}}\n'


@dataclass
class Installation:
    """The files of a coordinator, a worker and a run, which a test may bend."""

    folder: Path
    files: dict[str, dict[str, object]]
    terms: dict[str, object] = field(default_factory=dict)

    def run(self, *options: str) -> Result:
        """Write the files, and call the doctor."""
        for name, settings in self.files.items():
            lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]  # JSON's values are TOML's
            (self.folder / f"{name}.toml").write_text("\n".join(lines))
        if self.terms:
            values = terms_of(**self.terms).model_dump(exclude_none=True)
            (self.folder / "run.toml").write_text(commented_toml(RunTerms, values, head="terms"))
        return CliRunner().invoke(app, ["doctor", "--config-dir", str(self.folder), *options])

    def findings(self) -> Mapping[str, tuple[str, str]]:
        """Return what each check says, verdict and text."""
        told = json.loads(self.run("--json").stdout)
        return {one["name"]: (one["verdict"], f"{one['detail']} {one['advice']}") for one in told["checks"]}


def entry_of(name: str, role: str) -> dict[str, Any]:
    """Return what the principals file has of somebody."""
    kept = TokenEntry.of(token_of(name), Role(role), not_after=datetime.now(UTC) + timedelta(days=365))
    return kept.model_dump(mode="json")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair of tiny models with one tokenizer."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("llm", "slm")):
        tiny_directory(folder / name, seed=seed)
    return folder


@pytest.fixture
def installed(tmp_path: Path, models: Path) -> Installation:
    """What `fedcollm init` would have written, on a machine where nothing runs yet."""
    principals = {role: entry_of(role, role) for role in ("operator", "worker")}
    for name, content in (("principals.json", json.dumps(principals)), ("token", token_of("worker"))):
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_text(content)
    (tmp_path / "auxiliary.jsonl").write_text(ROW.format(1) + ROW.format(2))
    (tmp_path / "validation.jsonl").write_text(ROW.format(3))
    return Installation(
        tmp_path,
        {
            "coordinator": {
                "data_dir": "data",
                "principals_file": "principals.json",
                "federation": FEDERATION,
                "operator_key": key_of("operator").public,
                "port": 0,
                "work_port": 0,
            },
            "worker": {
                "coordinator_url": "http://127.0.0.1:1",
                "token_file": "token",
                "cache_dir": "cache",
                "device": "cpu",
                "auxiliary.path": "auxiliary.jsonl",
                "validation.path": "validation.jsonl",
            },
        },
        {"llm": str(models / "llm"), "slm": str(models / "slm")},
    )


def test_a_good_installation_is_well_before_anything_runs(installed: Installation):
    """What can only be asked of a coordinator that runs is left out, and everything else is well."""
    told = installed.run()
    assert told.exit_code == ExitCode.DONE, told.output
    assert "all is well" in told.output
    verdicts = {name: verdict for name, (verdict, _) in installed.findings().items()}
    assert {name for name, verdict in verdicts.items() if verdict != "ok"} == {"work API"}


def test_looking_changes_nothing(installed: Installation, tmp_path: Path):
    """A folder that is not there yet is for the process that will own it; one that is there keeps models' digests."""
    installed.run()
    before = sorted(tmp_path.rglob("*"))
    installed.run()
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "cache").mkdir()
    installed.run()
    assert sorted({*tmp_path.rglob("*")} - {*before}) == [tmp_path / "cache", tmp_path / "cache" / "digests.json"]


def test_a_worker_is_told_whether_the_coordinator_takes_its_token(
    installed: Installation, tmp_path: Path, clock: ManualClock
):
    """The coordinator runs, and its folder shows it; asking leases no work."""
    installed.terms.clear()
    with coordinator(tmp_path / "data", clock) as context, served(create_work_app(context)) as port:
        installed.files["worker"]["coordinator_url"] = f"http://127.0.0.1:{port}"
        good = installed.findings()
        (tmp_path / "token").write_text(token_of("operator"))
        bad = installed.findings()
    assert good["token accepted"] == ("ok", "as a worker's ")
    assert good["coordinator process"][1].startswith("running")
    assert bad["token accepted"][0] == "failed"
    assert "token of the right role" in bad["token accepted"][1]


def test_a_worker_at_the_agents_port_is_told(installed: Installation, tmp_path: Path, clock: ManualClock):
    """Nothing there knows its request, whatever its token is worth."""
    installed.terms.clear()
    with coordinator(tmp_path / "data", clock) as context, served(create_app(context)) as port:
        installed.files["worker"]["coordinator_url"] = f"http://127.0.0.1:{port}"
        verdict, said = installed.findings()["token accepted"]
    assert verdict == "failed"
    assert "is it the right port?" in said


@pytest.mark.parametrize(
    ("process", "bent", "check", "said"),
    [
        ("coordinator", {"principals_file": "nobody.json"}, "principals file", "there is no 'nobody.json' in"),
        ("coordinator", {"data_dir": "token"}, "data folder", "token is no folder"),
        ("coordinator", {"prot": 1}, "coordinator", "'port' was meant?"),
        ("worker", {"auxiliary.path": "auxilary.jsonl"}, "auxiliary set", "'auxiliary.jsonl' was meant?"),
        ("worker", {"token_file": "tokn"}, "token file", "'token' was meant?"),
        ("worker", {"device": "cuda:99"}, "device", "set the device to auto"),
    ],
)
def test_a_fault_is_found_where_it_is(
    installed: Installation, process: str, bent: dict[str, object], check: str, said: str
):
    """The check that fails is the one that looks at it."""
    installed.files[process] |= bent
    found = installed.findings()
    assert found[check][0] == "failed"
    assert said in found[check][1]


def test_a_port_that_somebody_else_has_is_told(installed: Installation):
    """With the setting to change."""
    with listen("127.0.0.1", 0) as other:
        installed.files["coordinator"]["work_port"] = other.getsockname()[1]
        verdict, said = installed.findings()["work port"]
    assert verdict == "failed"
    assert "work_port" in said


@pytest.mark.parametrize(("process", "setting"), [("worker", "work_port"), ("operator", "port")])
def test_an_address_here_that_is_not_the_coordinators_is_told(installed: Installation, process: str, setting: str):
    """A port that was changed in one file is changed in the others too, or somebody else is asked."""
    installed.terms.clear()
    with listen("127.0.0.1", 0) as free:
        number = free.getsockname()[1]
    installed.files["coordinator"][setting] = number
    installed.files.setdefault(process, {"token_file": "token"})["coordinator_url"] = f"http://127.0.0.1:{number}"
    assert installed.findings()[f"{process}'s address"][0] == "ok"
    installed.files[process]["coordinator_url"] = "http://localhost:1"
    verdict, said = installed.findings()[f"{process}'s address"]
    assert verdict == "failed"
    assert f"the coordinator's {setting} is {number}" in said
    installed.files[process]["coordinator_url"] = f"https://127.0.0.1:{number}"
    verdict, said = installed.findings()[f"{process}'s address"]
    assert verdict == "failed"
    assert "where the coordinator speaks http " in said
    installed.files[process]["coordinator_url"] = "https://elsewhere:1"
    assert installed.findings()[f"{process}'s address"][0] == "ok"


@pytest.mark.parametrize(
    ("days", "mode", "verdict", "advice"),
    [
        (365, 0o600, "ok", ""),
        (365, 0o644, "warning", "chmod 600"),
        (29, 0o600, "warning", "fedcollm tls issue"),
        (-1, 0o600, "failed", "fedcollm tls issue"),
    ],
)
def test_a_certificate_is_looked_at_before_it_runs_out(
    installed: Installation, days: int, mode: int, verdict: str, advice: str
):
    """A month before, so that it can be renewed in time; and whether others can read its key."""
    installed.terms.clear()
    made = certificates(installed.folder, days=days)
    made.key.chmod(mode)
    installed.files["coordinator"] |= {"tls_certificate_file": "server.pem", "tls_key_file": "server.key"}
    found, said = installed.findings()["coordinator's certificate"]
    assert found == verdict
    assert "for 127.0.0.1, until 20" in said
    assert advice in said
    made.key.write_text("")
    found, said = installed.findings()["coordinator's certificate"]
    assert found == "failed"
    assert "cannot be used together" in said


def test_a_pair_without_a_common_tokenizer_is_told(installed: Installation, models: Path, tmp_path: Path):
    """Before a worker prepares the run."""
    from tokenizers import models as algorithms  # noqa: PLC0415

    shutil.copytree(models / "llm", tmp_path / "other")
    wrapped(algorithms.BPE(vocab={"a": 0, "b": 1}, merges=[])).save_pretrained(tmp_path / "other")
    installed.terms["llm"] = str(tmp_path / "other")
    verdict, said = installed.findings()["tokenizer"]
    assert verdict == "failed"
    assert "choose a pair of one family" in said


@pytest.mark.parametrize("short", ["LLM", "SLM"])
def test_texts_that_a_model_cannot_take_are_told_as_the_worker_would(
    installed: Installation, models: Path, tmp_path: Path, short: str
):
    """However short the examples are: another agent's may be as long as the run allows."""
    shutil.copytree(models / short.lower(), tmp_path / "short")
    config = tmp_path / "short" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 32}))
    installed.terms[short.lower()] = str(tmp_path / "short")
    found = installed.findings()
    assert {name for name, (verdict, _) in found.items() if verdict == "failed"} == {f"{short} context"}
    source = DataSource(path=tmp_path / "auxiliary.jsonl")
    worker = ModelPair(
        auxiliary=source, validation=source, device="cpu", dtype="float32", digest_cache=tmp_path / "digests"
    )
    into = {"slm_into": tmp_path / "theta", "llm_into": tmp_path / "omega"}
    with pytest.raises(ContextTooShort) as refused:
        worker.prepare(terms_of(**installed.terms), **into, require_lease=lambda: None)
    assert found[f"{short} context"][1].strip() == str(refused.value)


def test_an_example_that_is_learnt_and_measured_is_a_warning(installed: Installation, tmp_path: Path):
    """Accuracy would be better than it is."""
    (tmp_path / "validation.jsonl").write_text(ROW.format(2) + ROW.format(3))
    verdict, said = installed.findings()["separate sets"]
    assert verdict == "warning"
    assert said.startswith("1 example(s) are in both")


@pytest.mark.parametrize(
    ("counts", "verdict", "said"),
    [
        ((4, 4), "warning", "dora waiting to be approved let more agents in"),
        ((1, 4), "warning", "lower cohort.max_count to 3"),
        ((1, 3), "ok", "of 3 agents"),
    ],
)
def test_a_cohort_is_compared_with_the_members_that_there_are(
    installed: Installation, counts: tuple[int, int], verdict: str, said: str, context: Context
):
    """Three agents are members, and a fourth has enrolled; without a coordinator nobody can say."""
    cohort = {"min_count": counts[0], "max_count": counts[1], "min_seconds": 1, "max_seconds": 2}
    installed.terms["cohort"] = cohort
    pending(context, "dora")
    with operated(context, installed.folder):
        found = installed.findings()["cohort"]
    assert found[0] == verdict
    assert said in found[1]
    assert installed.findings()["cohort"][0] == "left out"


def test_an_operator_with_a_machine_of_its_own_learns_whether_the_way_is_free(
    installed: Installation, context: Context
):
    """Where neither coordinator nor worker are, operator.toml is all that says where they can be reached."""
    installed.files.clear()
    installed.terms.clear()
    with operated(context, installed.folder):
        good = installed.findings()
        (installed.folder / "token").write_text(token_of("worker"))
        verdict, said = installed.findings()["operator's token accepted"]
    assert good["operator's token accepted"] == ("ok", "as an operator's, by whom 3 agents were invited ")
    assert good["connection"][0] == good["clock"][0] == "ok"
    assert (verdict, "token of the right role" in said) == ("failed", True)
    assert installed.findings()["connection"][0] == "failed"


def test_an_operators_key_is_the_one_that_the_coordinator_knows(installed: Installation, context: Context):
    """By its fingerprint; another key, or another federation, is told."""
    with operated(context, installed.folder):
        good = installed.findings()["operator's key"]
        installed.files["coordinator"]["federation"] = "another"
        bad = installed.findings()["operator's key"]
    assert (good[0], fingerprint(key_of("operator").public) in good[1]) == ("ok", True)
    assert (bad[0], "coordinator.toml is of another" in bad[1]) == ("failed", True)


def test_somebody_without_a_token_is_a_warning(installed: Installation, tmp_path: Path):
    """A federation of nobody but a worker."""
    (tmp_path / "principals.json").write_text(json.dumps({"w": entry_of("worker", "worker")}))
    verdict, said = installed.findings()["principals file"]
    assert verdict == "warning"
    assert "no operator" in said


def test_a_token_that_ends_soon_is_a_warning(installed: Installation, tmp_path: Path):
    """Whose it is, and the command that makes another; before requests are refused for it."""
    file = tmp_path / "principals.json"
    entries = json.loads(file.read_text())
    entries["worker"]["not_after"] = (datetime.now(UTC) + timedelta(days=29)).isoformat()
    file.write_text(json.dumps(entries))
    verdict, said = installed.findings()["principals file"]
    assert verdict == "warning"
    assert "within 30 days the tokens of worker end" in said
    assert "fedcollm tokens issue" in said


def test_terms_that_cannot_be_used_are_told(installed: Installation, tmp_path: Path):
    """With the setting that is wrong."""
    installed.terms.clear()
    (tmp_path / "run.toml").write_text('llm = "x"\nround = 1\n')
    verdict, said = installed.findings()["run"]
    assert verdict == "failed"
    assert "round is no setting: 'rounds' was meant?" in said


def test_a_folder_with_nothing_to_check_is_told(tmp_path: Path):
    """Exit code 2, and how to make one."""
    told = CliRunner().invoke(app, ["doctor", "--config-dir", str(tmp_path)])
    assert told.exit_code == ExitCode.WRONG_USAGE
    assert "fedcollm init" in told.stderr


def test_one_file_is_checked_alone(installed: Installation, tmp_path: Path):
    """As in a container that holds one process."""
    installed.run()
    elsewhere = ["--config-dir", str(tmp_path / "nothing"), "--coordinator", str(tmp_path / "coordinator.toml")]
    told = CliRunner().invoke(app, ["doctor", *elsewhere, "--json"])
    names = [one["name"] for one in json.loads(told.stdout)["checks"]]
    assert names[:2] == ["coordinator", "coordinator packages"]
    assert "worker" not in names


def test_packages_that_are_looked_for_are_those_of_the_extras():
    """pyproject.toml says what each process needs, and the doctor looks for just that."""
    extras = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert sorted(COORDINATOR_PACKAGES) == sorted(extras["coordinator"])
    assert sorted(WORKER_PACKAGES) == sorted(extras["worker"])
