"""Every command of README and docs/ is run: in a folder like a user's, or by what is named for it here."""

import csv
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from examples.demo.processes import free_ports
from tests.support.documents import DOCUMENTS, ROOT, commands
from tests.support.tiny_models import tiny_directory

# Documents whose commands are a session in one folder, from the first to the last, in this order.
SESSIONS = (
    "quickstart.md",
    "cli.md",
    "operating.md",
    "deployment.md",
    "monitoring.md",
    "organisation.md",
    "data-protection.md",
    "results.md",
)
SERVICES = ("fedcollm coordinator", "fedcollm worker", "fedcollm-agent run")
# How commands begin that a test cannot do inside a test, and what does them: a file, and what it says of them.
ELSEWHERE = {
    "make install": ("Makefile", "install:"),
    ". .venv/bin/activate": ("Makefile", "-m venv .venv"),
    "make check": (".ci/run", "make check"),
    "make test": (".ci/run", "make test"),
    "make demo": ("tests/examples/test_demo_run.py", "examples.demo"),
    "python -m bench.derive_slm ": ("tests/bench/test_derive_slm.py", "derive_slm.main()"),
    "python -m bench.paper ": ("tests/bench/test_paper_command.py", "__main__.main()"),
    "fedcollm restore backups/": ("tests/coordinator/test_cli_backup.py", 'said("restore", "backups/monday")'),
    "python -m bench.compare_derived ": ("tests/bench/test_compare_derived.py", "compare_derived.main()"),
}
# Documents all of whose commands another test runs.
TESTED_APART = {"docker.md": "tests/docker/test_compose_up.py"}


@dataclass
class Terminal:
    """Where a user types: a folder, and the services that run in other windows."""

    folder: Path
    path: str
    ports: Sequence[int] = field(default_factory=lambda: free_ports(5))
    services: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def type(self, command: str) -> None:
        """Run a command to its end; a service goes on, and takes the place of the same one before it."""
        command = self.on_free_ports(command)
        if command.startswith("cd "):
            self.folder = self.folder / command.removeprefix("cd ")
        elif command.startswith(SERVICES):
            self.stop(command)
            log = self.folder / f"{len(list(self.folder.glob('*.log')))}.log"
            with log.open("wb") as output:
                self.services[command] = subprocess.Popen(  # noqa: S603 - our own documents
                    ["bash", "-c", f"exec {command}"],  # noqa: S607
                    cwd=self.folder,
                    env=self.environment,
                    stdout=output,
                    stderr=output,
                )
        else:
            done = subprocess.run(  # noqa: S603
                ["bash", "-ec", command],  # noqa: S607
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            logs = "".join(path.read_text(errors="replace")[-2000:] for path in sorted(self.folder.glob("*.log")))
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}\n{logs}"

    def on_free_ports(self, command: str) -> str:
        """Return a command with ports that nobody uses in place of the documents' own, which others here may use."""
        public, work, first_page, second_page, third_page = self.ports
        for shown, free in (("8440", public), ("8451", second_page), ("8452", third_page)):
            command = command.replace(shown, str(free))
        if command.startswith("fedcollm init"):
            command += f" --port {public} --work-port {work}"
        if command.startswith("fedcollm-agent init") and "--status-port" not in command:
            command += f" --status-port {first_page}"
        return command

    @property
    def environment(self) -> dict[str, str]:
        """What a shell has in which the installation has been activated."""
        return {**os.environ, "PATH": self.path, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}

    def stop(self, command: str) -> None:
        """Stop a service."""
        if (running := self.services.pop(command, None)) is not None:
            running.terminate()
            running.wait(timeout=30)


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """A folder with what the quickstart asks its reader for, and the commands that an installation has."""
    folder = tmp_path_factory.mktemp("user")
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    (folder / "bin").mkdir()
    for name, target in scripts.items():
        module, function = target.split(":")
        script = folder / "bin" / name
        script.write_text(f"#!{sys.executable}\nfrom {module} import {function}\n{function}()\n")
        script.chmod(0o755)
    write_what_a_user_has(folder / "federation")
    terminal = Terminal(folder, f"{folder / 'bin'}:{os.environ['PATH']}")
    try:
        yield terminal
    finally:
        for command in list(terminal.services):
            terminal.stop(command)


def write_what_a_user_has(folder: Path) -> None:
    """Two models that share a tokenizer, and CSV files as a spreadsheet saves them."""
    for seed, name in enumerate(("llm", "slm")):
        tiny_directory(folder / "models" / name, seed=seed)
    (folder / "data").mkdir()
    colours = ["red", "tan", "blue"]
    for start, name in enumerate(("ada", "bob", "cleo", "auxiliary", "validation")):
        with (folder / "data" / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["question", "A", "B", "C", "answer"])
            for number in range(12):
                writer.writerow([f"{100 * start + number} is", *colours, "ABC"[number % 3]])


@pytest.mark.timeout(600)
def test_the_documents_sessions_run_to_their_ends(terminal: Terminal):
    """Quickstart first, and in the federation that it made what the other documents say."""
    for name in SESSIONS:
        for command in commands(name):
            if not command.startswith(tuple(ELSEWHERE)):
                terminal.type(command)
    logs = "".join(path.read_text() for path in terminal.folder.glob("*.log"))
    for said in ("coordinator.serving", "worker.started", "status_page=http://127.0.0.1:", "agent.ready"):
        assert said in logs
    for alarm in ("Warning", "Traceback", "Cancel "):
        assert alarm not in logs


def test_no_command_is_left_out():
    """What is in no session is done elsewhere, by what is named for it."""
    apart = {*SESSIONS, *TESTED_APART}
    others = {command for name in DOCUMENTS if name not in apart for command in commands(name)}
    assert [command for command in others if not command.startswith(tuple(ELSEWHERE))] == []
    for where, text in ELSEWHERE.values():
        assert text in (ROOT / where).read_text()
    for document, test in TESTED_APART.items():
        assert f'commands("{document}")' in (ROOT / test).read_text()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_stand_in_console_blocks(name: str):
    """Shown in another way, a command would be run by nobody."""
    indented = r"^    (?:\$ )?(?:make|python|pip|fedcollm|fedcollm-agent|docker|git) .*"
    assert re.findall(indented, DOCUMENTS[name].read_text(), flags=re.MULTILINE) == []
