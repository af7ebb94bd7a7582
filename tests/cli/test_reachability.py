"""Checks of the way to a coordinator, against real sockets on loopback."""

from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from starlette.types import Receive, Scope, Send

from shared.cli.reachability import certificate, clock, connection, encryption, host_name, reaching
from shared.credentials import BearerToken
from shared.egress import TrafficCount
from shared.errors import ConfigurationError, MessageInvalid, RemoteProblem
from shared.findings import Check, Finding, Verdict, examine, ok
from shared.listening import listen
from shared.loopback import is_here
from shared.transport import Transport
from tests.support.tls import Certificates, certificates, proxy, served

NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


async def app(_scope: Scope, receive: Receive, send: Send) -> None:
    """Be another server than a coordinator."""
    await receive()
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b"<html>"})


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates of an organisation's own CA."""
    return certificates(tmp_path_factory.mktemp("own"))


def test_a_certificate_of_an_unknown_ca_is_shown_by_its_fingerprint(own: Certificates):
    """What is to be set, and which certificate it is about: people compare it with the operator's."""
    with served(app, own) as url:
        found = certificate(url, None)
    assert found.verdict is Verdict.FAILED
    assert "set ca_file" in found.detail
    assert own.fingerprint in found.detail


def test_a_trusted_certificate_says_for_how_long(own: Certificates):
    """With the CA that is trusted for it."""
    with served(app, own) as url:
        found = certificate(url, own.ca_file)
    assert found.verdict is Verdict.OK
    assert "another 59 days" in found.detail


def test_a_certificate_that_ends_soon_is_a_warning(tmp_path: Path):
    """Before everything stops at once."""
    ending = certificates(tmp_path, days=29)
    with served(app, ending) as url:
        found = certificate(url, ending.ca_file)
    assert found.verdict is Verdict.WARNING
    assert "remind the operator" in found.advice


def test_a_server_without_tls_is_told():
    """The address says https and the port does not speak it."""
    with served(app) as url:
        found = certificate(url.replace("http:", "https:"), None)
    assert found.verdict is Verdict.FAILED
    assert "was http:// meant" in found.advice


def test_a_certificate_is_looked_at_through_the_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where only the proxy knows the host; its name and password go to it alone."""
    far = certificates(tmp_path, host="coordinator.test")
    with served(app, far) as url, proxy(url) as between:
        monkeypatch.setenv("HTTPS_PROXY", between.url)
        assert certificate("https://coordinator.test:8440", far.ca_file).verdict is Verdict.OK
        found = host_name("https://coordinator.test:8440")
        assert connection("https://coordinator.test:8440").verdict is Verdict.OK
    assert "by the proxy 127.0.0.1:" in found.detail
    assert "a-secret" not in found.detail
    assert [line.split()[:2] for line in between.asked] == [["CONNECT", "coordinator.test:8440"]]


def test_a_proxy_that_refuses_is_told(monkeypatch: pytest.MonkeyPatch):
    """With who can change that."""
    with served(app) as url, proxy(url, refusing=True) as between:
        monkeypatch.setenv("HTTPS_PROXY", between.url)
        found = certificate("https://coordinator.test:8440", None)
    assert found.verdict is Verdict.FAILED
    assert "403" in found.detail
    assert "NO_PROXY" in found.advice


class Telling(Transport):
    """A coordinator whose answers carry a time."""

    def __init__(self, there: datetime | Exception | None) -> None:
        self._there = there

    async def time_there(self) -> datetime | None:
        """Say it."""
        if isinstance(self._there, Exception):
            raise self._there
        return self._there


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("ahead", "verdict", "said"),
    [(-10, "ok", "that of"), (-100, "warning", "100 s ahead of"), (3600, "warning", "behind")],
)
async def test_a_clock_that_is_wrong_is_a_warning(ahead: int, verdict: str, said: str):
    """Half a minute is let pass."""
    found = await clock(Telling(datetime.now(UTC) + timedelta(seconds=ahead)))
    assert found.verdict == verdict
    assert said in found.detail


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("answer", "advice"),
    [
        (RemoteProblem("http_error", 404, "<html>"), "what answers there is no coordinator"),
        (MessageInvalid("a page where an answer should be"), "what answers there is no coordinator"),
        (RemoteProblem("http_error", 407, "who are you?"), "give the proxy a name and a password"),
    ],
)
async def test_a_server_that_is_no_coordinator_is_told_by_its_answer(answer: Exception, advice: str):
    """A web page on the port of a coordinator, or a proxy in between."""
    found = await clock(Telling(answer))
    assert found.verdict is Verdict.FAILED
    assert advice in found.advice


def test_a_proxy_that_is_not_there_is_told_as_the_proxy(monkeypatch: pytest.MonkeyPatch):
    """By its name as by its port: the coordinator's address may be right."""
    with listen("127.0.0.1", 0) as unused:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{unused.getsockname()[1]}")
    assert "correct HTTPS_PROXY" in connection("https://coordinator.test").advice
    monkeypatch.setenv("HTTPS_PROXY", "http://nobody.invalid:3128")
    assert "correct HTTPS_PROXY" in host_name("https://coordinator.test").advice


def test_without_tls_no_certificate_is_looked_for():
    """But whether anything must be encrypted."""

    async def ask(_: Transport) -> str:
        raise RemoteProblem("protocol_version_mismatch", 400, "this coordinator speaks 2")

    with served(app) as url:
        checks = reaching(
            url,
            named="token",
            credential=lambda: BearerToken("a-token"),
            ca_file=None,
            insecure=False,
            ledger=TrafficCount(),
            ask=ask,
        )
        report = examine([Check("token file", lambda: ok("")), *checks], lambda _: nullcontext())
    found: dict[str, Finding] = {one.name: one for one in report.checks}
    assert list(found) == ["token file", "host name", "connection", "encryption", "clock", "token accepted"]
    assert "install the release" in found["token accepted"].advice


def test_plain_http_to_another_machine_is_told():
    """As a failure, for no request would be made; or, where it was allowed, as what it is."""
    assert encryption("http://127.0.0.1:8440", insecure=False).verdict is Verdict.OK
    found = encryption("http://elsewhere.test:8440", insecure=True)
    assert found.verdict is Verdict.WARNING
    assert "reads and changes" in found.advice
    with pytest.raises(ConfigurationError, match="use https"):
        encryption("http://elsewhere.test:8440", insecure=False)


@pytest.mark.parametrize(
    ("host", "here"),
    [("localhost", True), ("127.0.0.9", True), ("::1", True), ("10.0.0.1", False), ("local.test", False), ("", False)],
)
def test_this_machine_is_known_by_its_name(host: str, *, here: bool):
    """Loopback, whatever the address."""
    assert is_here(host) is here
