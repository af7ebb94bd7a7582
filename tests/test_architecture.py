import ast
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.key_file import keep_key
from shared.protocol.identity import IdentityKey
from tests.support.members import IDENTITY

ROOT = Path(__file__).parent.parent
ROOMS = ("services", "shared", "bench", "examples", "guides")
HEAVY = ("torch", "transformers", "peft", "accelerate", "tokenizers")
# Names that say nothing of what is inside.
NAMELESS = {"utils.py", "util.py", "helpers.py", "helper.py", "common.py", "misc.py", "base.py", "lib.py"}


def sources() -> Iterator[Path]:
    """Yield every module of the project but the tests."""
    for room in ROOMS:
        yield from (ROOT / room).rglob("*.py")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own."""
    return subprocess.run(  # noqa: S603 - our own modules
        [sys.executable, *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("services.coordinator.service", (*HEAVY, "services.client_agent", "services.coordinator.worker")),
        ("services.client_agent.service", (*HEAVY, "services.coordinator", "sqlalchemy")),
        ("shared.protocol.messages", (*HEAVY, "httpx", "fastapi", "sqlalchemy", "services")),
        ("shared.transport", (*HEAVY, "fastapi", "sqlalchemy", "services")),
    ],
)
def test_a_process_imports_only_what_it_needs(module: str, forbidden: tuple[str, ...]) -> None:
    """The coordinator and the agent's parent never import torch, and neither service imports the other."""
    answer = run("-c", f"import sys, {module}; print(*sorted(sys.modules))")
    assert answer.returncode == 0, answer.stderr
    loaded = set(answer.stdout.split())
    assert module in loaded
    assert not {name for name in loaded for other in forbidden if name == other or name.startswith(f"{other}.")}


def test_the_rooms_import_only_downwards() -> None:
    """The contracts of import-linter hold."""
    answer = run("-c", "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())")
    assert answer.returncode == 0, answer.stdout


def test_no_module_is_above_400_lines() -> None:
    """A module that does not fit on a few screens is two modules."""
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources()}
    assert len(lengths) > 50
    assert not {name: lines for name, lines in lengths.items() if lines > 400}


def test_no_module_has_a_name_that_says_nothing() -> None:
    """File names are the architecture."""
    assert not [path for path in sources() if path.name in NAMELESS]


def test_every_module_says_what_it_is_for() -> None:
    """Each begins with a docstring."""
    silent = [path for path in sources() if ast.get_docstring(ast.parse(path.read_text())) is None]
    assert not silent


FORBIDDEN = {
    "pickle": r"^\s*(import|from)\s+(pickle|cPickle|dill|joblib|cloudpickle|shelve|marshal)\b",
    "torch's own format": r"\btorch\.(save|load)\b|weights_only\s*=\s*False",
    "code from a model's folder": r"trust_remote_code\s*=\s*(?!False\b)",
    "numpy's pickles": r"allow_pickle\s*=\s*True|\bnp\.load\b",
    "code from text": r"^\s*(exec|eval)\(",
    "a shell": r"shell\s*=\s*True|\bos\.system\b",
    "yaml's objects": r"\byaml\.(load|unsafe_load)\(",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_nothing_that_runs_foreign_code_is_used(what: str) -> None:
    """No tensor, configuration or message can make this project run code that came with it."""
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sources()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(FORBIDDEN[what], line)
    ]
    assert not found


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody else uses."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_coordinator_on_a_port_in_use_says_so(taken: int, tmp_path: Path) -> None:
    """One clear line on standard error, exit code 2, no traceback."""
    tokens = tmp_path / "tokens.json"
    tokens.write_text("{}")
    for which in ("PORT", "WORK_PORT"):
        ports = {
            "FEDCOLLM_COORDINATOR_PORT": "0",
            "FEDCOLLM_COORDINATOR_WORK_PORT": "0",
            f"FEDCOLLM_COORDINATOR_{which}": str(taken),
        }
        answer = run(
            "-m",
            "services.coordinator",
            FEDCOLLM_COORDINATOR_DATA_DIR=str(tmp_path / "data"),
            FEDCOLLM_COORDINATOR_PRINCIPALS_FILE=str(tokens),
            FEDCOLLM_COORDINATOR_FEDERATION="clinics",
            FEDCOLLM_COORDINATOR_OPERATOR_KEY=IdentityKey.generate().public,
            **ports,
        )
        assert answer.returncode == 2
        assert answer.stderr.startswith(f"coordinator: cannot listen on 127.0.0.1:{taken}")
        assert "Traceback" not in answer.stderr
        assert len(answer.stderr.splitlines()) == 1


