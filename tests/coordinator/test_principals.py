import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute

from bench.federation import token_of
from services.coordinator.app import create_app, create_work_app
from services.coordinator.context import Context
from services.coordinator.principals import NOBODY, Principal, Principals, Role, TokenEntry, read_principals
from shared.errors import ConfigurationError, NotAllowed, NotAuthenticated
from shared.protocol.digests import digest_of
from tests.support.federations import ROLES, client

pytestmark = pytest.mark.anyio

EVERYBODY = {Role.ANYONE, Role.OPERATOR, Role.VIEWER, Role.WORKER, Role.AGENT}
READERS = {Role.OPERATOR, Role.VIEWER, Role.AGENT}
DIGEST = digest_of(b"adapter")
IN_PATHS = {"run_id": "run", "number": 1, "digest": DIGEST, "name": "slm-adapter", "job_id": "job"}

# Who may do what: the whole of it. A new route is written here before it is written anywhere else.
PUBLIC: dict[tuple[str, str], set[Role]] = {
    ("GET", "/healthz"): EVERYBODY,
    ("GET", "/v1/runs"): {Role.OPERATOR, Role.VIEWER},
    ("PUT", "/v1/runs/{run_id}"): {Role.OPERATOR},
    ("GET", "/v1/runs/{run_id}"): {Role.OPERATOR, Role.VIEWER},
    ("POST", "/v1/runs/{run_id}/start"): {Role.OPERATOR},
    ("POST", "/v1/runs/{run_id}/pause"): {Role.OPERATOR},
    ("POST", "/v1/runs/{run_id}/cancel"): {Role.OPERATOR},
    ("GET", "/v1/runs/{run_id}/rounds"): {Role.OPERATOR, Role.VIEWER},
    ("GET", "/v1/runs/{run_id}/events"): {Role.OPERATOR, Role.VIEWER},
    ("GET", "/v1/runs/{run_id}/artefacts"): {Role.OPERATOR, Role.VIEWER},
    ("GET", "/v1/runs/{run_id}/artefacts/{name}"): {Role.OPERATOR},
    ("GET", "/v1/runs/{run_id}/manifest"): READERS,
    ("GET", "/v1/adapters/{digest}"): READERS,
    ("GET", "/v1/agents"): {Role.OPERATOR},
    ("PUT", "/v1/agents/{name}/invitation"): {Role.OPERATOR},
    ("PUT", "/v1/agents/{name}/certificate"): {Role.OPERATOR},
    ("POST", "/v1/agents/{name}/revoke"): {Role.OPERATOR},
    ("POST", "/v1/enrol"): EVERYBODY,
    ("GET", "/v1/wanted"): {Role.AGENT},
    ("GET", "/v1/audit"): {Role.OPERATOR, Role.VIEWER},
    ("GET", "/v1/audit/head"): {Role.OPERATOR, Role.VIEWER},
    ("PUT", "/v1/runs/{run_id}/rounds/{number}/update"): {Role.AGENT},
}
INTERNAL: dict[tuple[str, str], set[Role]] = {
    ("GET", "/healthz"): EVERYBODY,
    ("POST", "/v1/work/lease"): {Role.WORKER},
    ("POST", "/v1/work/{job_id}/heartbeat"): {Role.WORKER},
    ("POST", "/v1/work/{job_id}/result"): {Role.WORKER},
    ("POST", "/v1/work/{job_id}/failure"): {Role.WORKER},
    ("GET", "/v1/work/blobs/{digest}"): {Role.WORKER},
    ("PUT", "/v1/work/blobs/{digest}"): {Role.WORKER},
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
async def test_every_route_lets_its_roles_in_and_nobody_else(which: str, context: Context) -> None:
    """Each route, each role: 401 without a token, 403 for the wrong role, anything else for the right one."""
    make, table = APPS[which]
    app = make(context)
    for who, role in [*ROLES.items(), (None, Role.ANYONE)]:
        async with client(context, who, app=app) as http:
            for (method, path), allowed in table.items():
                url = path.format(**IN_PATHS)
                response = await http.request(method, url)
                if role in allowed:
                    assert response.status_code not in {401, 403}, (method, url, who)
                else:
                    assert response.status_code == (401 if who is None else 403), (method, url, who)
                    code = response.json()["code"]
                    assert code == ("not_authenticated" if who is None else "not_allowed")


@both_apps
async def test_every_route_asks_for_the_protocols_version(which: str, context: Context) -> None:
    """A request that does not say its version is refused by each route under /v1, before who asks is looked at."""
    app = APPS[which][0](context)
    async with client(context, None, app=app) as http:
        del http.headers["FedCoLLM-Protocol"]
        for path, route in routes_of(app):
            if path == "/healthz":
                continue
            for method in route.methods:
                response = await http.request(method, path.format(**IN_PATHS))
                code = response.json()["code"]
                assert (response.status_code, code) == (400, "protocol_version_mismatch"), (method, path)


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


def test_the_scheme_may_be_written_in_any_case() -> None:
    """RFC 9110: the name of the scheme is case-insensitive."""
    principals = Principals({"ada": TokenEntry(role=Role.AGENT, token="a" * 16)})
    assert principals.identify(f"bearer {'a' * 16}", (Role.AGENT,)) == Principal("ada", Role.AGENT)


def test_tokens_do_not_stay_in_memory() -> None:
    """What a dump of the process shows is digests."""
    principals = Principals({"ada": TokenEntry(role=Role.AGENT, token="a-secret-of-ada-x")})
    assert "a-secret-of-ada-x" not in repr(vars(principals))


def test_anyone_needs_no_credential() -> None:
    """Where anyone may ask, a wrong credential does no harm either."""
    assert Principals({}).identify("Bearer wrong", (Role.ANYONE,)) == NOBODY


def test_errors_name_who_is_missing() -> None:
    """A refused principal reads who it is taken for, and who may."""
    principals = Principals({"ada": TokenEntry(role=Role.AGENT, token="a" * 16)})
    with pytest.raises(NotAllowed, match="ada is known as agent, and this is for operator or viewer"):
        principals.identify(f"Bearer {'a' * 16}", (Role.VIEWER, Role.OPERATOR))
    with pytest.raises(NotAuthenticated):
        principals.identify(None, (Role.VIEWER,))


def test_a_token_is_the_same_with_a_line_end_after_it() -> None:
    """Whoever makes a principals file with an editor means the token, as agents and workers read theirs."""
    token = "0123456789abcdef"
    principals = Principals({"ada": TokenEntry(role=Role.AGENT, token=f" {token}\n")})
    assert principals.identify(f"Bearer {token}", (Role.AGENT,)).name == "ada"


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "[]",
        '{"ada": "token"}',
        '{"ada": {"role": "agent", "token": "short"}}',
        '{"ada": {"role": "agent", "token": "  short               "}}',
        '{"ada": {"role": "agent", "token": "0123456789abcdef\\u00e9"}}',
        '{"ada": {"role": "king", "token": "0123456789abcdef"}}',
        '{"a/b": {"role": "agent", "token": "0123456789abcdef"}}',
        '{"ada": {"role": "agent", "token": "0123456789abcdef", "admin": true}}',
        '{"al": {"role": "agent", "token": "0123456789abcdef"}, "al": {"role": "agent", "token": "x0123456789abcde"}}',
        '{"ada": {"role": "agent", "role": "operator", "token": "0123456789abcdef"}}',
        "\x00\xff",
    ],
)
def test_a_token_file_that_is_not_one_is_refused(content: str | None, tmp_path: Path) -> None:
    """A coordinator does not start with half a principals file, and says which file and why."""
    path = tmp_path / "tokens.json"
    if content is not None:
        path.write_text(content, encoding="latin-1")
    with pytest.raises(ConfigurationError, match=r"tokens\.json"):
        read_principals(path)


