"""The reference of settings and terms: a table for each part of a TOML file, made of the models that read it."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic_settings import BaseSettings

from guides.schemas import Schema, fields_of, name_of, table
from services.client_agent.settings import Settings as AgentSettings
from services.coordinator.cli.settings import OperatorSettings
from services.coordinator.settings import Settings as CoordinatorSettings
from services.coordinator.worker.settings import Settings as WorkerSettings
from shared.protocol.terms import RunTerms

FILES: dict[str, type[BaseModel]] = {
    "coordinator.toml": CoordinatorSettings,
    "worker.toml": WorkerSettings,
    "agent.toml": AgentSettings,
    "operator.toml": OperatorSettings,
    "run.toml": RunTerms,
}


def configuration() -> str:
    """Return a section for each file, in Markdown, with a table for each of the file's own tables."""
    return "\n\n".join(_section(file, kind) for file, kind in FILES.items())


def _section(file: str, kind: type[BaseModel]) -> str:
    schema = kind.model_json_schema()
    lines = [f"## {file}", schema.get("description", "").partition("\n")[0]]
    if issubclass(kind, BaseSettings):
        prefix = kind.model_config["env_prefix"]
        lines.append(f"In the environment: `{prefix}` and the name in capitals; a table's name before two underscores.")
    seen: dict[str, str] = {}
    for part, fields in _tables(schema, schema.get("$defs", {}), ""):
        if part:
            lines.append(f"### [{part}] of {file}")
        text = table(["setting", "what it may be", "default", "meaning"], fields)
        lines.append(f"As [{seen[text]}]." if text in seen else text)
        seen.setdefault(text, part)
    return "\n\n".join(lines)


def _tables(schema: Schema, known: Schema, path: str) -> Iterator[tuple[str, list[list[str]]]]:
    """Yield the tables of a file, each after the one that it is in."""
    inner = {name: below for name, field in schema["properties"].items() if (below := _object(field, known))}
    own: dict[str, Any] = {
        name: _resolved(field, known) for name, field in schema["properties"].items() if name not in inner
    }
    if own:
        yield path, fields_of({**schema, "properties": own}, lambda name: name)
    for name, below in inner.items():
        yield from _tables(below, known, f"{path}.{name}".removeprefix("."))


def _object(field: Schema, known: Schema) -> Schema | None:
    """Return the object that a field holds, if it holds one."""
    for choice in (field, *field.get("anyOf", ())):
        if "$ref" in choice and "properties" in known[name_of(choice)]:
            found: Schema = known[name_of(choice)]
            return found
    return None


def _resolved(field: Schema, known: Schema) -> Schema:
    """Return a field whose names of texts and numbers stand for what they are; of nothing, TOML has no way to speak."""
    if "$ref" in field:
        return {**known[name_of(field)], **{key: value for key, value in field.items() if key != "$ref"}}
    if "anyOf" in field:
        return {**field, "anyOf": [choice for choice in field["anyOf"] if choice.get("type") != "null"]}
    return field
