"""What a ledger is told, compared with the bytes on a socket."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from shared.credentials import BearerToken
from shared.egress import NO_BODY, Egress, TrafficCount
from shared.errors import BlobCorrupt, ConfigurationError, EgressError, EgressUnrecorded, TransportError, Unreachable
from shared.listening import listen
from shared.protocol.digests import digest_of
from shared.transport import Transport, open_transport
from tests.support import tls
from tests.support.scripted import BLOB, DIGEST, HELLO, Coordinator, Greeting, Question, talking_to
from tests.support.tapped import LOOPBACK, Seen, Tap, tapped

pytestmark = pytest.mark.anyio

TOKEN = BearerToken("a-token")


class Refusing(EgressError):
    """What a ledger raises."""

    code = "refusing"


@dataclass
class Notes:
    """A ledger that keeps everything that it is told, and refuses what it was made to refuse."""

    refused: str = ""
    lines: list[tuple[Egress, str, int]] = field(default_factory=list)

    def record(self, request: Egress, *, to: str, head_bytes: int) -> None:
        """Keep it."""
        if request.target == self.refused:
            raise Refusing(request.target)
        self.lines.append((request, to, head_bytes))

    def seen(self) -> list[Seen]:
        """Return what was told in the words of the tap."""
        return [
            Seen(request.method, request.target, head, request.bytes, request.digest) for request, _, head in self.lines
        ]


async def greeting(scope: dict, receive: object, send: object) -> None:
    """Answer whatever is asked, after having read it."""
    assert scope["type"] == "http"
    while (await receive())["more_body"]:
        pass
    fields = [(b"content-type", b"application/json"), (b"content-length", b"16")]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": b'{"text":"hello"}'})


@asynccontextmanager
async def tapping(notes: Notes, *, on_retry: object = lambda _: None) -> AsyncIterator[tuple[Transport, Tap]]:
    """Open a transport to a server that is listened to."""
    with tls.served(greeting) as url, tapped(int(url.rsplit(":", 1)[1])) as tap:
        async with open_transport(tap.url, TOKEN, notes, patience_seconds=None, on_retry=on_retry) as transport:
            yield transport, tap


async def test_the_ledger_is_told_every_byte_that_a_socket_sees(tmp_path: Path) -> None:
    """Request line, header fields and body of each kind of request, in order, with the body's digest."""
    (tmp_path / "blob").write_bytes(BLOB)
    notes = Notes()
    async with tapping(notes) as (transport, tap):
        odd = {"holding": "sha256:é & ü", "declined": ["a", "b"]}
        await transport.call("GET", "/v1/x", Greeting, params=odd)
        await transport.call("POST", "/v1/y", Greeting, body=Question(name="é" * 3))
        await transport.call("POST", "/v1/y/start", Greeting)
        await transport.upload("/v1/z", tmp_path / "blob", Greeting, digest=DIGEST, params={"examples": 8})
        await transport.download("/v1/w", tmp_path / "new", digest=digest_of(b'{"text":"hello"}'))
    assert notes.seen() == tap.requests()
    assert sum(each.head_bytes + each.body_bytes for each in notes.seen()) == tap.bytes
    assert {to for _, to, _ in notes.lines} == {tap.url}
    assert [each.body_bytes for each in notes.seen()] == [0, 17, 0, len(BLOB), 0]


async def test_what_the_ledger_refuses_does_not_leave() -> None:
    """Not one byte of it; it is not tried again, and nobody is told of an answer."""
    notes, told = Notes(refused="/v1/secret"), list[TransportError | None]()
    async with tapping(notes, on_retry=told.append) as (transport, tap):
        with pytest.raises(Refusing):
            await transport.call("POST", "/v1/secret", Greeting, body=Question(name="ada"))
        assert (tap.bytes, told) == (0, [])
        assert (await transport.call("GET", "/v1/x", Greeting)).text == "hello"
        assert notes.seen() == tap.requests()


async def test_what_never_left_is_not_told() -> None:
    """Nobody listens, or the certificate is not trusted: there is nothing to take note of."""
    with listen(LOOPBACK, 0) as closed:
        url = f"http://{LOOPBACK}:{closed.getsockname()[1]}"
    notes = Notes()
    async with open_transport(url, TOKEN, notes, patience_seconds=0.01) as transport:
        with pytest.raises(Unreachable):
            await transport.call("GET", "/v1/x", Greeting)
    assert notes.lines == []


