"""What both command lines promise before they do anything: help, speed, and nothing that is not installed."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from shared.cli.console import ExitCode

BOTH = {"fedcollm": "services.coordinator.cli", "fedcollm-agent": "services.client_agent.cli"}
HEAVY = ("torch", "transformers", "peft", "fastapi", "uvicorn", "sqlalchemy", "starlette")
MOST_SECONDS = 1.5


def command(name: str, *arguments: str, before: str = "", columns: int = 80) -> subprocess.CompletedProcess[str]:
    """Run a command line in a process of its own, with a line of Python before and after it."""
    program = f"import sys, atexit; {before}\nfrom {BOTH[name]}.__main__ import main; main()"
    return subprocess.run(  # noqa: S603 - our own programs
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "COLUMNS": str(columns)},
        capture_output=True,
        text=True,
        check=False,
    )


def seconds_of_children() -> float:
    """The processor's time that processes started here have taken: other processes do not count."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize("name", BOTH)
def test_help_fits_80_columns_and_says_what_to_do_first(name: str):
    """The first step, every exit code, and no line that is broken by the terminal."""
    answer = command(name, "--help")
    assert answer.returncode == ExitCode.DONE
    assert max(len(line) for line in answer.stdout.splitlines()) <= 80
    assert f"First: `{name} init`" in answer.stdout
    told = " ".join(answer.stdout.split())
    for code in ExitCode:
        assert f" {code.value} " in told


@pytest.mark.parametrize("name", BOTH)
def test_help_needs_neither_models_nor_services_and_is_fast(name: str):
    """So that it works, at once, on an operator's machine that has none of them."""
    loaded = "atexit.register(lambda: print(*sorted(sys.modules), file=sys.stderr))"
    before = seconds_of_children()
    answer = command(name, "--help", before=loaded)
    spent = seconds_of_children() - before
    assert "shared.cli.console" in answer.stderr.split()
    assert not [module for module in answer.stderr.split() if module.partition(".")[0] in HEAVY]
    assert spent < MOST_SECONDS


@pytest.mark.parametrize(
    ("name", "arguments", "module", "extra"),
    [
        ("fedcollm", ("coordinator",), "fastapi", "coordinator"),
        ("fedcollm", ("worker",), "torch", "worker"),
        ("fedcollm-agent", ("run",), "fastapi", "agent"),
    ],
)
def test_a_part_that_is_not_installed_is_named(name: str, arguments: tuple[str, ...], module: str, extra: str):
    """With the command that installs it, on one line, and exit code 2."""
    answer = command(name, *arguments, before=f"sys.modules[{module!r}] = None")
    assert answer.returncode == ExitCode.WRONG_USAGE
    [line] = answer.stderr.splitlines()
    assert f"pip install '.[{extra}]'" in line
    assert module in line


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("fedcollm", ("coordinator",)), ("fedcollm", ("worker",)), ("fedcollm-agent", ("run",))],
)
def test_a_service_says_what_its_configuration_lacks(name: str, arguments: tuple[str, ...]):
    """As `python -m` does: exit code 2 and the file's name, no traceback."""
    answer = command(name, *arguments, "--config", "nowhere.toml")
    assert answer.returncode == ExitCode.WRONG_USAGE
    assert "nowhere.toml" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize(
    ("name", "service", "file"),
    [
        ("fedcollm", "coordinator", "coordinator.toml"),
        ("fedcollm", "worker", "worker.toml"),
        ("fedcollm-agent", "run", "agent.toml"),
    ],
)
def test_a_service_takes_the_settings_that_lie_in_its_folder(
    name: str, service: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Where no file is named, the one that `init` writes; what is wrong in it is told by its name."""
    monkeypatch.chdir(tmp_path)
    assert file not in command(name, service).stderr
    (tmp_path / file).write_text("nothing = 1")
    answer = command(name, service)
    assert answer.returncode == ExitCode.WRONG_USAGE
    assert file in answer.stderr
    assert "nothing is no setting" in answer.stderr


@pytest.mark.parametrize("name", BOTH)
def test_wrong_usage_is_exit_code_2_and_json_where_that_was_asked_for(name: str):
    """Also when it is the arguments that are wrong."""
    text, document = command(name, "nothing"), command(name, "nothing", "--json")
    assert text.returncode == document.returncode == ExitCode.WRONG_USAGE
    assert "No such command" in text.stderr
    assert document.stderr.startswith('{"code": "usage", "detail": "No such command')
