import asyncio
import gzip
import json
import traceback
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import stamina
from structlog.testing import capture_logs

from bench.federation import ManualClock
from shared.answers import pause, time_told
from shared.backoff import Backoff
from shared.credentials import BearerToken
from shared.egress import Egress, TrafficCount
from shared.errors import ConfigurationError, DigestMismatch, MessageInvalid, RemoteProblem, TransportError, Unreachable
from shared.listening import listen
from shared.logs import TroubleLog
from shared.protocol.digests import digest_of
from shared.transport import open_transport
from tests.support.scripted import (
    BLOB,
    DIGEST,
    HELLO,
    Body,
    Coordinator,
    Greeting,
    Journal,
    Question,
    answer,
    blob_answer,
    talking_to,
)

pytestmark = pytest.mark.anyio


# --- calls --------------------------------------------------------------------------------------------------------


async def test_a_call_says_who_asks_and_which_protocol_is_spoken() -> None:
    """Every kind of request carries the protocol's version and the authenticator's fields."""
    other = Coordinator([HELLO, HELLO, blob_answer(BLOB)])
    path = Path(__file__)
    async with talking_to(other) as transport:
        await transport.call("POST", "/v1/x", Greeting, body=Question(name="ada"), params={"wait_seconds": 3})
        await transport.upload("/v1/y", path, Greeting, digest=digest_of(path.read_bytes()))
        with pytest.raises(DigestMismatch):
            await transport.download("/v1/z", Path("/tmp/never-written"), digest=digest_of(b""))  # noqa: S108
    assert json.loads(other.bodies[0]) == {"name": "ada"}
    assert other.requests[0].url.params["wait_seconds"] == "3"
    for request in other.requests:
        assert request.headers["FedCoLLM-Protocol"] == "1"
        assert request.headers["Authorization"] == "Bearer token"


async def test_the_authenticator_sees_what_it_signs() -> None:
    """Method, path, size and digest are known before the fields are made, and anew for each attempt."""
    seen: list[Egress] = []

    class Signer:
        def fields(self, request: Egress) -> Mapping[str, str]:
            seen.append(request)
            return {"Signature": f"number {len(seen)}"}

    other = Coordinator([answer(503, "version_conflict"), HELLO])
    async with talking_to(other, authenticator=Signer()) as transport:
        await transport.call("POST", "/v1/x", Greeting, body=Question(name="ada"))
    body = b'{"name":"ada"}'
    assert seen == [Egress("POST", "/v1/x", len(body), digest_of(body))] * 2
    assert [request.headers["Signature"] for request in other.requests] == ["number 1", "number 2"]


async def test_the_ledger_sees_the_query_as_it_leaves(tmp_path: Path) -> None:
    """Parameters leave this machine too: what is announced is the target that is sent, to the byte."""
    (tmp_path / "blob").write_bytes(BLOB)
    other = Coordinator([HELLO, HELLO, blob_answer(BLOB)])
    journal, odd = Journal(other), {"holding": "sha256:é & ü", "wait_seconds": 2.5}
    async with talking_to(other, ledger=journal) as transport:
        await transport.call("GET", "/v1/x", Greeting, params=odd)
        await transport.upload("/v1/y", tmp_path / "blob", Greeting, digest=DIGEST, params={"examples": 8})
        await transport.download(f"/v1/{DIGEST}", tmp_path / "other", digest=DIGEST)
    announced = [request.target for request, _ in journal.lines]
    assert announced == [request.url.raw_path.decode() for request in other.requests]
    assert announced[1:] == ["/v1/y?examples=8", f"/v1/{DIGEST}"]
    assert dict(other.requests[0].url.params) == {"holding": "sha256:é & ü", "wait_seconds": "2.5"}


def test_no_token_sends_no_authorization() -> None:
    """An empty token is none: nothing that looks like a credential is sent."""
    assert BearerToken("").fields(Egress("GET", "/", 0, "")) == {}


