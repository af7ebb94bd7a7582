"""TLS with an organisation's own CA, and proxies: real sockets on loopback."""

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from shared.credentials import BearerToken
from shared.egress import TrafficCount
from shared.errors import ConfigurationError, MessageInvalid, Unreachable
from shared.proxies import place, proxy_for
from shared.transport import open_transport
from shared.trust import trusting
from tests.support.tls import Certificates, certificates, disagreeing, proxy, served

pytestmark = pytest.mark.anyio

TOKEN = "a-very-secret-token"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


class Greeting(BaseModel):
    """An answer."""

    text: str


async def app(_scope: Scope, receive: Receive, send: Send) -> None:
    """Greet whoever asks."""
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": b'{"text": "hello"}'})


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates of an organisation's own CA."""
    return certificates(tmp_path_factory.mktemp("own"))


async def ask(
    url: str, ca_file: Path | None = None, *, insecure: bool = False, patience_seconds: float | None = None
) -> str:
    """Ask for a greeting."""
    async with open_transport(
        url,
        BearerToken(TOKEN),
        TrafficCount(),
        patience_seconds=patience_seconds,
        ca_file=ca_file,
        insecure=insecure,
    ) as transport:
        return (await transport.call("GET", "/v1/x", Greeting)).text


async def test_a_private_ca_is_trusted_where_it_is_named(own: Certificates):
    """An organisation's own CA is enough for TLS."""
    with served(app, own) as url:
        assert await ask(url, own.ca_file) == "hello"


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates of a CA that the machine trusts."""
    return certificates(tmp_path_factory.mktemp("others"))


async def test_a_ca_that_is_named_is_the_only_one(
    own: Certificates, others: Certificates, monkeypatch: pytest.MonkeyPatch
):
    """Who has a certificate of a CA that everybody trusts is not the coordinator by that."""
    monkeypatch.setenv("SSL_CERT_FILE", str(others.ca_file))
    with served(app, others) as url:
        assert await ask(url) == "hello"
        with pytest.raises(ConfigurationError, match=r"not trusted .* set ca_file"):
            await ask(url, own.ca_file)
    assert len(trusting(own.ca_file).get_ca_certs()) == 1


async def test_a_file_may_hold_several_cas(own: Certificates, others: Certificates, tmp_path: Path):
    """The coordinator's own and that of a proxy that opens TLS; or the one before and the one after."""
    both = tmp_path / "both.pem"
    both.write_bytes(own.ca_file.read_bytes() + others.ca_file.read_bytes())
    for shown in (own, others):
        with served(app, shown) as url:
            assert await ask(url, both) == "hello"


async def test_a_certificate_below_the_root_can_be_pinned_too(own: Certificates):
    """An intermediate CA, or the coordinator's own certificate, whose root signs much else."""
    with served(app, own) as url:
        assert await ask(url, own.chain) == "hello"


def test_the_usual_cas_are_trusted_where_none_is_named():
    """Those of certifi at the least."""
    assert len(trusting(None).get_ca_certs()) > 50


async def test_a_certificate_that_is_not_trusted_is_told_at_once(own: Certificates):
    """It will not pass by itself: no retry, and what to set."""
    with served(app, own) as url, pytest.raises(ConfigurationError, match=r"not trusted .* set ca_file") as told:
        await ask(url)
    assert url in str(told.value)
    assert TOKEN not in str(told.value)


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (
            {"host": "elsewhere.test"},
            r"IP address mismatch.*: correct the address, or have .*`fedcollm tls issue --host`",
        ),
        ({"days": -1}, r"certificate has expired\): this machine's clock says 20.* else have the operator renew"),
    ],
)
async def test_a_certificate_of_another_host_or_time_is_told_too(fault: dict[str, str | int], why: str, tmp_path: Path):
    """Trusting the CA is not enough: name and time must be right, and the message says which is not."""
    bad = certificates(tmp_path, **fault)  # type: ignore[arg-type]
    with served(app, bad) as url, pytest.raises(ConfigurationError, match=why):
        await ask(url, bad.ca_file)


@pytest.mark.parametrize(
    ("content", "why"), [(None, "No such file"), ("nothing", "no certificate"), ("", "no certificate")]
)
def test_a_ca_file_that_is_none_is_named(content: str | None, why: str, tmp_path: Path):
    """The file's name, and what is wrong with it."""
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigurationError, match=rf"ca\.pem cannot be used \(.*{why}"):
        trusting(file)


# --- proxies: a host that only the proxy knows ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates for a coordinator somewhere else."""
    return certificates(tmp_path_factory.mktemp("far"), host="coordinator.test")


async def test_a_proxy_of_the_environment_is_used_and_tls_goes_through_it(
    far: Certificates, monkeypatch: pytest.MonkeyPatch
):
    """The proxy sees where the request goes, and none of it."""
    with served(app, far) as url, proxy(url) as between:
        monkeypatch.setenv("HTTPS_PROXY", between.url)
        assert await ask("https://coordinator.test:8440", far.ca_file) == "hello"
    assert between.asked == ["CONNECT coordinator.test:8440 HTTP/1.1"]


