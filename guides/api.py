"""The reference of the API: pages made of the OpenAPI documents that the coordinator itself serves."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute

from guides.schemas import Schema, default_of, fields_of, kind_of, table
from services.coordinator.app import create_app, create_work_app
from services.coordinator.context import Context, open_context
from services.coordinator.principals import Role
from services.coordinator.settings import Settings
from services.coordinator.tokens import KnownTokens
from shared.protocol.identity import IdentityKey

APPS: Mapping[str, Callable[[Context], FastAPI]] = {
    "port": create_app,  # as the settings are called
    "work_port": create_work_app,
}
MESSAGES = "messages"
METHODS = ("get", "head", "put", "post", "patch", "delete")
# Fields that every request carries: docs/protocol.md says them once for all.
EVERYWHERE = {"FedCoLLM-Protocol"}


def api_pages() -> dict[str, str]:
    """Return pages in Markdown by what they are about: each tag of the documents, and the messages."""
    pages: dict[str, str] = {}
    schemas: dict[str, Schema] = {}
    with _coordinator() as context:
        for port, make in APPS.items():
            app = make(context)
            document = app.openapi()
            roles = _roles(app)
            schemas |= document["components"]["schemas"]
            for tag, operations in _by_tag(document).items():
                title = f"# {tag.capitalize()}\n\nOn the port that the settings call `{port}`.\n"
                page = pages.get(tag, title)
                if page != title:
                    continue  # /healthz is on both ports
                pages[tag] = "\n".join([page, *(_operation(*each, roles) for each in operations)])
    return pages | {MESSAGES: _messages(schemas)}


def page_name(tag: str) -> str:
    """Return the name of a tag's page, without its ending."""
    return tag.replace(" ", "-")


@contextmanager
def _coordinator() -> Iterator[Context]:
    with TemporaryDirectory() as folder:
        settings = Settings(
            data_dir=Path(folder),
            principals_file=Path(folder) / "none",
            federation="guides",
            operator_key=IdentityKey.generate().public,
        )
        with open_context(settings, KnownTokens({}), lambda: 0.0) as context:
            yield context


def _by_tag(document: Mapping[str, Any]) -> dict[str, list[tuple[str, str, Schema]]]:
    found: dict[str, list[tuple[str, str, Schema]]] = {}
    for path, operations in document["paths"].items():
        for method in METHODS:
            if method in operations:
                found.setdefault(operations[method]["tags"][0], []).append((method, path, operations[method]))
    return found


def _roles(app: FastAPI) -> dict[tuple[str, str], str]:
    """Return who may send each request, by the one dependency that every route has."""
    return {
        (method.lower(), path): " or ".join(sorted(found.call.roles))  # type: ignore[union-attr]
        for path, route in _routes(app)
        for method in route.methods or ()
        for found in route.dependant.dependencies
        if hasattr(found.call, "roles")
    }


def _routes(app: FastAPI) -> Iterator[tuple[str, APIRoute]]:
    for route in app.routes:
        included = getattr(route, "original_router", None)
        if isinstance(included, APIRouter):
            prefix = route.include_context.prefix  # type: ignore[attr-defined]
            yield from ((prefix + inner.path, inner) for inner in included.routes if isinstance(inner, APIRoute))
        elif isinstance(route, APIRoute):
            yield route.path, route


def _operation(method: str, path: str, operation: Schema, roles: Mapping[tuple[str, str], str]) -> str:
    """Return the section of one request."""
    lines = [f"## {operation['summary']}", f"```http\n{method.upper()} {path}\n```"]
    if description := operation.get("description"):
        lines.append(description)
    who = roles[method, path]
    lines.append(f"For: {'anybody, known or not' if who == Role.ANYONE else who}.")
    parameters = [each for each in operation.get("parameters", []) if each["name"] not in EVERYWHERE]
    if parameters:
        rows = [
            [
                f"`{each['name']}`",
                each["in"],
                kind_of(each["schema"], _message),
                default_of(each["schema"], required=each.get("required", False)),
                each.get("description", ""),
            ]
            for each in parameters
        ]
        lines.append(table(["parameter", "in", "what it may be", "default", "meaning"], rows))
    if body := operation.get("requestBody"):
        lines.append(f"Body: {_content(body)}.")
    answers = [row for each in operation["responses"].items() if (row := _answer(*each))]
    lines.append(table(["status", "answer"], answers))
    return "\n\n".join(lines) + "\n"


def _answer(status: str, answer: Schema) -> list[str]:
    """Return the row of an answer, or nothing for those that every request may have (docs/api.md)."""
    if status >= "400":
        title, _, codes = answer["description"].partition(": ")
        links = [f"[{code}](../troubleshooting.md#{code})" for code in codes.split(", ")]
        return [status, f"{title}: {', '.join(links)}"] if codes else []
    said = answer["description"] if answer["description"] != "Successful Response" else ""
    return [status, ": ".join(filter(None, [said, _content(answer)])) or HTTPStatus(int(status)).phrase]


def _content(of: Schema) -> str:
    kinds = []
    for media, content in of.get("content", {}).items():
        schema = content.get("schema", {})
        if media == "application/json":
            kinds.append(kind_of(schema, _message) if schema else "JSON")
        else:
            kinds.append(f"`{media}`")
    return " or ".join(kinds)


def _message(name: str) -> str:
    return f"[{name}]({MESSAGES}.md#{name.lower()})"


def _messages(schemas: Mapping[str, Schema]) -> str:
    lines = ["# Messages", "The JSON that requests and answers carry; fields that are not listed are refused."]
    for name in sorted(schemas):
        schema = schemas[name]
        lines += [f"## {name}", schema.get("description", "")]
        if "properties" in schema:
            lines.append(table(["field", "what it may be", "default", "meaning"], fields_of(schema, _here)))
        elif schema.get("type") or "enum" in schema:
            lines.append(f"One of: {kind_of(schema, _here)}.")
    return "\n\n".join(filter(None, lines)) + "\n"


def _here(name: str) -> str:
    return f"[{name}](#{name.lower()})"
