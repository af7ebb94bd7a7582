"""`fedcollm-agent`: what the agent on this machine does and holds."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner, Result

from bench.federation import ManualClock
from services.client_agent.cli.adapters import Held
from services.client_agent.cli.app import app
from services.client_agent.state import StateFolder
from services.client_agent.status import Phase, Status, StatusView
from services.client_agent.status_page import create_status_page
from shared.adapter_folder import CONFIG, WEIGHTS
from shared.cli.console import ExitCode
from shared.errors import Unreachable
from shared.ml.adapters import adapter_config, adapter_tensors
from shared.protocol.digests import digest_of
from shared.protocol.messages import PublishedAdapter, Wanted
from tests.support.agents import ADA, declining
from tests.support.members import IDENTITY
from tests.support.served import served
from tests.support.tiny_models import tiny_directory, tiny_lora


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An agent's own folder, with an SLM in it."""
    tiny_directory(tmp_path / "slm")
    return tmp_path


def configured(folder: Path, *, status_port: int = 1) -> tuple[str, str]:
    """The option that names the agent's settings."""
    identity = "".join(f"{name} = {json.dumps(value)}\n" for name, value in IDENTITY.items())
    (folder / "agent.toml").write_text(
        f'{identity}coordinator_url = "http://127.0.0.1:1"\nstate_dir = "state"\nslm = "slm"\n'
        f'status_port = {status_port}\n[data]\npath = "data.jsonl"\n'
    )
    return ("--config", str(folder / "agent.toml"))


