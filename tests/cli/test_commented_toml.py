"""Files that `init` writes: every setting stands in them, and they can be used as they are."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from bench.federation import key_of
from services.client_agent.settings import Settings as AgentSettings
from services.coordinator.cli.settings import OperatorSettings
from services.coordinator.settings import Settings as CoordinatorSettings
from services.coordinator.worker.settings import Settings as WorkerSettings
from shared.cli.commented_toml import commented_toml
from shared.configuration import read_toml, validate
from shared.protocol.terms import FROZEN, RunTerms
from tests.support.federations import terms_of

URL = "http://127.0.0.1:1"
REQUIRED = {
    AgentSettings: {
        "coordinator_url": URL,
        "name": "n",
        "federation": "f",
        "operator_key": key_of("operator").public,
        "identity_key_file": Path("k"),
        "state_dir": "s",
        "slm": "m",
        "data": {"path": "d", "columns": {"choices": ("A", "B"), "labels": ("A", "B")}},
    },
    WorkerSettings: {
        "coordinator_url": URL,
        "token_file": "t",
        "cache_dir": "c",
        "auxiliary": {"path": "a"},
        "validation": {"path": "v"},
    },
    CoordinatorSettings: {
        "data_dir": "d",
        "principals_file": "p",
        "federation": "f",
        "operator_key": key_of("operator").public,
    },
    OperatorSettings: {"coordinator_url": URL, "token_file": "t"},
    RunTerms: terms_of().model_dump(),
}
of_every_kind = pytest.mark.parametrize("kind", REQUIRED, ids=lambda kind: kind.__module__)


def names(kind: type[BaseModel], table: str = "") -> Iterator[tuple[str, str]]:
    """Yield every setting with the table that it stands in, read from pydantic's own description."""
    schema = kind.model_json_schema()
    stack = [(schema, table)]
    while stack:
        part, inside = stack.pop()
        for name, field in part["properties"].items():
            references = [one["$ref"] for one in (field, *field.get("anyOf", ())) if "$ref" in one]
            if references:
                model = schema["$defs"][references[0].rpartition("/")[2]]
                stack.append((model, f"{inside}.{name}" if inside else name))
            else:
                yield inside, name


@of_every_kind
def test_every_setting_stands_in_the_file(kind: type[BaseModel]):
    """Under its table, set or commented out: nobody has to look for what else there is."""
    text = commented_toml(kind, REQUIRED[kind], head="head").replace("\n# [", "\n[")
    tables = {"": ""} | {part.partition("]")[0]: part for part in f"\n{text}".split("\n[")[1:]}
    tables[""] = text.split("\n[")[0]
    found = list(names(kind))
    assert len(found) > 1
    for table, name in found:
        lines = tables[table].splitlines()
        assert any(line.startswith((f"{name} = ", f"# {name} = ")) for line in lines), f"{table}.{name}"


@of_every_kind
def test_a_file_means_what_was_decided(kind: type[BaseModel], tmp_path: Path):
    """Read back, it gives the same settings as the values that it was made of."""
    file = tmp_path / "file.toml"
    file.write_text(commented_toml(kind, REQUIRED[kind], head="head"))
    values = tomllib.loads(file.read_text())
    told = validate(kind, values, what="file") if kind is RunTerms else kind.model_validate(values)
    assert told == kind.model_validate(REQUIRED[kind])
    assert read_toml(kind, file)


@of_every_kind
def test_a_default_can_be_uncommented(kind: type[BaseModel]):
    """What stands behind a comment sign is what holds without it, but in a table that is not there at all."""
    text = re.sub(r"\n# \[.*?(?=\n\[|$)", "", commented_toml(kind, REQUIRED[kind], head="head"), flags=re.DOTALL)
    lines = [
        line.removeprefix("# ") if " = " in line and "it is not set" not in line else line for line in text.splitlines()
    ]
    assert kind.model_validate(tomllib.loads("\n".join(lines))) == kind.model_validate(REQUIRED[kind])


def test_texts_survive_whatever_is_in_them():
    """Quotes, line ends, backslashes and letters of any script."""

    class Model(BaseModel):
        """One text."""

        text: str
        model_config = FROZEN

    odd = 'a "b" \\ c\n\td é 𝄞 \x7f \x01 #'
    assert tomllib.loads(commented_toml(Model, {"text": odd}, head=""))["text"] == odd