def test_a_refused_token_file_does_not_show_its_tokens(tmp_path: Path) -> None:
    """Error messages end in logs, and tokens must not."""
    path = tmp_path / "tokens.json"
    path.write_text(
        json.dumps({"ada": {"role": "king", "token": "this-is-a-real-secret"}, "bob": "another-real-secret"})
    )
    with pytest.raises(ConfigurationError) as refusal:
        read_principals(path)
    assert "real-secret" not in str(refusal.value)


def test_a_shared_token_is_refused_by_the_names_of_those_who_share_it(tmp_path: Path) -> None:
    """Of two principals with one token the coordinator could not say who asks; the token itself is not shown."""
    path = tmp_path / "tokens.json"
    entry = {"role": "agent", "token": "this-is-a-real-secret"}
    path.write_text(json.dumps({"ada": entry, "bob": entry}))
    with pytest.raises(ConfigurationError, match="ada and bob have the same token") as refusal:
        read_principals(path)
    assert "real-secret" not in str(refusal.value)


def test_a_token_file_names_its_principals(tmp_path: Path) -> None:
    """The documented form is read as documented."""
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps({"ada": {"role": "agent", "token": "0123456789abcdef"}}))
    principals = read_principals(path)
    assert principals.identify("Bearer 0123456789abcdef", (Role.AGENT,)) == Principal("ada", Role.AGENT)
