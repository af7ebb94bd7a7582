import re

import pytest
from fastapi.routing import APIRoute

from services.client_agent.what_leaves import KINDS, in_words, kind_of
from services.coordinator.principals import Role
from services.coordinator.routes import agents, audit, members, runs
from shared.errors import EgressUnexplained


def roles_of(route: APIRoute) -> set[Role]:
    """Return who may call a route."""
    return {role for found in route.dependant.dependencies for role in getattr(found.call, "roles", ())}


ROUTES = [
    route
    for module in (agents, audit, members, runs)
    for route in module.router.routes
    if isinstance(route, APIRoute) and {Role.AGENT, Role.ANYONE} & roles_of(route)
]
ROUND = "/v1/runs/demo/rounds/3"


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
def test_every_route_for_agents_is_explained(route: APIRoute):
    """What a coordinator may be asked by an agent, with every parameter, has its words here."""
    assert len(ROUTES) > 4
    query = "&".join(f"{parameter.alias}=x" for parameter in route.dependant.query_params)
    for method in route.methods:
        assert kind_of(method, f"/v1{re.sub('{.*?}', 'x', route.path)}?{query}").words


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/v1/wanted"),
        ("GET", "/v1/wanted/"),
        ("GET", "/v1/wanted?holding=x&loss=0.3"),
        ("GET", "/v1/wanted?losses"),
        ("PUT", f"{ROUND}/data"),
        ("PUT", f"{ROUND}/update/more"),
        ("PUT", f"{ROUND}/attempts/1/keys?accuracy=1"),
        ("GET", "http://elsewhere/v2/wanted"),
        ("GET", "/"),
        ("CONNECT", "somewhere:443/v1"),
    ],
)
def test_what_nobody_can_explain_is_refused(method: str, target: str):
    """Another method, another path, or a parameter that says what it may not."""
    with pytest.raises(EgressUnexplained, match=r"was not sent; install the release"):
        kind_of(method, target)


def test_a_refusal_does_not_repeat_what_would_have_been_said():
    """The parameter is named; its value might be what must not leave, a log included."""
    with pytest.raises(EgressUnexplained, match=r"says loss, which") as refused:
        kind_of("GET", "/v1/wanted?loss=0.3141")
    assert "0.3141" not in str(refused.value)


@pytest.mark.parametrize(
    ("method", "target", "words"),
    [
        ("GET", "/v1/wanted?wait_seconds=25", "asks whether something is wanted of it; says how long it waits"),
        ("GET", "/v1/wanted?declined=a&declined=b&holding=c", "says which adapter it holds and which runs"),
        ("PUT", f"{ROUND}/update", "the coordinator can read it alone (run demo, round 3)"),
        ("PUT", f"{ROUND}/update?examples=9", "says how many private examples it has (run demo, round 3)"),
        ("PUT", f"http://coordinator:8440{ROUND}/update", "(run demo, round 3)"),
        ("GET", f"{ROUND}/aggregate", "fetches the mean of a round's updates, to compare it here (run demo, round 3)"),
        ("PUT", f"{ROUND}/attempts/2/masked", "can be read (run demo, round 3, attempt 2)"),
        ("CONNECT", "coordinator.example:443", "asks this organisation's proxy for a way to the coordinator"),
    ],
)
def test_a_request_is_told_in_words(method: str, target: str, words: str):
    """What it was for, what its query says, and of which run, round and attempt."""
    assert words in in_words(kind_of(method, target), target)


def test_what_comes_of_the_data_has_a_rule():
    """Whatever carries an update, or shares of what hides it, was allowed by a setting of the local policy."""
    assert {kind.name for kind in KINDS if kind.rule} == {"shares", "masked", "unmasking", "update"}
    assert all(kind.rule.startswith("policy.") for kind in KINDS if kind.rule)


def test_kinds_have_names_of_their_own():
    """An entry keeps the name alone."""
    assert len({kind.name for kind in KINDS}) == len(KINDS)