async def test_the_ledger_is_told_before_anything_leaves() -> None:
    """Each attempt is announced before its bytes go out, and a retry is another line."""
    other = Coordinator([answer(503, "version_conflict"), httpx.ConnectError("gone"), HELLO])
    journal = Journal(other)
    async with talking_to(other, ledger=journal) as transport:
        await transport.call("POST", "/v1/x", Greeting, body=Question(name="ada"))
    assert [already_left for _, already_left in journal.lines] == [0, 1, 2]
    assert {request.bytes for request, _ in journal.lines} == {len(b'{"name":"ada"}')}


async def test_a_ledger_that_objects_stops_the_request(tmp_path: Path) -> None:
    """What must not leave does not leave: not one byte of it."""

    class Refusal(Exception):
        pass

    class Strict:
        def record(self, request: Egress, **_: object) -> None:
            raise Refusal(request.target)

    other = Coordinator([HELLO] * 3)
    (tmp_path / "blob").write_bytes(BLOB)
    async with talking_to(other, ledger=Strict()) as transport:
        with pytest.raises(Refusal):
            await transport.call("GET", "/v1/x", Greeting)
        with pytest.raises(Refusal):
            await transport.upload("/v1/y", tmp_path / "blob", Greeting, digest=DIGEST)
        with pytest.raises(Refusal):
            await transport.download("/v1/z", tmp_path / "other", digest=DIGEST)
    assert other.requests == []


async def test_the_traffic_count_adds_up_heads_and_bodies() -> None:
    """What an organisation reads as sent is what was sent, retries included."""
    other, count = Coordinator([answer(503, "x"), HELLO, HELLO]), TrafficCount()
    async with talking_to(other, ledger=count) as transport:
        await transport.call("POST", "/v1/x", Greeting, body=Question(name="ada"))
        await transport.call("GET", "/v1/y", Greeting)
    heads = [
        f"{request.method} {request.url.raw_path.decode()} HTTP/1.1\r\n"
        + "".join(f"{name.decode()}: {value.decode()}\r\n" for name, value in request.headers.raw)
        + "\r\n"
        for request in other.requests
    ]
    assert (count.requests, count.bytes) == (3, sum(map(len, heads)) + sum(map(len, other.bodies)))


# --- trying again -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("silence"),
        httpx.RemoteProtocolError("cut off"),
        httpx.WriteError("broken pipe"),
        httpx.ProxyError("502 Bad Gateway"),
        answer(429, "slow_down"),
        answer(502, "x"),
        answer(503, "version_conflict"),
        answer(504, "x"),
        answer(507, "storage_full"),
        httpx.Response(503, text="<html>a proxy speaks</html>"),
        httpx.Response(500, text="Internal Server Error"),  # uvicorn's, for what it breaks off when it is stopped
    ],
)
async def test_what_may_pass_is_waited_out(fault: httpx.Response | Exception) -> None:
    """A coordinator that restarts, a lost connection and a 'try again' do not reach the caller."""
    other = Coordinator([fault, HELLO])
    async with talking_to(other) as transport:
        assert (await transport.call("GET", "/v1/x", Greeting)).text == "hello"
    assert len(other.requests) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 411, 413, 422, 500])
async def test_what_will_not_pass_is_not_tried_again(status: int) -> None:
    """An answer that stays the same is told at once, as the other side's code and words."""
    other = Coordinator([answer(status, "some_code"), HELLO])
    async with talking_to(other) as transport:
        with pytest.raises(RemoteProblem, match="what happened") as problem:
            await transport.call("GET", "/v1/x", Greeting)
    assert (problem.value.code, problem.value.status, len(other.requests)) == ("some_code", status, 1)


