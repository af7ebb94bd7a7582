"""Virtual environments for other people's packages, so that the project's own pins do not move."""

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]


def environment(folder: Path, packages: Sequence[str]) -> Path:
    """Return the Python of the environment in ``folder`` that has the packages; it is made, and PIP_ARGS are pip's."""
    python = folder / "bin" / "python"
    if not python.exists():
        answer([sys.executable, "-m", "venv", str(folder)])
    arguments = shlex.split(os.environ.get("PIP_ARGS", ""))
    answer([str(python), "-m", "pip", "install", "--quiet", *arguments, *packages])
    return python


def answer(command: Sequence[str], changes: Mapping[str, str] | None = None) -> str:
    """Run a program from the root of the repository and return what it printed.

    Raises:
        RuntimeError: it has failed; the message has the end of what it complained of.
    """
    done = subprocess.run(  # noqa: S603 - our own programs
        command, cwd=ROOT, env={**os.environ, **(changes or {})}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)} has failed:\n{done.stderr[-2000:]}")
    return done.stdout
