from collections.abc import Iterator

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute

from bench.federation import token_of
from services.coordinator.app import create_app, create_work_app
from services.coordinator.context import Context
from services.coordinator.principals import Principal, Role
from services.coordinator.routes.bodies import announced_digest, announced_length, body
from shared.errors import NotAllowed
from shared.protocol.digests import digest_of
from tests.support.federations import client

pytestmark = pytest.mark.anyio

EVERYBODY = {Role.ANYONE, Role.OPERATOR, Role.VIEWER, Role.WORKER, Role.AGENT}
READERS = {Role.OPERATOR, Role.VIEWER, Role.AGENT}
DIGEST = digest_of(b"adapter")
IN_PATHS = {
    "run_id": "run",
    "number": 1,
    "attempt": 1,
    "digest": DIGEST,
    "name": "slm-adapter",
    "job_id": "job",
    "question_id": "0" * 32,
}

# Who may do what: the whole of it. A new route is written here before it is written anywhere else, and test_matrix.py
# says what everybody is answered.
PUBLIC: dict[tuple[str, str], set[Role]] = {
    ("GET", "/healthz"): EVERYBODY,
    ("GET", "/readyz"): EVERYBODY,
    ("GET", "/metrics"): {Role.OPERATOR, Role.VIEWER},
    ("GET", "/"): EVERYBODY,
    ("GET", "/dashboard/"): EVERYBODY,
    ("GET", "/dashboard/{name}"): EVERYBODY,
    ("GET", "/dashboard/pages/{name}"): EVERYBODY,
    ("GET", "/v1/federation"): {Role.OPERATOR, Role.VIEWER},
    ("GET", "/v1/presets"): {Role.OPERATOR, Role.VIEWER},
    ("GET", "/v1/runs"): {Role.OPERATOR, Role.VIEWER},
    ("PUT", "/v1/runs/{run_id}"): {Role.OPERATOR},
    ("GET", "/v1/runs/{run_id}"): {Role.OPERATOR, Role.VIEWER},
    ("POST", "/v1/runs/{run_id}/start"): {Role.OPERATOR},
    ("PUT", "/v1/runs/{run_id}/manifest/signature"): {Role.OPERATOR},
    ("POST", "/v1/runs/{run_id}/pause"): {Role.OPERATOR},
    ("POST", "/v1/runs/{run_id}/cancel"): {Role.OPERATOR},
    ("GET", "/v1/runs/{run_id}/rounds"): {Role.OPERATOR, Role.VIEWER},
    ("GET", "/v1/runs/{run_id}/events"): {Role.OPERATOR, Role.VIEWER},
    ("GET", "/v1/runs/{run_id}/artefacts"): {Role.OPERATOR, Role.VIEWER},
    ("GET", "/v1/runs/{run_id}/artefacts/{name}"): {Role.OPERATOR},
    ("GET", "/v1/runs/{run_id}/manifest"): READERS,
    ("GET", "/v1/runs/{run_id}/rounds/{number}/card"): READERS,
    ("GET", "/v1/runs/{run_id}/rounds/{number}/aggregate"): {Role.AGENT},
    ("GET", "/v1/adapters"): {Role.OPERATOR, Role.VIEWER},
    ("GET", "/v1/adapters/{digest}"): READERS,
    ("GET", "/v1/promotion"): {Role.OPERATOR, Role.VIEWER},
    ("PUT", "/v1/promotion"): {Role.OPERATOR},
    ("DELETE", "/v1/promotion"): {Role.OPERATOR},
    ("POST", "/v1/questions"): {Role.OPERATOR},
    ("GET", "/v1/questions/{question_id}"): {Role.OPERATOR},
    ("GET", "/v1/agents"): {Role.OPERATOR},
    ("PUT", "/v1/agents/{name}/invitation"): {Role.OPERATOR},
    ("PUT", "/v1/agents/{name}/certificate"): {Role.OPERATOR},
    ("POST", "/v1/agents/{name}/revoke"): {Role.OPERATOR},
    ("POST", "/v1/enrol"): EVERYBODY,
    ("GET", "/v1/wanted"): {Role.AGENT},
    ("POST", "/v1/leave"): {Role.AGENT},
    ("GET", "/v1/audit"): {Role.OPERATOR, Role.VIEWER},
    ("GET", "/v1/audit/head"): {Role.OPERATOR, Role.VIEWER},
    ("PUT", "/v1/runs/{run_id}/rounds/{number}/update"): {Role.AGENT},
    ("PATCH", "/v1/runs/{run_id}/rounds/{number}/update"): {Role.AGENT},
    ("HEAD", "/v1/runs/{run_id}/rounds/{number}/update"): {Role.AGENT},
    ("PUT", "/v1/runs/{run_id}/rounds/{number}/ready"): {Role.AGENT},
    ("PUT", "/v1/runs/{run_id}/rounds/{number}/attempts/{attempt}/keys"): {Role.AGENT},
    ("PUT", "/v1/runs/{run_id}/rounds/{number}/attempts/{attempt}/shares"): {Role.AGENT},
    ("PUT", "/v1/runs/{run_id}/rounds/{number}/attempts/{attempt}/masked"): {Role.AGENT},
    ("PATCH", "/v1/runs/{run_id}/rounds/{number}/attempts/{attempt}/masked"): {Role.AGENT},
    ("HEAD", "/v1/runs/{run_id}/rounds/{number}/attempts/{attempt}/masked"): {Role.AGENT},
    ("PUT", "/v1/runs/{run_id}/rounds/{number}/attempts/{attempt}/consistency"): {Role.AGENT},
    ("PUT", "/v1/runs/{run_id}/rounds/{number}/attempts/{attempt}/unmasking"): {Role.AGENT},
}
INTERNAL: dict[tuple[str, str], set[Role]] = {
    ("GET", "/healthz"): EVERYBODY,
    ("GET", "/readyz"): EVERYBODY,
    ("POST", "/v1/work/lease"): {Role.WORKER},
    ("POST", "/v1/work/{job_id}/heartbeat"): {Role.WORKER},
    ("POST", "/v1/work/{job_id}/result"): {Role.WORKER},
    ("POST", "/v1/work/{job_id}/failure"): {Role.WORKER},
    ("PUT", "/v1/work/questions/{question_id}"): {Role.WORKER},
    ("GET", "/v1/work/blobs/{digest}"): {Role.WORKER},
    ("PUT", "/v1/work/blobs/{digest}"): {Role.WORKER},
    ("PATCH", "/v1/work/blobs/{digest}"): {Role.WORKER},
    ("HEAD", "/v1/work/blobs/{digest}"): {Role.WORKER},
}
APPS = {"public": (create_app, PUBLIC), "work": (create_work_app, INTERNAL)}
both_apps = pytest.mark.parametrize("which", APPS)


