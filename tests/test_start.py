"""What can never work is refused at start: exit code 2 and what to do, not the same failure every ten seconds."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROW = '{"question": "Why?", "choices": ["x", "y"], "answer": "x"}\n'


def start(module: str, folder: Path, settings: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Start a service with settings of which one is wrong; whatever is needed beside them is there."""
    (folder / "token").write_text("a-token-of-somebody")
    (folder / "data.jsonl").write_text(ROW)
    (folder / "bare").mkdir()
    (folder / "settings.toml").write_text("\n".join(f'{name} = "{value}"' for name, value in settings.items()))
    return subprocess.run(  # noqa: S603 - our own module
        [sys.executable, "-m", module, "--config", str(folder / "settings.toml")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


AGENT = {
    "token_file": "token",
    "state_dir": "state",
    "slm": "name/of-a-hub",
    "data.path": "data.jsonl",
    "status_port": "0",
}
WORKER = {"token_file": "token", "cache_dir": "cache", "auxiliary.path": "data.jsonl", "validation.path": "data.jsonl"}


@pytest.mark.parametrize(
    ("bent", "said"),
    [
        ({"slm": "/nowhere/slm"}, "slm: there is no folder /nowhere/slm"),
        ({"slm": "bare"}, "bare holds no config.json"),
        ({"slm": "examples/dmo"}, "slm: there is no folder examples/dmo: 'demo' was meant?"),
        ({"data.path": "data.json"}, "'data.jsonl' was meant?"),
        ({"device": "gpu"}, "device: a device is auto, cpu, cuda"),
        ({"token_file": "tokn"}, "'token' was meant?"),
        ({"ca_file": "data.jsonl"}, "holds no certificate"),
        ({"state_dir": "data.jsonl"}, "state_dir: "),
    ],
)
def test_an_agent_that_could_never_train_does_not_start(bent: dict[str, str], said: str, tmp_path: Path):
    """Nobody has to read its log at night."""
    ended = start("services.client_agent", tmp_path, {"coordinator_url": "http://127.0.0.1:1"} | AGENT | bent)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("bent", "said"),
    [
        ({"validation.path": "data.json"}, "validation.path: there is no 'data.json' in"),
        ({"device": "cuda:99"}, "cuda:99"),
        ({"cache_dir": "data.jsonl"}, "cache_dir: "),
    ],
)
def test_a_worker_that_could_never_work_does_not_start(bent: dict[str, str], said: str, tmp_path: Path):
    """Nor lease anything that it would have to give up."""
    ended = start("services.coordinator.worker", tmp_path, {"coordinator_url": "http://127.0.0.1:1"} | WORKER | bent)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
