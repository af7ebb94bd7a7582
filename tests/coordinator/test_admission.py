"""Who is let in: agents by the signature over each request, everybody else by a token, nobody too often."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench.federation import FEDERATION, NOT_AFTER, ManualClock, admit, key_of, settings_of, token_of
from services.coordinator.admission import Admission, Arrival
from services.coordinator.context import Context, open_context
from services.coordinator.nonces import Nonces
from services.coordinator.principals import NOBODY, Principal, Role
from services.coordinator.tokens import KnownTokens, issue
from shared.errors import (
    BlobTooLarge,
    ClockSkewed,
    FederationMismatch,
    NotAMember,
    NotAuthenticated,
    ProtocolError,
    RequestReplayed,
    RequestSignatureInvalid,
    TooManyRequests,
)
from shared.protocol.digests import digest_of, to_field
from shared.protocol.identity import IdentityKey
from shared.protocol.membership import MemberState
from shared.protocol.request_signatures import LIFETIME_SECONDS, TOLERANCE_SECONDS, sign_request
from tests.support.federations import adapter, begin, client, coordinator
from tests.support.members import enrolment
from tests.support.requests import UPDATE, announcing, assert_problem, fields_of

AGENT = (Role.AGENT,)
TARGET = "/v1/wanted?wait_seconds=0"


def arriving(
    clock: ManualClock,
    name: str = "ada",
    *,
    key: IdentityKey | None = None,
    federation: str = FEDERATION,
    nonce: str = "0123456789abcdef",
    body: bytes = b"",
    address: str = "192.0.2.1",
) -> Arrival:
    """Return a request that an agent has signed."""
    digest = digest_of(body)
    announced = {"Content-Digest": to_field(digest)} | ({"Content-Length": str(len(body))} if body else {})
    signature = sign_request(
        name,
        key or key_of(name),
        federation,
        method="GET",
        target=TARGET,
        digest=digest,
        length=len(body),
        now=clock(),
        nonce=nonce,
    )
    return Arrival("GET", TARGET, [*announced.items(), *signature.items()], address)


def bearing(token: str, address: str = "192.0.2.1") -> Arrival:
    """Return a request with a token."""
    return Arrival("GET", "/v1/runs", [("authorization", f"Bearer {token}")], address)


def change(context: Context, name: str = "ada", **changes: object) -> None:
    """Change what the coordinator knows of a member."""
    with context.store.write() as tx:
        member = tx.members.get(name)
        tx.members.change(member, replace(member, **changes), actor="operator")


# --- who it is ----------------------------------------------------------------------------------------------------


def test_an_agent_is_known_by_its_signature(context: Context, clock: ManualClock) -> None:
    """And what it signed for the body is what the body must be."""
    admitted = context.admission.admit(arriving(clock, body=b"body"), AGENT)
    assert admitted.principal == Principal("ada", Role.AGENT)
    assert admitted.digest == digest_of(b"body")


def test_where_anyone_may_ask_nothing_is_looked_at(context: Context, clock: ManualClock) -> None:
    """A wrong credential does no harm there either."""
    for arrival in (bearing("wrong"), arriving(clock, key=key_of("eve"))):
        assert context.admission.admit(arrival, (Role.ANYONE,)).principal == NOBODY


@pytest.mark.parametrize("name", ["bob", "operator", "eve"])
def test_nobody_signs_for_another(name: str, context: Context, clock: ManualClock) -> None:
    """Another member's name, the operator's or one that nobody has: the key must be theirs."""
    with pytest.raises((RequestSignatureInvalid, NotAMember)):
        context.admission.admit(arriving(clock, name, key=key_of("ada")), AGENT)


def test_a_request_is_answered_once(context: Context, clock: ManualClock) -> None:
    """Whoever sends the same bytes again is refused, and whoever signs anew is not; other agents' nonces are theirs."""
    context.admission.admit(arriving(clock), AGENT)
    with pytest.raises(RequestReplayed):
        context.admission.admit(arriving(clock), AGENT)
    context.admission.admit(arriving(clock, nonce="fedcba9876543210"), AGENT)
    context.admission.admit(arriving(clock, "bob"), AGENT)


def test_a_request_is_never_good_again(tmp_path: Path, clock: ManualClock) -> None:
    """A nonce is forgotten only when the signature is too old: at no moment is the same request let in twice."""
    first = arriving(clock)
    with coordinator(tmp_path, clock) as context:
        context.admission.admit(first, AGENT)
        for _ in range(LIFETIME_SECONDS + TOLERANCE_SECONDS + 2):
            clock.advance(1)
            context.admission.forget()
            with pytest.raises((RequestReplayed, ClockSkewed)):
                context.admission.admit(first, AGENT)


