"""Requests as an agent makes them, honest and bent, and what their answers must be."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from services.coordinator.context import Context
from shared.protocol.digests import digest_of, to_field
from shared.protocol.messages import Problem
from tests.support.federations import RUN, adapter, client, credentials_of

UPDATE = f"/v1/runs/{RUN}/rounds/1/update"


def announcing(blob: bytes, **changes: str | None) -> dict[str, str]:
    """Return the fields of an honest blob, bent."""
    fields = {"Content-Digest": to_field(digest_of(blob)), "Content-Length": str(len(blob))}
    return {name: value for name, value in {**fields, **changes}.items() if value is not None}


def fields_of(context: Context, who: str | None, method: str, target: str, **announced: str) -> dict[str, str]:
    """Return all fields of somebody's request, signed or with a token, over what is announced of the body."""
    headers, signing = credentials_of(context, who)
    fields = headers | announcing(b"") | announced
    return fields if signing is None else fields | signing.sign(method, target, fields)


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    """Yield a body whose length the HTTP client cannot know."""
    yield content


def assert_problem(response: httpx.Response, status: int, code: str) -> Problem:
    """Check that the answer is a whole problem document, and return it."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = Problem.model_validate_json(response.content)
    assert (problem.status, problem.code) == (status, code)
    assert problem.title
    assert problem.detail
    return problem


async def send(context: Context, blob: bytes, who: str = "ada", path: str = UPDATE, **fields: str | None) -> Any:  # noqa: ANN401
    """Send an update with bent fields and return the answer."""
    async with client(context, who) as http:
        return await http.put(path, content=pieces(blob), headers=announcing(blob, **fields))


def partial_files(context: Context) -> list[Path]:
    """Return the files of uploads that come in, or have broken off."""
    return list((context.settings.data_dir / "blobs" / "partial").iterdir())


def assert_nothing_kept(context: Context) -> None:
    """Check that no update was counted and no file stayed behind."""
    assert context.lifecycle.rounds(RUN).rounds[0].accepted == 0
    folder = context.settings.data_dir / "blobs"
    assert not [*(folder / "incoming").iterdir(), *partial_files(context)]
    assert digest_of(adapter(1.0)).removeprefix("sha256:")[2:] not in {path.name for path in folder.rglob("*")}
