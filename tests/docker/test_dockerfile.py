"""The Dockerfile: where images come from, what is in them, whose folders they have, and where they start."""

import re
import tomllib
from pathlib import Path

import pytest

from tests.support.containers import DOCKERFILE, HOME, PROJECT, ROOT, STAGES, Run, command_of, last, lineage

BASE_IMAGE = "python:3.11-slim-bookworm"
USER = "10001"
OURS = ["pip", "install", "--no-deps", "/dist/*.whl"]
EXTRAS = {
    "coordinator": ["coordinator"],
    "bootstrap": ["coordinator"],
    "worker": ["worker"],
    "agent": ["worker", "agent"],
}

MOUNTS = {
    "/constraints.txt": {"source": "constraints.txt"},
    "/requirements": {"from": "requirements", "source": "/requirements"},
    "/wheels": {"from": "wheels"},
    "/source": {"readwrite": ""},
    "/dist": {"from": "wheel", "source": "/dist"},
}


def installing(extra: str) -> list[str]:
    """The command that installs the packages of an extra in their pinned versions."""
    return ["pip", "install", "--constraint", "/constraints.txt", "--requirement", f"/requirements/{extra}.txt"]


def pips(stage: str) -> list[Run]:
    """What a stage has pip do, itself or in a stage that it begins from."""
    return [run for each in lineage(stage) for run in each.runs if "pip" in run.command]


def test_one_image_is_pulled_and_no_other():
    """Every stage begins from it, from another stage, or from nothing; and no frontend is fetched."""
    text = DOCKERFILE.read_text()
    bases = {stage.base for stage in STAGES.values()} - set(STAGES)
    sources = set(re.findall(r"(?:--mount=\S*|--)from=([\w:./-]+)", text))
    assert bases == {BASE_IMAGE, "scratch"}
    assert sources <= set(STAGES)
    assert not re.search(r"^#\s*syntax", text, flags=re.MULTILINE | re.IGNORECASE)


@pytest.mark.parametrize("stage", EXTRAS)
def test_an_image_has_pinned_packages_of_its_extras_and_then_our_own(stage: str):
    """And nothing by name."""
    assert [run.command for run in pips(stage)] == [*map(installing, EXTRAS[stage]), OURS]


def test_our_wheel_is_built_by_what_is_pinned():
    """By what pyproject.toml asks for, and in no environment that pip would fill on its own."""
    (builds_with,) = PROJECT["build-system"]["requires"]
    install, build = (run.command for run in pips("wheel"))
    assert install == ["pip", "install", "--constraint", "/constraints.txt", builds_with]
    assert build == ["pip", "wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", "/dist", "/source"]
    pinned = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert {builds_with, "setuptools"} <= pinned


def test_no_torch_comes_into_the_coordinators_image():
    """It is no package of its extra; and what the worker installs the agent has as well."""
    extras = PROJECT["project"]["optional-dependencies"]
    assert "torch" not in {*extras["coordinator"], *PROJECT["project"]["dependencies"]}
    assert "torch" in extras["worker"]
    assert STAGES["worker"].base == STAGES["agent"].base == "models"


@pytest.mark.parametrize("stage", STAGES)
def test_pip_has_mounted_what_it_reads(stage: str):
    """Versions, lists of packages, our source, our wheel; and the folder of wheels wherever it may look for others."""
    for run in pips(stage):
        read = {target for target in MOUNTS if any(word.startswith(target) for word in run.command)}
        if "/source" in read:
            read.remove("/dist")  # where it goes
        if "--no-deps" not in run.command:
            read.add("/wheels")
        mounts = {mount["target"]: mount for mount in run.mounts}
        assert mounts == {target: {"type": "bind", "target": target, **MOUNTS[target]} for target in read}
    assert "PIP_FIND_LINKS=/wheels" in STAGES["base"].all("ARG")


def test_what_is_copied_into_an_image_is_in_the_build_context():
    """.dockerignore lets through what the stages mount and copy, and no folder that may hold a run's secrets."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    allowed = {line[1:] for line in lines if line.startswith("!")}
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    sources = {
        mount["source"] for stage in STAGES.values() for run in stage.runs for mount in run.mounts if "source" in mount
    }
    mounted = {source for source in sources if not source.startswith("/")}  # the others are stages'
    copied = {rest.split()[-2] for stage in STAGES.values() for rest in stage.all("COPY")}
    wheels = {*package["packages"], PROJECT["project"]["readme"], "LICENSE"}
    assert allowed == mounted | copied | wheels
    assert all((ROOT / name).exists() for name in allowed)
    assert lines[0] == "*"
    assert {line for line in lines[1:] if not line.startswith("!")} == {"examples/agent", "**/__pycache__"}


@pytest.mark.parametrize("stage", ["coordinator", "worker", "agent"])
def test_a_service_starts_in_its_volume(stage: str):
    """Where the settings file lies that its command names without a folder."""
    assert last(stage, "WORKDIR") == str(HOME)
    settings = command_of({"agent": "agent-1"}.get(stage, stage))[-1]
    assert "/" not in settings


def test_bootstrap_starts_where_its_module_is_found():
    """It is no part of our wheel, but copied beside the folder that it starts in."""
    module = command_of("bootstrap")[2]
    *_, source, target = last("bootstrap", "COPY").split()
    assert Path(target) == Path(last("bootstrap", "WORKDIR"), source)
    assert module.split(".")[0] == source
    assert (ROOT / Path(*module.split("."))).with_suffix(".py").exists()


def test_folders_that_a_volume_begins_from_are_the_users_own():
    """A new volume takes owner and mode of the folder that it covers; root's could not be written."""
    made = [
        run
        for stage in STAGES.values()
        for run in stage.runs
        if "install" in run.command and "--directory" in run.command
    ]
    assert len(made) == 2
    for run in made:
        (options,) = re.findall(r"install --directory ((?:--\S+ )*)", " ".join(run.command))
        assert set(options.split()) == {f"--owner={USER}", f"--group={USER}", "--mode=0700"}


def test_debians_own_packages_are_few_and_leave_no_lists_behind():
    """The one that has Prometheus, and nothing that it only recommends."""
    asked = [run.command for stage in STAGES.values() for run in stage.runs if "apt-get" in run.command]
    (words,) = asked
    assert " ".join(words) == (
        "apt-get update && apt-get install --yes --no-install-recommends prometheus && rm -rf /var/lib/apt/lists/*"
    )


@pytest.mark.parametrize("stage", [*EXTRAS, "prometheus"])
def test_no_image_runs_as_root(stage: str):
    """But as a user that is there."""
    assert last(stage, "USER") == f"{USER}:{USER}"
    base = " ".join(word for run in STAGES["base"].runs for word in run.command)
    assert f"groupadd --gid {USER} " in base
    assert f"useradd --uid {USER} --gid {USER} " in base


def test_what_is_fetched_from_a_hub_goes_into_the_volume():
    """And nothing is fetched unless somebody says so: the root file system cannot be written."""
    settings = dict(word.split("=", 1) for word in last("models", "ENV").split())
    assert Path(settings["HF_HOME"]).parent == HOME
    assert settings["HF_HUB_OFFLINE"] == "1"