def test_a_replay_is_refused_after_a_restart(tmp_path: Path, clock: ManualClock) -> None:
    """What has come is remembered beside the store."""
    with coordinator(tmp_path, clock) as context:
        context.admission.admit(arriving(clock), AGENT)
    with coordinator(tmp_path, clock) as context, pytest.raises(RequestReplayed):
        context.admission.admit(arriving(clock), AGENT)


@pytest.mark.parametrize("seconds", [-3600, 3600])
def test_a_clock_that_is_wrong_is_told(seconds: float, context: Context, clock: ManualClock) -> None:
    """With both times; the nonce is not used up by it."""
    wrong = ManualClock(clock() + seconds)
    with pytest.raises(ClockSkewed, match="by the clock of ada"):
        context.admission.admit(arriving(wrong), AGENT)
    context.admission.admit(arriving(clock), AGENT)


def test_a_request_for_another_federation_is_refused(context: Context, clock: ManualClock) -> None:
    """An agent of two federations cannot be made to tell one what it told the other."""
    with pytest.raises(FederationMismatch, match="for federation banks, and this coordinator is of in-memory"):
        context.admission.admit(arriving(clock, federation="banks"), AGENT)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"state": MemberState.INVITED, "key": None}, "has not enrolled"),
        ({"state": MemberState.PENDING}, "is not approved yet"),
        ({"state": MemberState.REVOKED}, "was revoked"),
        ({"not_after": 1_600_000_000}, "was approved until 2020-09-13"),
    ],
)
def test_who_is_no_member_is_told_why(
    changes: dict[str, object], said: str, context: Context, clock: ManualClock
) -> None:
    """From its next request on, whatever it has signed before."""
    context.admission.admit(arriving(clock), AGENT)
    change(context, **changes)
    with pytest.raises(NotAMember, match=said):
        context.admission.admit(arriving(clock, nonce="fedcba9876543210"), AGENT)


@pytest.mark.parametrize("name", ["ada", "coordinator"])
def test_a_token_for_somebody_elses_name_is_nobodys(name: str, tmp_path: Path, clock: ManualClock) -> None:
    """The audit log names who has done what, an agent, the coordinator itself or who has a token: never two alike."""
    token, entry = issue(Role.OPERATOR)
    with open_context(settings_of(tmp_path), KnownTokens({name: entry}), clock) as context:
        admit(context, ["ada"], clock)
        with pytest.raises(NotAuthenticated, match=f"the audit log calls somebody else {name}"):
            context.admission.admit(bearing(token), (Role.OPERATOR,))


def test_whether_somebody_was_revoked_is_told_to_them_alone(context: Context, clock: ManualClock) -> None:
    """Whoever cannot sign for a name does not learn how it stands."""
    change(context, state=MemberState.REVOKED)
    with pytest.raises(RequestSignatureInvalid):
        context.admission.admit(arriving(clock, key=key_of("eve")), AGENT)


# --- how much -----------------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path, clock: ManualClock) -> Iterator[Context]:
    """A coordinator that lets nobody send much, by a clock that stands."""
    limits = {"requests_per_minute": 3, "failures_per_minute": 2, "upload_bytes_per_day": 100}
    with coordinator(tmp_path / "small", clock, **limits) as context:
        nonces = Nonces(tmp_path / "others.db")
        admission = Admission(
            context.settings, context.admission._tokens, context.store, nonces, clock, passing=ManualClock(0.0)
        )
        yield replace(context, admission=admission)
        nonces.close()


def test_each_party_may_send_so_much_a_minute(small: Context, clock: ManualClock) -> None:
    """Then it reads when to come again, and nobody else is held up, from the same address either."""
    for number in range(3):
        small.admission.admit(arriving(clock, nonce=f"{number:016}"), AGENT)
    with pytest.raises(TooManyRequests, match="agent ada sends more than 3 requests a minute") as refusal:
        small.admission.admit(arriving(clock, nonce="fedcba9876543210"), AGENT)
    assert refusal.value.after_seconds == pytest.approx(20)
    small.admission.admit(arriving(clock, "bob"), AGENT)
    small.admission.admit(bearing(token_of("viewer")), (Role.VIEWER,))


def test_an_address_that_nobody_is_known_by_waits(small: Context) -> None:
    """It still reads what is wrong; another address does not wait, and who is known is let in from the same one."""
    for _ in range(2):
        with pytest.raises(NotAuthenticated):
            small.admission.admit(bearing("wrong"), (Role.VIEWER,))
    with pytest.raises(TooManyRequests, match=r"no token that this coordinator knows.*2 requests from 192\.0\.2\.1"):
        small.admission.admit(bearing("wrong"), (Role.VIEWER,))
    with pytest.raises(NotAuthenticated):
        small.admission.admit(bearing("wrong", "192.0.2.2"), (Role.VIEWER,))
    assert small.admission.admit(bearing(token_of("viewer")), (Role.VIEWER,)).principal.name == "viewer"


def enrolled(context: Context, clock: ManualClock) -> Arrival:
    """Return a request of who is not approved yet."""
    change(context, state=MemberState.PENDING)
    return arriving(clock)