async def test_who_wants_to_show_it_is_told_of_every_retry() -> None:
    """Why a request is sent again is told each time, and once that there was an answer, whatever it says."""
    faults = [httpx.ConnectError("refused"), answer(507, "storage_full"), HELLO, answer(404, "not_found")]
    told: list[TransportError | None] = []
    async with talking_to(Coordinator(faults), on_retry=told.append) as transport:
        await transport.call("GET", "/v1/x", Greeting)
        with pytest.raises(RemoteProblem):
            await transport.call("GET", "/v1/x", Greeting)
    assert [problem and problem.code for problem in told] == ["unreachable", "storage_full", None, None]


@pytest.mark.parametrize(
    "end", [httpx.ConnectError("refused"), httpx.UnsupportedProtocol(""), asyncio.CancelledError()]
)
async def test_who_gives_up_is_not_told_of_an_answer(end: BaseException) -> None:
    """Patience that has ended, a setting that cannot work, Ctrl-C: none of them means that somebody answered."""
    told: list[TransportError | None] = []
    script = [httpx.ConnectError("refused"), httpx.ConnectError("refused"), end]
    async with talking_to(Coordinator(script), on_retry=told.append) as transport:
        with pytest.raises((Unreachable, ConfigurationError, asyncio.CancelledError)):
            await transport.call("GET", "/v1/x", Greeting)
    assert {problem and problem.code for problem in told} == {"unreachable"}


async def test_the_log_of_a_service_tells_when_trouble_begins_and_when_it_is_over() -> None:
    """Once each, with the address and what to look at, however often a request is sent again."""
    gone, hello = [httpx.ConnectError("refused")] * 2, [HELLO]
    with capture_logs() as lines:
        async with talking_to(
            Coordinator(gone + hello + hello + gone + hello), on_retry=TroubleLog("http://coordinator")
        ) as transport:
            for _ in range(3):
                await transport.call("GET", "/v1/x", Greeting)
    assert [line["event"] for line in lines] == ["coordinator.trouble", "coordinator.answers_again"] * 2
    assert "http://coordinator/v1/x did not answer" in lines[0]["detail"]
    assert "is the coordinator running" in lines[0]["detail"]


def test_hours_of_trouble_are_a_line_an_hour(clock: ManualClock) -> None:
    """Each says how often it was tried and for how long it has gone on; the last one, how long it took in all."""
    trouble = TroubleLog("http://coordinator", clock)
    with capture_logs() as lines:
        for _ in range(3 * 120):
            trouble(Unreachable("nobody answers"))
            clock.advance(30)
        trouble(None)
        trouble(None)
        trouble(Unreachable("nobody answers"))
    told = [(line["event"].partition(".")[2], line.get("times"), line["seconds"]) for line in lines]
    hourly = [("trouble", times, seconds) for times, seconds in ((1, 0.0), (121, 3600.0), (241, 7200.0))]
    assert told == [*hourly, ("answers_again", None, 10_800.0), ("trouble", 1, 0.0)]


async def slept_through(script: list[httpx.Response | BaseException], *, calls: int = 1) -> list[float]:
    """Return how long a transport whose back-off is the longest that it can be has waited between requests."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    with pytest.MonkeyPatch.context() as patch, stamina.set_testing(False):
        patch.setattr(asyncio, "sleep", sleep)
        async with talking_to(Coordinator(script), backoff=Backoff(1.0, 60.0, lambda: 1.0)) as transport:
            for _ in range(calls):
                await transport.call("GET", "/v1/x", Greeting)
    return [seconds for seconds in slept if seconds > 0]


async def test_retry_after_is_honoured_and_not_by_all_in_the_same_moment() -> None:
    """Nobody comes before the coordinator has asked for it, and how long after that is one's own back-off."""
    busy = answer(507, "storage_full", **{"Retry-After": "17"})
    assert await slept_through([busy, answer(503, "x"), busy, HELLO]) == [17 + 1, 2, 17 + 4]


async def test_waiting_begins_anew_after_an_answer() -> None:
    """What went wrong before the last answer says nothing about what goes wrong now."""
    gone = httpx.ConnectError("refused")
    assert await slept_through([gone, gone, gone, HELLO, gone, HELLO], calls=2) == [1, 2, 4, 1]