def routes_of(app: FastAPI) -> Iterator[tuple[str, APIRoute]]:
    """Yield every route of an app with its whole path; anything that is no route of ours must be the OpenAPI page."""
    for route in app.routes:
        included = getattr(route, "original_router", None)
        if isinstance(included, APIRouter):
            for inner in included.routes:
                assert isinstance(inner, APIRoute), f"{inner} is a route that this test does not understand"
                yield route.include_context.prefix + inner.path, inner
        elif isinstance(route, APIRoute):
            yield route.path, route
        else:
            assert getattr(route, "path", None) == "/v1/openapi.json", f"{route} has no principal"


def roles_of(route: APIRoute) -> list[set[Role]]:
    """Return the roles of every principal dependency of a route."""
    return [set(found.call.roles) for found in route.dependant.dependencies if hasattr(found.call, "roles")]


@both_apps
def test_every_route_has_exactly_one_principal(which: str, context: Context) -> None:
    """A route that forgets to ask who asks does not get past this test."""
    for path, route in routes_of(APPS[which][0](context)):
        assert len(roles_of(route)) == 1, f"{route.methods} {path} has no principal dependency"


@both_apps
def test_every_signed_body_is_compared_with_its_signature(which: str, context: Context) -> None:
    """By the principal, or by a route that streams it and is given the digest that was signed: never by neither."""
    for path, route in routes_of(APPS[which][0](context)):
        (streamed,) = (found.call.streamed for found in route.dependant.dependencies if hasattr(found.call, "roles"))
        given = route.dependant.dependencies
        calls = {found.call for found in (*given, *(inner for each in given for inner in each.dependencies))}
        assert streamed == ({body, announced_digest, announced_length} <= calls) == (body in calls), path


@both_apps
def test_the_routes_are_those_of_the_table(which: str, context: Context) -> None:
    """Nobody adds a route, or lets another role in, without changing the table above."""
    make, table = APPS[which]
    found = {
        (method, path): {"anyone": EVERYBODY}.get("anyone" if roles_of(route)[0] == {Role.ANYONE} else "")
        or roles_of(route)[0]
        for path, route in routes_of(make(context))
        for method in route.methods
    }
    assert found == table


def test_a_route_without_a_principal_is_found(context: Context) -> None:
    """The walk above sees a route that somebody added by hand or by a router."""
    app, router = create_app(context), APIRouter()
    app.add_api_route("/by-hand", lambda: None)
    router.add_api_route("/by-router", lambda: None)
    app.include_router(router, prefix="/v1")
    assert {path for path, route in routes_of(app) if not roles_of(route)} == {"/by-hand", "/v1/by-router"}


@both_apps
async def test_every_route_asks_for_the_protocols_version(which: str, context: Context) -> None:
    """A request that does not say its version is refused by each route under /v1, before who asks is looked at."""
    app = APPS[which][0](context)
    async with client(context, None, app=app) as http:
        del http.headers["FedCoLLM-Protocol"]
        for path, route in routes_of(app):
            if not path.startswith("/v1/"):
                continue
            for method in route.methods:
                response = await http.request(method, path.format(**IN_PATHS))
                assert response.status_code == 400, (method, path)
                if method != "HEAD":  # to which no answer has a body
                    assert response.json()["code"] == "protocol_version_mismatch", (method, path)


@pytest.mark.parametrize(
    "field",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer nobody-has-this-token",
        f"Basic {token_of('operator')}",
        token_of("operator"),
        f"Bearer {token_of('operator')} ",
        f"Bearer  {token_of('operator')}",
    ],
)
async def test_a_credential_that_is_not_one_is_refused(field: str, context: Context) -> None:
    """Nothing but 'Bearer <a known token>' is let in."""
    async with client(context, None) as http:
        response = await http.get("/v1/runs", headers={"Authorization": field})
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"


async def test_the_scheme_may_be_written_in_any_case(context: Context) -> None:
    """RFC 9110: the name of the scheme is case-insensitive."""
    async with client(context, None) as http:
        assert (await http.get("/v1/runs", headers={"Authorization": f"bEARER {token_of('viewer')}"})).is_success


def test_errors_name_who_is_missing() -> None:
    """A refused principal reads who it is taken for, and who may."""
    with pytest.raises(NotAllowed, match="ada is known as agent, and this is for operator or viewer"):
        Principal("ada", Role.AGENT).require((Role.VIEWER, Role.OPERATOR))