def replayed(context: Context, clock: ManualClock) -> Arrival:
    """Return a request that was let in before."""
    context.admission.admit(arriving(clock), AGENT)
    return arriving(clock)


def expired(_: Context, clock: ManualClock) -> Arrival:
    """Return a request that was signed an hour ago."""
    return arriving(ManualClock(clock() - 3600))


FAILURES: dict[type[ProtocolError], Callable[[Context, ManualClock], Arrival]] = {
    NotAuthenticated: lambda _, __: bearing("wrong"),
    NotAMember: enrolled,
    RequestSignatureInvalid: lambda _, clock: arriving(clock, key=key_of("eve")),
    RequestReplayed: replayed,
    ClockSkewed: expired,
    FederationMismatch: lambda _, clock: arriving(clock, federation="banks"),
}


@pytest.mark.parametrize("error", FAILURES)
def test_whatever_shows_nobody_is_counted(error: type[ProtocolError], small: Context, clock: ManualClock) -> None:
    """Also what an agent has signed and anybody may send again: its signature is checked each time."""
    arrival = FAILURES[error](small, clock)
    for _ in range(2):
        with pytest.raises(error):
            small.admission.admit(arrival, (Role.AGENT, Role.VIEWER))
    with pytest.raises(TooManyRequests, match=r"2 requests from 192\.0\.2\.1"):
        small.admission.admit(arrival, (Role.AGENT, Role.VIEWER))


def test_an_agent_sends_so_many_bytes_a_day(small: Context, clock: ManualClock) -> None:
    """What it has signed for is counted before it comes; a body that is larger than a day's is refused for good."""
    small.admission.admit(arriving(clock, body=bytes(60)), AGENT)
    with pytest.raises(TooManyRequests, match="ada has sent as much as an agent may in a day, 100 bytes") as refusal:
        small.admission.admit(arriving(clock, body=bytes(60), nonce="fedcba9876543210"), AGENT)
    assert refusal.value.after_seconds == pytest.approx(86_400 * 0.2)
    with pytest.raises(BlobTooLarge):
        small.admission.admit(arriving(clock, body=bytes(101), nonce="0" * 16), AGENT)


# --- over HTTP ----------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_too_many_requests_say_when_to_come_again(small: Context) -> None:
    """A problem document with Retry-After in whole seconds, which every client of ours waits out."""
    async with client(small, "viewer") as http:
        assert [(await http.get("/v1/runs")).status_code for _ in range(3)] == [200] * 3
        response = await http.get("/v1/runs")
    assert_problem(response, 429, "too_many_requests")
    assert response.headers["Retry-After"] == "20"


@pytest.mark.anyio
@pytest.mark.parametrize(("prover", "status"), [("eve", 403), ("ada", 422)])
async def test_whoever_guesses_invitations_waits(prover: str, status: int, small: Context) -> None:
    """Enrolment is open to everybody, and so each address may fail few times, with a proof of the key and without."""
    guess = enrolment("A" * 43, key_of("eve"), "eve", prover=key_of(prover)).model_dump()
    async with client(small, None) as http:
        answers = [(await http.post("/v1/enrol", json=guess)).status_code for _ in range(3)]
    assert answers == [status, status, 429]


@pytest.mark.anyio
async def test_a_body_that_was_not_signed_is_refused(context: Context) -> None:
    """Whoever changes a body on its way has changed the request, also where the route reads none."""
    begin(context)
    async with client(context, None) as http:
        for method, path, body in (
            ("GET", "/v1/wanted", b""),
            ("GET", "/v1/wanted", b"{}"),
            ("PUT", UPDATE, adapter(1.0)),
        ):
            fields = fields_of(context, "ada", method, path, **announcing(body))
            response = await http.request(method, path, content=b"y" * len(body) or b"y", headers=fields)
            assert_problem(response, 400, "digest_mismatch")


@pytest.mark.anyio
async def test_what_a_proxy_changes_does_not_matter_unless_it_is_signed(context: Context) -> None:
    """Another host, fields of its own, and no Content-Length of nothing; a second time is a second time."""
    fields = fields_of(context, "ada", "GET", "/v1/wanted") | {"X-Forwarded-For": "192.0.2.9", "Via": "1.1 proxy"}
    del fields["Content-Length"]
    async with client(context, None) as http:
        assert (await http.get("http://127.0.0.1:8440/v1/wanted", headers=fields)).status_code == 200
        again = await http.get("http://coordinator.example/v1/wanted", headers=fields)
        assert_problem(again, 401, "request_replayed")


def test_a_certificate_may_be_for_ever(context: Context, clock: ManualClock) -> None:
    """As long as seconds can be counted."""
    change(context, not_after=NOT_AFTER)
    assert context.admission.admit(arriving(clock), AGENT).principal.name == "ada"