async def test_patience_has_an_end_and_a_reason() -> None:
    """Where nobody answers the caller reads which address, and what to look at."""
    other = Coordinator([httpx.ConnectError("refused")] * 3)
    async with talking_to(other) as transport:
        with pytest.raises(Unreachable, match=r"http://coordinator/v1/x did not answer \(ConnectError\)"):
            await transport.call("GET", "/v1/x", Greeting)
    assert len(other.requests) == 3


@pytest.mark.parametrize("text", ["Illegal header value b'Bearer a-secret'", "Invalid port"])
@pytest.mark.parametrize("kind", [httpx.LocalProtocolError, httpx.UnsupportedProtocol])
async def test_a_request_that_cannot_be_made_is_not_tried_again(kind: type[Exception], text: str) -> None:
    """What is wrong with the settings stays wrong: it is told at once, without what the credential is."""
    other = Coordinator([kind(text), HELLO])
    async with talking_to(other) as transport:
        with pytest.raises(ConfigurationError, match=r"no request for http://coordinator/v1/x") as told:
            await transport.call("GET", "/v1/x", Greeting)
    assert len(other.requests) == 1
    assert text not in "".join(traceback.format_exception(told.value))


@pytest.mark.parametrize(("path", "why"), [("/v1/" + "x" * (1 << 16), "too long"), ("/v1/\n", "non-printable")])
async def test_an_address_that_is_none_is_an_error_of_ours(path: str, why: str) -> None:
    """So that no loop ends by it."""
    other = Coordinator([])
    async with talking_to(other) as transport:
        with pytest.raises(ConfigurationError, match=rf"^no request for .* can be made .*{why}"):
            await transport.call("GET", path, Greeting)
    assert other.requests == []


async def test_no_log_carries_a_header(caplog: pytest.LogCaptureFixture) -> None:
    """Trouble is logged in our own words: texts that quote a request's fields stay out of every log."""
    token, caught = "a-very-secret-token", []
    quoting = [httpx.ReadError(f"after 'Bearer {token}'"), httpx.Response(503, text=f"got 'Bearer {token}'")]
    caplog.set_level("INFO")
    with capture_logs() as lines:
        for fault in quoting:
            async with talking_to(
                Coordinator([fault, HELLO]), authenticator=BearerToken(token), on_retry=TroubleLog("http://coordinator")
            ) as transport:
                await transport.call("GET", "/v1/x", Greeting)
        with listen("127.0.0.1", 0) as there:
            url = f"http://127.0.0.1:{there.getsockname()[1]}"
            async with open_transport(
                url, BearerToken(f"{token}\n"), TrafficCount(), patience_seconds=0.01
            ) as transport:
                with pytest.raises(ConfigurationError) as told:
                    await transport.call("GET", "/v1/x", Greeting)
                caught.append(str(told.value))
    assert [line["event"] for line in lines] == ["coordinator.trouble", "coordinator.answers_again"] * 2
    assert token not in f"{lines}{caplog.text}{caught}"


async def test_a_coordinator_that_stays_busy_is_told_as_its_problem() -> None:
    """After all retries the last 'try again' is what the caller gets, with its code."""
    other = Coordinator([answer(503, "version_conflict")] * 3)
    async with talking_to(other) as transport:
        with pytest.raises(RemoteProblem) as problem:
            await transport.call("GET", "/v1/x", Greeting)
    assert problem.value.code == "version_conflict"


async def test_an_error_that_is_no_problem_document_is_still_told() -> None:
    """A proxy's page becomes a RemoteProblem with what can be said of it, cut to a bearable length."""
    other = Coordinator([httpx.Response(404, text="<html>" + "x" * 10_000)])
    async with talking_to(other) as transport:
        with pytest.raises(RemoteProblem) as problem:
            await transport.call("GET", "/v1/x", Greeting)
    assert (problem.value.code, problem.value.status) == ("http_error", 404)
    assert len(str(problem.value)) < 1000


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"<html>", b'{"text": "x", "text": ', b'{"text": 3}'])
async def test_an_answer_of_another_form_is_refused(content: bytes) -> None:
    """A success that is not what the protocol says is an error of the tree, not a crash."""
    async with talking_to(Coordinator([httpx.Response(200, content=content)])) as transport:
        with pytest.raises(MessageInvalid, match="/v1/x"):
            await transport.call("GET", "/v1/x", Greeting)