async def test_a_proxy_is_used_for_http_too(monkeypatch: pytest.MonkeyPatch):
    """HTTP_PROXY is for addresses without TLS, where that was allowed."""
    with served(app) as url, proxy(url) as between:
        monkeypatch.setenv("HTTP_PROXY", between.url)
        assert await ask("http://coordinator.test:8440", insecure=True) == "hello"
    assert between.asked == ["GET http://coordinator.test:8440/v1/x HTTP/1.1"]


@pytest.mark.parametrize("host", ["coordinator.test", "10.0.0.1", "localhost.test", "[2001:db8::1]"])
async def test_plain_http_goes_to_no_other_machine(host: str):
    """No request is made, and nobody's token shown: the message says what to do."""
    with pytest.raises(ConfigurationError, match=r"is another machine: use https.*insecure = true \(--insecure\)"):
        await ask(f"http://{host}:8440")


async def test_plain_http_goes_to_this_machine():
    """What is said there crosses no network."""
    with served(app) as url:
        assert await ask(url.replace("127.0.0.1", "localhost")) == "hello"


@pytest.mark.parametrize(
    ("no_proxy", "url", "expected"),
    [
        ("", "http://far.test:8440", "proxy.test:3128"),
        ("far.test", "http://far.test:8440", None),
        (".test", "http://far.test", None),
        ("*", "http://far.test", None),
        ("near.test", "http://far.test", "proxy.test:3128"),
        ("", "http://127.0.0.1:8450", None),
        ("", "http://localhost:8450", None),
        ("", "http://[::1]:8450", None),
        ("", "https://far.test", None),
    ],
)
def test_no_proxy_and_this_machine_are_asked_directly(
    no_proxy: str, url: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
):
    """A proxy is for its own kind of address, for hosts that NO_PROXY does not name, and never for loopback."""
    monkeypatch.setenv("http_proxy", "proxy.test:3128")
    monkeypatch.setenv("no_proxy", no_proxy)
    found = proxy_for(url)
    assert (found and place(found)) == expected


async def test_a_proxy_that_refuses_is_named_as_what_refused(far: Certificates, monkeypatch: pytest.MonkeyPatch):
    """Nobody looks for a coordinator that is running well; the proxy's password is not repeated."""
    with served(app, far) as url, proxy(url, refusing=True) as between:
        monkeypatch.setenv("HTTPS_PROXY", between.url)
        with pytest.raises(Unreachable, match="the proxy of this machine did not pass on") as told:
            await ask("https://coordinator.test", far.ca_file)
    assert "a-secret" not in str(told.value)


@pytest.mark.parametrize("address", ["socks5://ada:a-secret@here:1080", "http://ada:a-secret@here:99999"])
async def test_a_proxy_that_cannot_be_asked_is_told_at_once(address: str, monkeypatch: pytest.MonkeyPatch):
    """SOCKS is not spoken here, and there is no such port."""
    monkeypatch.setenv("ALL_PROXY", address)
    with pytest.raises(ConfigurationError, match="correct HTTPS_PROXY") as told:
        await ask("https://coordinator.test")
    assert "a-secret" not in str(told.value)


async def healthy(_scope: Scope, receive: Receive, send: Send) -> None:
    """Answer as a coordinator that is asked for its health."""
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": b'{"status": "ok"}'})


async def test_the_coordinators_time_is_known_from_any_answer():
    """A server says what time it is: a clock can be compared with it."""
    with served(healthy) as url:
        async with open_transport(url, BearerToken(TOKEN), TrafficCount(), patience_seconds=None) as transport:
            there = await transport.time_there()
    assert there is not None
    assert there.tzinfo is not None


async def test_another_server_is_not_asked_for_the_time():
    """Whatever it says is not the coordinator's: a page on a wrong port is told as that."""
    with served(app) as url:
        async with open_transport(url, BearerToken(TOKEN), TrafficCount(), patience_seconds=None) as transport:
            with pytest.raises(MessageInvalid, match="is this the coordinator's address"):
                await transport.time_there()


async def test_plain_http_to_a_port_with_tls_is_told(own: Certificates):
    """A server with TLS answers nothing that HTTP knows."""
    with served(app, own) as url:
        async with open_transport(
            url.replace("https", "http"), BearerToken(TOKEN), TrafficCount(), patience_seconds=0.1
        ) as transport:
            with pytest.raises(Unreachable, match="Does it want https"):
                await transport.call("GET", "/v1/x", Greeting)


def before_13(context: ssl.SSLContext) -> None:
    """Be a server of yesterday."""
    context.maximum_version = ssl.TLSVersion.TLSv1_2


def wanting_a_certificate(context: ssl.SSLContext) -> None:
    """Be a server that knows its clients by certificates, and says so after their handshake is over."""
    context.verify_mode = ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    ("how", "why"), [(before_13, "PROTOCOL_VERSION"), (wanting_a_certificate, "CERTIFICATE_REQUIRED")]
)
async def test_a_server_that_does_not_agree_on_tls_is_told(
    own: Certificates, how: Callable[[ssl.SSLContext], None], why: str
):
    """It may be set up better a minute later: it is asked again, and the reason is told."""
    with disagreeing(own, how) as url, pytest.raises(Unreachable, match=rf"TLS failed \(.*{why}\): does it speak"):
        await ask(url, own.ca_file, patience_seconds=0.1)