def identity(folder: Path) -> dict[str, str]:
    """Make an agent's key, and return what its settings say of who it is, for the environment."""
    keep_key(folder / "agent.key", IdentityKey.generate())
    settings = IDENTITY | {"identity_key_file": str(folder / "agent.key")}
    return {f"FEDCOLLM_AGENT_{name.upper()}": value for name, value in settings.items()}


def test_an_agent_on_a_port_in_use_says_so(taken: int, tmp_path: Path) -> None:
    """The agent's status page is no exception."""
    answer = run(
        "-m",
        "services.client_agent",
        FEDCOLLM_AGENT_COORDINATOR_URL="http://127.0.0.1:1",
        **identity(tmp_path),
        FEDCOLLM_AGENT_STATE_DIR=str(tmp_path / "state"),
        FEDCOLLM_AGENT_SLM="none",
        FEDCOLLM_AGENT_DATA__PATH=str(tmp_path / "data.jsonl"),
        FEDCOLLM_AGENT_STATUS_PORT=str(taken),
    )
    assert (answer.returncode, "Traceback" in answer.stderr) == (2, False)
    assert answer.stderr.startswith(f"agent: cannot listen on 127.0.0.1:{taken}")


@pytest.mark.parametrize(
    ("module", "setting", "environment"),
    [
        ("services.coordinator", "principals_file", {"FEDCOLLM_COORDINATOR_DATA_DIR": "x"}),
        ("services.client_agent", "coordinator_url", {"FEDCOLLM_AGENT_IDENTITY_KEY_FILE": "a-very-secret-token"}),
    ],
)
def test_a_setting_that_is_missing_is_named_and_no_secret_is(
    module: str, setting: str, environment: dict[str, str]
) -> None:
    """Exit code 2 with the setting's name; what the environment does hold is not repeated."""
    answer = run("-m", module, **environment)
    assert answer.returncode == 2
    assert setting in answer.stderr
    assert "a-very-secret-token" not in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize(
    ("url", "key", "named"),
    [
        ("http://ada:a-secret@here", None, "coordinator_url"),
        ("http://127.0.0.1:1", "a-secret\nkey", "agent.key holds no key"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_and_no_secret_is(
    url: str, key: str | None, named: str, tmp_path: Path
) -> None:
    """An agent that could never ask anybody ends at once, with exit code 2 and what is wrong."""
    settings = identity(tmp_path)
    if key is not None:
        (tmp_path / "agent.key").write_text(key)
    answer = run(
        "-m",
        "services.client_agent",
        FEDCOLLM_AGENT_COORDINATOR_URL=url,
        **settings,
        FEDCOLLM_AGENT_STATE_DIR=str(tmp_path / "state"),
        FEDCOLLM_AGENT_SLM="none",
        FEDCOLLM_AGENT_DATA__PATH=str(tmp_path / "data.jsonl"),
        FEDCOLLM_AGENT_STATUS_PORT="0",
    )
    assert answer.returncode == 2
    assert named in answer.stderr
    assert "a-secret" not in answer.stderr
    assert "Traceback" not in answer.stderr


def test_every_module_is_on_the_map() -> None:
    """docs/architecture.md names each file of services and shared, so that a newcomer finds it there."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    files = [*(ROOT / "services").rglob("*.py"), *(ROOT / "shared").rglob("*.py")]
    named = [path for path in files if not path.name.startswith("__") and "migrations" not in path.parts]
    assert named
    assert not [str(path.relative_to(ROOT)) for path in named if not re.search(rf"\b{path.name}\b", page)]