# --- sockets ------------------------------------------------------------------------------------------------------


async def test_nobody_there_is_unreachable() -> None:
    """A real connection that is refused is told after all retries."""
    with listen("127.0.0.1", 0) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    async with open_transport(url, BearerToken(""), TrafficCount(), patience_seconds=0.01) as transport:
        with pytest.raises(Unreachable, match="is the coordinator running"):
            await transport.call("GET", "/v1/x", Greeting)


def test_a_port_in_use_is_named() -> None:
    """Whoever starts a second coordinator reads which port, and which setting to change."""
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"{port}: Address already in use.* set work_port to another"):
            listen("127.0.0.1", port, "work_port")


# --- answers of anybody -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 404, 503])
async def test_an_answer_without_end_is_not_kept(status: int) -> None:
    """Whatever its status says: it is read up to what ours have at most, and no further."""
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1 << 20
            yield bytes(1 << 20)

    other = Coordinator([httpx.Response(status, content=endless())])
    async with talking_to(other) as transport:
        with pytest.raises(MessageInvalid, match="more than 16777216 bytes"):
            await transport.call("GET", "/v1/x", Greeting)
    assert read == 17 << 20


async def test_a_packed_answer_is_not_unpacked() -> None:
    """A megabyte may unpack to a gigabyte: none is asked for, and one that comes all the same is not read."""
    bomb = gzip.compress(bytes(10 << 20))
    packed = {"Content-Encoding": "gzip"}
    other = Coordinator([httpx.Response(503, stream=Body(bomb), headers=packed)] * 2)
    other.script.insert(1, httpx.Response(200, stream=Body(bomb), headers=packed))
    async with talking_to(other) as transport:
        with pytest.raises(MessageInvalid, match="the protocol does not say"):
            await transport.call("GET", "/v1/x", Greeting)
    assert [request.headers["Accept-Encoding"] for request in other.requests] == ["identity"] * 2


@pytest.mark.parametrize("detail", [b"x" * 5000, b"\xff\x00 not UTF-8"])
async def test_a_refusal_that_is_no_document_is_told_in_part(detail: bytes) -> None:
    """What somebody else's server says may be long, and not even text."""
    async with talking_to(Coordinator([httpx.Response(404, content=detail)])) as transport:
        with pytest.raises(RemoteProblem) as problem:
            await transport.call("GET", "/v1/x", Greeting)
    assert len(problem.value.detail) <= 500


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("17", 17.0), ("9" * 400, 3600.0), ("", 0.0), ("-1", 0.0), ("1e9", 0.0), ("Wed, 21 Oct 2026", 0.0)],
)
def test_nobody_is_told_to_wait_for_longer_than_an_hour(said: str, seconds: float) -> None:
    """What Retry-After says is taken where it is a number of seconds, and a number without end is not."""
    assert pause(said) == seconds


@pytest.mark.parametrize(
    "date",
    [None, "", "now", "Wed, 99 Oct 2026 07:28:00 GMT", "1 Jan 99999 00:00:00 +9999", "Wed, 21 Oct 2026 07:28:00 -0000"],
)
def test_a_time_that_is_none_is_not_told(date: str | None) -> None:
    """A clock is compared with what a Date field says, if that is a moment."""
    assert time_told(date) is None


def test_a_time_is_told() -> None:
    """As every server says it."""
    assert time_told("Wed, 21 Oct 2026 07:28:00 GMT") == datetime(2026, 10, 21, 7, 28, tzinfo=UTC)
