"""What can never work is refused at start: exit code 2 and what to do, not the same failure every ten seconds."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from shared.key_file import keep_key
from shared.protocol.identity import IdentityKey
from tests.support.members import IDENTITY

KEY = IdentityKey.generate()
ROOT = Path(__file__).parents[1]
ROW = '{"question": "Why?", "choices": ["x", "y"], "answer": "x"}\n'


def start(module: str, folder: Path, settings: Mapping[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    """Start a service with settings of which one is wrong; whatever is needed beside them is there."""
    (folder / "token").write_text("a-token-of-somebody")
    keep_key(folder / "agent.key", KEY)
    (folder / "data.jsonl").write_text(ROW)
    (folder / "bare").mkdir(exist_ok=True)
    (folder / "settings.toml").write_text("\n".join(f'{name} = "{value}"' for name, value in settings.items()))
    return subprocess.run(  # noqa: S603 - our own module
        [sys.executable, "-m", *module.split(), "--config", str(folder / "settings.toml"), *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


AGENT = IDENTITY | {
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
        ({"identity_key_file": "agnt.key"}, "'agent.key' was meant?"),
        ({"operator_key": "ed25519:short"}, "operator_key: "),
        ({"ca_file": "data.jsonl"}, "holds no certificate"),
        ({"coordinator_url": "http://elsewhere.test"}, "use https"),
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
        ({"coordinator_url": "http://elsewhere.test"}, "use https"),
        ({"cache_dir": "data.jsonl"}, "cache_dir: "),
    ],
)
def test_a_worker_that_could_never_work_does_not_start(bent: dict[str, str], said: str, tmp_path: Path):
    """Nor lease anything that it would have to give up."""
    ended = start("services.coordinator.worker", tmp_path, {"coordinator_url": "http://127.0.0.1:1"} | WORKER | bent)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


OFF_LOOPBACK = {
    # Whose address nobody here has, so that the next thing to fail is to listen there.
    "services.coordinator.cli coordinator": (
        {
            "data_dir": "state",
            "principals_file": "principals.json",
            "federation": "clinics",
            "operator_key": IdentityKey.generate().public,
            "host": "192.0.2.1",
        },
        "host is 192.0.2.1, where other machines",
        "cannot listen on 192.0.2.1",
    ),
    "services.coordinator.cli worker": (
        WORKER | {"coordinator_url": "http://elsewhere.test", "ca_file": "data.jsonl"},
        "use https",
        "holds no certificate",
    ),
    "services.coordinator.cli runs list": (
        {"coordinator_url": "http://elsewhere.test", "token_file": "token", "ca_file": "data.jsonl"},
        "use https",
        "holds no certificate",
    ),
    "services.client_agent.cli run": (
        AGENT | {"coordinator_url": "http://elsewhere.test", "ca_file": "data.jsonl", "slm": "name/of-a-hub"},
        "use https",
        "holds no certificate",
    ),
}


@pytest.mark.parametrize("command", OFF_LOOPBACK)
def test_plain_http_off_this_machine_is_for_who_says_so(command: str, tmp_path: Path):
    """Each command refuses it, and goes on to the next fault with --insecure."""
    settings, refused, passed = OFF_LOOPBACK[command]
    ended = start(command, tmp_path, settings)
    assert ended.returncode == 2
    assert refused in ended.stderr
    assert "--insecure" in ended.stderr
    ended = start(command, tmp_path, settings, "--insecure")
    assert ended.returncode == 2
    assert passed in ended.stderr


def test_an_operator_names_the_ca_by_an_option_too(tmp_path: Path):
    """As the coordinator and the token's file; it is pinned like the one of the file."""
    settings = {"coordinator_url": "https://elsewhere.test", "token_file": "token"}
    ended = start("services.coordinator.cli runs list", tmp_path, settings, "--ca-file", str(tmp_path / "data.jsonl"))
    assert ended.returncode == 2
    assert "holds no certificate" in ended.stderr