async def test_what_is_sent_over_tls_is_told_as_it_is_inside(tmp_path: Path) -> None:
    """The same numbers as over plain HTTP, and the origin with its scheme."""
    certificates, plain, inside = tls.certificates(tmp_path), Notes(), Notes()
    async with tapping(plain) as (transport, _):
        await transport.call("GET", "/v1/x", Greeting)
    with tls.served(greeting, certificates) as url:
        async with open_transport(url, TOKEN, inside, patience_seconds=None, ca_file=certificates.ca_file) as transport:
            await transport.call("GET", "/v1/x", Greeting)
        async with open_transport(url, TOKEN, inside, patience_seconds=None) as transport:
            with pytest.raises(ConfigurationError, match="not trusted"):
                await transport.call("GET", "/v1/x", Greeting)
    assert inside.seen() == plain.seen()
    assert [to for _, to, _ in inside.lines] == [url]


async def test_what_asks_a_proxy_for_a_way_is_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CONNECT with the proxy's own origin and the credentials that it is given, then the request inside."""
    certificates, notes = tls.certificates(tmp_path, host="coordinator.example"), Notes()
    with (
        tls.served(greeting, certificates) as url,
        tls.proxy(url) as proxy,
        tapped(int(proxy.url.rsplit(":", 1)[1])) as tap,
    ):
        monkeypatch.setenv("HTTPS_PROXY", f"http://ada:a-secret@{LOOPBACK}:{tap.port}")
        async with open_transport(
            "https://coordinator.example", TOKEN, notes, patience_seconds=None, ca_file=certificates.ca_file
        ) as transport:
            await transport.call("GET", "/v1/x", Greeting)
    (way, to, head_bytes), (inside, origin, _) = notes.lines
    assert (way, to) == (Egress("CONNECT", "coordinator.example:443", 0, NO_BODY), tap.url)
    assert (inside.target, origin) == ("/v1/x", "https://coordinator.example:443")
    (connection,) = tap.connections
    assert connection[:head_bytes].endswith(b"\r\n\r\n")
    assert b"\r\n\r\n" not in connection[: head_bytes - 1]


async def test_what_a_proxy_passes_on_unencrypted_is_told_as_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The target has the other side's origin then, and the head the proxy's credentials."""
    notes = Notes()
    with (
        tls.served(greeting) as url,
        tls.proxy(url) as proxy,
        tapped(int(proxy.url.rsplit(":", 1)[1])) as tap,
    ):
        monkeypatch.setenv("HTTP_PROXY", f"http://ada:a-secret@{LOOPBACK}:{tap.port}")
        async with open_transport(
            "http://coordinator.example", TOKEN, notes, patience_seconds=None, insecure=True
        ) as transport:
            await transport.call("GET", "/v1/x", Greeting)
    assert notes.seen() == tap.requests()
    assert [(request.target, to) for request, to, _ in notes.lines] == [("http://coordinator.example/v1/x", tap.url)]


async def test_an_http_client_that_tells_nobody_is_found_out() -> None:
    """Where the moment before the first byte is not announced, the first answer ends it."""
    async with httpx.AsyncClient(
        transport=httpx.MockTransport(Coordinator([HELLO])), base_url="http://there"
    ) as client:
        transport = Transport(client, TOKEN, TrafficCount(), patience_seconds=None)
        with pytest.raises(EgressUnrecorded, match="constraints"):
            await transport.call("GET", "/v1/x", Greeting)


async def test_a_file_that_has_changed_is_not_sent(tmp_path: Path) -> None:
    """The digest that is told is that of the bytes that leave."""
    (tmp_path / "blob").write_bytes(BLOB[:-1] + b"!")
    other = Coordinator([HELLO])
    async with talking_to(other) as transport:
        with pytest.raises(BlobCorrupt, match="nothing of it was sent"):
            await transport.upload("/v1/x", tmp_path / "blob", Greeting, digest=DIGEST)
    assert other.requests == []
