"""The files that describe containers, read as data: docker-compose.yml, what goes with it, and the Dockerfile."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "docker.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DOCKERFILE = ROOT / "docker" / "Dockerfile"
ORGANISATIONS_FOLDER = ROOT / "examples" / "agent"

MAIN = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
GPU = yaml.safe_load((ROOT / "docker-compose.gpu.yml").read_text())
ALONE = yaml.safe_load((ORGANISATIONS_FOLDER / "docker-compose.yml").read_text())
SERVICES: Mapping[str, Mapping[str, Any]] = MAIN["services"]
ORGANISATIONS_AGENT: Mapping[str, Any] = ALONE["services"]["agent"]
EVERY_SERVICE = {**SERVICES, "an organisation's agent": ORGANISATIONS_AGENT}

HOME = Path("/fedcollm")
"""Where a service's volume is mounted, and where the service starts."""


@dataclass(frozen=True)
class Run:
    """A RUN of the Dockerfile: what is mounted while it runs, and its command word by word."""

    mounts: Sequence[Mapping[str, str]]
    command: Sequence[str]

    @classmethod
    def read(cls, text: str) -> "Run":
        """Take apart what stands behind RUN."""
        words = shlex.split(text)
        mounts = [word.removeprefix("--mount=").split(",") for word in words if word.startswith("--mount=")]
        options = [dict(option.partition("=")[::2] for option in mount) for mount in mounts]
        return cls(options, words[len(mounts) :])


@dataclass(frozen=True)
class Stage:
    """A stage of the Dockerfile: what it begins from, and its instructions in order."""

    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, word: str) -> list[str]:
        """What the instructions of a kind say."""
        return [rest for kind, rest in self.instructions if kind == word]

    @property
    def runs(self) -> list[Run]:
        """Its RUNs."""
        return [Run.read(rest) for rest in self.all("RUN")]


def read_stages() -> dict[str, Stage]:
    """The stages by name; here-documents and comments are left out, continued lines joined."""
    text = re.sub(r"<<'(\w+)'\n.*?\n\1\n", "\n", DOCKERFILE.read_text(), flags=re.DOTALL)
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", "")
    stages: dict[str, Stage] = {}
    for line in filter(None, text.splitlines()):
        word, rest = line.split(maxsplit=1)
        if word == "FROM":
            base, name = rest.split(" AS ")
            stages[name] = Stage(base)
        else:
            list(stages.values())[-1].instructions.append((word, rest))
    return stages


STAGES = read_stages()


def lineage(name: str) -> list[Stage]:
    """A stage and those that it begins from, the first one first."""
    return [*lineage(STAGES[name].base), STAGES[name]] if name in STAGES else []


def last(name: str, word: str) -> str:
    """What holds for a stage: what the last instruction of a kind says, its own or one that it begins from."""
    return [rest for stage in lineage(name) for rest in stage.all(word)][-1]


TARGETS = {service["image"]: service["build"]["target"] for service in SERVICES.values() if "build" in service}


def target_of(name: str) -> str:
    """The stage that a service's image is built from."""
    return TARGETS[EVERY_SERVICE[name]["image"]]


def command_of(name: str) -> list[str]:
    """What a service's container runs; no compose file says another thing."""
    return json.loads(last(target_of(name), "CMD"))


def health_of(name: str) -> str:
    """The Python of a service's health check."""
    words = json.loads(last(target_of(name), "HEALTHCHECK").partition(" CMD ")[2])
    assert words[:2] == ["python", "-c"]
    return words[2]


def run_here(name: str, arguments: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run what a service's container runs, with other arguments behind its module, in a folder of this machine."""
    module = command_of(name)[1:3]
    return subprocess.run(  # noqa: S603 - our own
        [sys.executable, *module, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def run_bootstrap(folder: Path) -> str:
    """Run what the bootstrap container runs, on another folder than the volumes', and return what it says."""
    done = run_here("bootstrap", [str(folder)], folder)
    assert done.returncode == 0, done.stderr
    return done.stdout
