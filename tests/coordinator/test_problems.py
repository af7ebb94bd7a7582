import inspect
import json
from collections.abc import Iterator

import httpx
import pytest
from structlog.testing import capture_logs

from bench.federation import token_of
from services.coordinator.app import create_app, create_work_app
from services.coordinator.context import Context
from services.coordinator.routes.problems import RETRY_AFTER_SECONDS, STATUS_BY_CODE, TITLES
from shared import errors
from shared.errors import FedCoLLMError, ProtocolError, StorageError
from shared.protocol.messages import Problem
from tests.support.federations import client, terms_of
from tests.support.requests import assert_problem

pytestmark = pytest.mark.anyio


def errors_of(*bases: type[FedCoLLMError]) -> Iterator[type[FedCoLLMError]]:
    """Yield every error of these branches of the tree."""
    for _, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, bases) and kind not in bases:
            yield kind


def test_every_error_has_a_status() -> None:
    """Each protocol and storage error of the tree has one status, each status a title, and no code is unknown."""
    codes = [kind.code for kind in errors_of(ProtocolError, StorageError)]
    assert sorted(codes) == sorted(STATUS_BY_CODE)
    assert set(STATUS_BY_CODE.values()) <= set(TITLES)


def test_codes_are_unique() -> None:
    """A code names one error, and every leaf of the tree has its own."""
    leaves = [kind for kind in errors_of(FedCoLLMError) if not kind.__subclasses__() and "code" in vars(kind)]
    assert len({kind.code for kind in leaves}) == len(leaves)
    assert all(kind.code != "internal" for kind in leaves)


@pytest.mark.parametrize("kind", sorted(errors_of(ProtocolError, StorageError), key=lambda kind: kind.code))
async def test_every_error_travels_as_a_problem(
    kind: type[FedCoLLMError], context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 9457, the stable code, the message for people, and Retry-After wherever trying again helps."""

    def fail(*_: object, **__: object) -> None:
        raise kind("what happened, to what, and what to do")

    monkeypatch.setattr(type(context.lifecycle), "runs", fail)
    async with client(context, "operator") as http:
        response = await http.get("/v1/runs")
    problem = assert_problem(response, STATUS_BY_CODE[kind.code], kind.code)
    assert problem.detail == "what happened, to what, and what to do"
    later = RETRY_AFTER_SECONDS.get(problem.status)
    assert response.headers.get("Retry-After") == (None if later is None else str(later))


async def test_what_is_not_there_is_no_line_of_the_log(context: Context) -> None:
    """The doctor asks for a blob that nobody has; what is refused for a reason is logged with it."""
    with capture_logs() as lines:
        async with client(context, "worker") as http:
            assert_problem(await http.get(f"/v1/work/blobs/sha256:{'0' * 64}"), 404, "not_found")
            assert lines == []
        async with client(context, "operator") as http:
            assert_problem(await http.get("/v1/wanted"), 403, "not_allowed")
    assert [line["code"] for line in lines] == ["not_allowed"]


async def test_a_crash_is_a_problem_that_tells_nothing(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of ours answers 500 with a code; what went wrong inside stays in the log."""

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(type(context.lifecycle), "runs", fail)
    transport = httpx.ASGITransport(app=create_app(context), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://in-process") as http:
        response = await http.get(
            "/v1/runs", headers={"FedCoLLM-Protocol": "1", "Authorization": f"Bearer {token_of('operator')}"}
        )
    assert "secret" not in assert_problem(response, 500, "internal").detail


@pytest.mark.parametrize("who", ["operator", "worker"])
@pytest.mark.parametrize("version", [None, "", "0", "2", "1.0", "01", "one", "1, 1"])
async def test_another_protocol_version_is_refused(version: str | None, who: str, context: Context) -> None:
    """A request that does not say the version that we speak is refused before anything else is looked at."""
    path = "/v1/work/lease" if who == "worker" else "/v1/runs"
    async with client(context, who) as http:
        del http.headers["FedCoLLM-Protocol"]
        fields = {} if version is None else {"FedCoLLM-Protocol": version}
        response = await http.request("POST" if who == "worker" else "GET", path, headers=fields)
        del http.headers["Authorization"]
        assert_problem(await http.get("/v1/nowhere", headers=fields), 404, "route_unknown")
    assert_problem(response, 400, "protocol_version_mismatch")


async def test_wrong_paths_and_methods_are_problems_too(context: Context) -> None:
    """Even what no route answers is answered in the protocol's form."""
    async with client(context, "operator") as http:
        assert_problem(await http.get("/nowhere"), 404, "route_unknown")
        response = await http.delete("/v1/runs")
        assert_problem(response, 405, "message_invalid")
        assert response.headers["Allow"] == "GET"
        assert_problem(await http.put("/v1/runs/UPPER", json={}), 422, "message_invalid")
        assert_problem(await http.put("/v1/runs/run", content=b"{"), 422, "message_invalid")
        assert_problem(await http.get("/v1/runs/run"), 404, "not_found")


async def test_a_field_that_nobody_knows_is_named(context: Context) -> None:
    """An operator's typing error in the terms is refused, and found in the message."""
    body = json.loads(terms_of().model_dump_json()) | {"lambda": 1}
    async with client(context, "operator") as http:
        problem = assert_problem(await http.put("/v1/runs/run", json=body), 422, "message_invalid")
    assert "lambda" in problem.detail


async def test_health_needs_neither_version_nor_token(context: Context) -> None:
    """A container's health check knows nothing of the protocol."""
    for make in (create_app, create_work_app):
        async with client(context, None, app=make(context)) as http:
            http.headers.clear()
            assert (await http.get("/healthz")).json() == {"status": "ok"}


async def test_a_form_that_is_wrong_says_where(context: Context) -> None:
    """A problem names each wrong value by its path, so that a screen can show it beside that."""
    terms = terms_of().model_dump(mode="json")
    terms["cohort"] |= {"min_count": 0, "max_count": "many"}
    terms["training"]["optimiser"]["learning_rate"] = 100
    async with client(context, "operator") as http:
        answer = await http.put("/v1/runs/new", json=terms)
        wrong = Problem.model_validate_json(answer.content)
        terms_wrong = terms_of().model_dump(mode="json")
        terms_wrong["cohort"] |= {"min_count": 9, "max_count": 2}
        whole = Problem.model_validate_json((await http.put("/v1/runs/new", json=terms_wrong)).content)
    assert {fault.where for fault in wrong.faults} == {
        "cohort.min_count",
        "cohort.max_count",
        "training.optimiser.learning_rate",
    }
    assert [(fault.where, fault.message) for fault in whole.faults] == [
        ("cohort", "the minimum count or time of a cohort is above its maximum")
    ]