def agent(*arguments: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(app, arguments)


def hold_an_adapter(folder: Path) -> str:
    """Let the agent hold an adapter that changes what its SLM says; return the digest."""
    model = tiny_lora(spread=0.5)
    save_file(adapter_tensors(model), folder / "blob")
    blob = (folder / "blob").read_bytes()
    state = StateFolder(folder / "state")
    published = PublishedAdapter(run_id="demo", round=3, digest=digest_of(blob))
    state.adapter(published.digest).write_bytes(blob)
    state.keep_published(published, adapter_config(model, base_model="elsewhere"), {})
    return published.digest


# --- status -------------------------------------------------------------------------------------------------------


def test_the_status_is_what_the_status_page_says(folder: Path):
    """Phase, round, step, bytes; with --json the page's own document."""
    status = Status()
    status.enter(Phase.TRAINING, run_id="demo", round_number=2)
    status.advance(3, 40, 1.25)
    status.received_bytes = 2_000_000
    with served(create_status_page(status, ADA)) as port:
        option = configured(folder, status_port=port)
        text, document = agent("status", *option), agent("status", *option, "--json")
    assert text.exit_code == document.exit_code == ExitCode.DONE
    assert "training, round 2 of run demo, step 3 of 40, loss 1.250" in text.stdout
    assert "2.00 MB" in text.stdout
    assert f"page      http://127.0.0.1:{port}" in text.stdout
    assert StatusView.model_validate_json(document.stdout) == status.view()


def test_the_status_says_since_when_something_is_wrong_and_what_was_heard_last(folder: Path):
    """And that another process has the agent's key, where the coordinator has said so."""
    status = Status(clock=ManualClock())
    status.hear(Wanted(assignment=None, published=None, second_at=1_700_000_000.0))
    status.retrying(None)
    status.retrying(Unreachable("nobody answers"))
    with served(create_status_page(status, ADA)) as port:
        text = agent("status", *configured(folder, status_port=port))
    assert "heard     2023-11-14 22:13:20 UTC: nothing is wanted of it\n" in text.stdout
    assert "trouble   since 2023-11-14 22:13:20 UTC: unreachable: nobody answers\n" in text.stdout
    assert "warning   another process with this agent's key was refused, 2023-11-14 22:13:20 UTC\n" in text.stdout


def test_the_status_says_which_runs_are_declined_and_why(folder: Path):
    """In the lines and in the document, the newest refusal first; what it has worked for last is another thing."""
    status = declining(folder / "state")
    with served(create_status_page(status, ADA)) as port:
        option = configured(folder, status_port=port)
        text, document = agent("status", *option), agent("status", *option, "--json")
    said = "run third, 2026-11-25 12:00:00 UTC: policy_refused: policy.smallest_cohort is 5, and run third has sums"
    assert f"declined  {said}" in text.stdout
    assert "doing     waiting\nworked    last for round 60 of run clinics\n" in text.stdout
    assert [run["run_id"] for run in json.loads(document.stdout)["declined"]] == ["third", "other-model"]


def test_the_settings_of_this_folder_are_the_agents(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Where no file is named, agent.toml is meant: in its folder nothing has to be said at all."""
    monkeypatch.chdir(folder)
    assert "status_port" not in agent("status").stderr
    assert "name their file with --config, or go to its folder" in agent("status").stderr
    with served(create_status_page(Status(), ADA)) as port:
        configured(folder, status_port=port)
        assert agent("status").exit_code == ExitCode.DONE
    StateFolder(folder / "state")
    assert agent("adapters", "list").exit_code == ExitCode.DONE
    assert "agent.toml" in agent("doctor").stdout


@pytest.mark.parametrize(
    ("host", "served_to"),
    [
        ("127.0.0.1:8450", True),
        ("localhost", True),
        ("agent-1:8450", True),
        ("[::1]:8450", True),
        ("192.0.2.7", True),
        (f"{socket.gethostname().upper()}:8450", True),
        ("evil.example", False),
        ("127.0.0.1.evil.example:8450", False),
        ("localhost.:8450", False),
    ],
)
def test_no_page_of_the_web_can_read_the_status_page(host: str, served_to: bool):  # noqa: FBT001 - the table's column
    """A name of somebody else's that leads here is refused, whatever is asked for: browsers would hand it all over."""
    with served(create_status_page(Status(), ADA)) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as http:
        for path in ("/", "/status.json", "/policy", "/ledger", "/ledger.json", "/style.css", "/refresh.js"):
            assert http.get(path, headers={"Host": host}).is_success is served_to


def test_another_agent_at_the_port_is_not_taken_for_this_one(folder: Path):
    """Two federations on one machine begin with the same port."""
    with served(create_status_page(Status(folder / "of-another"), ADA)) as port:
        result = agent("status", *configured(folder, status_port=port))
    assert result.exit_code == ExitCode.WRONG_USAGE
    assert "another agent answers, whose state folder is" in result.stderr
    with served(create_status_page(Status((folder / "state").absolute()), ADA)) as port:
        assert agent("status", *configured(folder, status_port=port)).exit_code == ExitCode.DONE


def test_an_agent_that_has_failed_is_told_by_the_exit_code(folder: Path):
    """And by its error."""
    status = Status()
    status.fail("data_empty", "there is no example")
    with served(create_status_page(status, ADA)) as port:
        result = agent("status", *configured(folder, status_port=port))
    assert result.exit_code == ExitCode.FAILED
    assert "data_empty: there is no example" in result.stdout


def test_an_agent_that_does_not_run_is_said_not_to(folder: Path):
    """Exit code 3, with what to look at."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    result = agent("status", *configured(folder, status_port=port), "--json")
    assert result.exit_code == ExitCode.UNREACHABLE
    problem = json.loads(result.stderr)
    assert problem["code"] == "unreachable"
    assert f"127.0.0.1:{port}" in problem["detail"]
    assert "fedcollm-agent run" in problem["detail"]


# --- adapters -----------------------------------------------------------------------------------------------------


def test_the_adapter_that_is_held_is_listed_and_exported(folder: Path):
    """A PEFT directory with the weights that were published, and nothing else."""
    digest = hold_an_adapter(folder)
    option = configured(folder)
    assert digest in agent("adapters", "list", *option).stdout
    held = Held.model_validate_json(agent("adapters", "list", *option, "--json").stdout)
    assert [each.digest for each in held.adapters] == [digest]

    result = agent("adapters", "export", "--out", str(folder / "out"), *option)
    assert result.exit_code == ExitCode.DONE, result.output
    assert digest_of((folder / "out" / WEIGHTS).read_bytes()) == digest
    assert sorted(path.name for path in (folder / "out").iterdir()) == sorted([WEIGHTS, CONFIG])


def test_the_adapter_is_exported_in_one_model_with_the_agents_slm(folder: Path):
    """Which answers as the SLM with the adapter does, and brings its tokenizer; no library has a say in the output."""
    hold_an_adapter(folder)
    out = folder / "merged"
    module = ("-m", "services.client_agent.cli")
    arguments = ("adapters", "export", "--merged", "--out", str(out), *configured(folder), "--json")
    result = subprocess.run([sys.executable, *module, *arguments], capture_output=True, text=True, check=False)  # noqa: S603
    assert (result.returncode, result.stderr) == (ExitCode.DONE, "")
    assert json.loads(result.stdout)["merged_with"] == str(folder / "slm")

    ids = torch.tensor([AutoTokenizer.from_pretrained(out)("a red b")["input_ids"]])
    merged = AutoModelForCausalLM.from_pretrained(out)(input_ids=ids).logits
    torch.testing.assert_close(merged, tiny_lora(spread=0.5)(input_ids=ids).logits)
    assert not (out / "adapter").exists()


def test_an_agent_that_holds_nothing_says_so(folder: Path):
    """No folder is made for it, and none is written."""
    option = configured(folder)
    result = agent("adapters", "list", *option)
    assert result.exit_code == ExitCode.WRONG_USAGE
    assert "state_dir: there is no 'state' in" in result.stderr
    assert not (folder / "state").exists()

    StateFolder(folder / "state")
    assert agent("adapters", "list", *option, "--json").stdout == '{"adapters":[]}\n'
    result = agent("adapters", "export", "--out", str(folder / "out"), *option)
    assert result.exit_code == ExitCode.FAILED
    assert "holds no adapter yet" in result.stderr
    assert not (folder / "out").exists()


def test_an_adapter_whose_file_is_damaged_is_not_exported(folder: Path):
    """The digest of what was published decides."""
    hold_an_adapter(folder)
    weights = folder / "state" / "slm-adapter" / WEIGHTS
    tensors = load_file(weights)
    weights.unlink()
    save_file({name: values + 1 for name, values in tensors.items()}, weights)
    result = agent("adapters", "export", "--out", str(folder / "out"), *configured(folder))
    assert result.exit_code == ExitCode.FAILED
    assert "damaged" in result.stderr
    assert not (folder / "out").exists()
