from collections import Counter
from collections.abc import Callable
from typing import Any

import hypothesis
import pytest
import schemathesis
import schemathesis.openapi
from hypothesis import HealthCheck, Phase
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from services.coordinator.app import create_app, create_work_app
from services.coordinator.context import Context
from shared.protocol.digests import digest_of, to_field
from shared.protocol.resumption import SIGNED_BESIDES
from tests.support.federations import RUN, begin, credentials_of, submit

APPS = {"public": create_app, "work": create_work_app}
CHECKS = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
# Few, and always the same ones: this is a guard. Many, and each time others, look for what it does not see.
FEW = hypothesis.settings(
    max_examples=8,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
MANY = hypothesis.settings(FEW, max_examples=150, derandomize=False)


@schemathesis.serializer("application/vnd.safetensors", "application/partial-upload")
def blob_as_it_is(_context: schemathesis.SerializationContext, value: object) -> bytes:
    """Send a blob as the bytes that it is."""
    return value if isinstance(value, bytes) else str(value).encode()


def near_the_truth(case: schemathesis.Case) -> None:
    """Let half of the requests name the run that there is, and none of them wait."""
    run_id = str(case.path_parameters.get("run_id", ""))
    if run_id and len(run_id) % 2:
        case.path_parameters["run_id"] = RUN
        if "number" in case.path_parameters:
            case.path_parameters["number"] = 1
    case.query.pop("wait_seconds", None)
    if isinstance(case.body, dict):
        case.body.pop("wait_seconds", None)


def signing(context: Context, who: str) -> Callable[[Any], Any]:
    """Return what signs each request as an agent, when all of it but that is made."""
    _, signed = credentials_of(context, who)
    assert signed is not None

    def sign(request: Any) -> Any:  # noqa: ANN401 - a prepared request, whatever library it is of
        body = request.body or b""
        content = body.encode() if isinstance(body, str) else body
        request.headers["Content-Digest"] = to_field(digest_of(content))
        request.headers["Content-Length"] = str(len(content))
        for field in SIGNED_BESIDES.get(request.method, ()):
            request.headers.setdefault(field, "none")
        request.headers.update(signed.sign(request.method, request.path_url, request.headers))
        return request

    return sign


@pytest.mark.parametrize("who", ["operator", "viewer", "worker", "ada", None])
@pytest.mark.parametrize("which", APPS)
@pytest.mark.parametrize("examples", [FEW, pytest.param(MANY, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_no_request_finds_an_answer_that_the_document_does_not_have(
    examples: hypothesis.settings, which: str, who: str | None, context: Context
) -> None:
    """Requests made from the OpenAPI document, as each role: no 5xx, no undocumented status, no other body."""
    begin(context)
    submit(context, "bob", 1.0)
    app = APPS[which](context)
    schema = schemathesis.openapi.from_dict(app.openapi())
    schema.app = app
    headers, _ = credentials_of(context, who)
    auth = signing(context, who) if who == "ada" else None
    answered: Counter[int] = Counter()

    def call(case: Any) -> None:  # noqa: ANN401 - hypothesis looks at annotations
        near_the_truth(case)
        status = case.call_and_validate(headers=headers, auth=auth, checks=CHECKS).status_code
        if case.path not in {"/healthz", "/readyz", "/metrics"}:
            answered[status] += 1

    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 5
    for operation in operations:
        examples(hypothesis.given(case=operation.as_strategy())(call))()
    # Who may do something on this port has done it, and was always known.
    at_home = {"public": {"operator", "viewer", "ada"}, "work": {"worker"}}[which]
    assert (answered[200] > 0) == (who in at_home)
    assert (answered[401] == 0) == (who is not None)


@pytest.mark.parametrize("which", APPS)
def test_the_document_speaks_of_every_problem_in_the_same_form(which: str, context: Context) -> None:
    """Whatever a route refuses, a client generated from the document can read why."""
    for path, operations in APPS[which](context).openapi()["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], f"{method} {path} has no summary"
            for status, answer in operation["responses"].items():
                if status >= "400" and status != "416":
                    assert list(answer["content"]) == ["application/problem+json"], f"{method} {path} {status}"
