"""JSON schemas as the tables of a page: what a field is called, what it may be, and what it means."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any, TypeAlias

Schema: TypeAlias = Mapping[str, Any]
# What the name of a schema becomes in a page: a link, mostly.
Link: TypeAlias = Callable[[str], str]

BOUNDS = {
    "minimum": "at least %s",
    "exclusiveMinimum": "above %s",
    "maximum": "at most %s",
    "exclusiveMaximum": "below %s",
    "minItems": "%s or more of them",
    "maxItems": "up to %s of them",
    "maxLength": "up to %s characters",
}
PATTERN_CHARACTERS = 60


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown, without columns in which nothing stands; what would end a cell is escaped."""
    said = [column for column in range(len(header)) if any(row[column] for row in rows)]
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(_cell(line[column]) for column in said)} |" for line in lines) + "\n"


def code(text: object) -> str:
    """Return text as code, in HTML, where no character means anything to Markdown."""
    return f"<code>{escape(str(text)).replace('|', '&#124;')}</code>"


def kind_of(schema: Schema, link: Link) -> str:
    """Return in words what a value of a schema may be."""
    if "$ref" in schema:
        return link(name_of(schema))
    if choices := schema.get("anyOf", schema.get("oneOf")):
        return " or ".join(dict.fromkeys(kind_of(choice, link) for choice in choices))
    if "enum" in schema or "const" in schema:
        return ", ".join(code(_written(value)) for value in schema.get("enum", [schema.get("const")]))
    if "prefixItems" in schema:
        return (
            f"list of {len(schema['prefixItems'])}: {'; '.join(kind_of(item, link) for item in schema['prefixItems'])}"
        )
    return ", ".join([_plain(schema, link), *_bounds(schema)])


def name_of(schema: Schema) -> str:
    """Return the name that a reference points to."""
    return str(schema["$ref"]).rpartition("/")[2]


def default_of(schema: Schema, *, required: bool) -> str:
    """Return what holds where a value is left out."""
    if required:
        return "needed"
    default = schema.get("default")
    return "" if default is None or isinstance(default, dict) else code(_written(default))


def fields_of(schema: Schema, link: Link) -> list[list[str]]:
    """Return a row for each field of an object: name, kind, default and meaning."""
    required = schema.get("required", [])
    return [
        [code(name), kind_of(field, link), default_of(field, required=name in required), field.get("description", "")]
        for name, field in schema.get("properties", {}).items()
    ]


def _plain(schema: Schema, link: Link) -> str:
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"list of {kind_of(schema.get('items', {}), link)}"
    if kind == "object" and isinstance(values := schema.get("additionalProperties"), dict):
        return f"object, each value {kind_of(values, link)}"
    if kind == "string":
        return {"path": "path", "binary": "bytes"}.get(schema.get("format", ""), "text")
    return {"boolean": "true or false", "null": "nothing"}.get(kind, str(kind))


def _bounds(schema: Schema) -> list[str]:
    if "minimum" in schema and "maximum" in schema:
        return [f"{_number(schema['minimum'])} to {_number(schema['maximum'])}"]
    bounds = [words % _number(schema[name]) for name, words in BOUNDS.items() if name in schema]
    pattern = schema.get("pattern", "")
    return [*bounds, f"matching {code(pattern)}"] if 0 < len(pattern) < PATTERN_CHARACTERS else bounds


def _number(value: float) -> str:
    return f"{value:,}".removesuffix(".0")


def _written(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f'"{value}"'
        case list():
            return f"[{', '.join(map(_written, value))}]"
        case _:
            return str(value)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
