"""The only door to the network: JSON calls and blobs to a coordinator, retried until they are answered.

Retrying any request is safe (docs/protocol.md, "Retries"), so a lost connection, a restarting coordinator and a
"try again" are waited out here and nowhere else; whoever wants to show it is told. Two seams sit in every request's
way: an ``Authenticator`` says who asks, and a ``Ledger`` is told what leaves this machine before it leaves. It is told
once a connection is there, so that what never left is not in it, and by the head that is written, to the byte.
"""

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, MutableMapping
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import httpcore
import httpx
import stamina
from pydantic import AfterValidator, BaseModel
from stamina.instrumentation import set_on_retry_hooks

from shared.answers import MOST_BYTES, NO_DOCUMENT, Answer, parse, pause, problem, time_told
from shared.credentials import Authenticator
from shared.egress import LEAVING, NO_BODY, Announcement, Egress, Ledger
from shared.errors import (
    BlobCorrupt,
    BlobTooLarge,
    ConfigurationError,
    DigestMismatch,
    EgressError,
    EgressUnrecorded,
    FedCoLLMError,
    MessageInvalid,
    RemoteProblem,
    TransportError,
    Unreachable,
)
from shared.folders import is_whole
from shared.protocol.digests import DIGEST_FIELD, digest_of, to_field
from shared.protocol.messages import LONGEST_POLL_SECONDS, PROTOCOL_FIELD, PROTOCOL_VERSION, Health
from shared.proxies import LARGEST_PORT, proxy_for
from shared.release import product
from shared.trust import certificate_fault, require_encryption, say_untrusted, tls_fault, trusting

Scope: TypeAlias = MutableMapping[str, Any]
AsgiApp: TypeAlias = Callable[
    [Scope, Callable[[], Awaitable[Scope]], Callable[[Scope], Awaitable[None]]], Coroutine[None, None, None]
]

PIECE_BYTES = 1 << 18
AS_IT_IS = {"Accept-Encoding": "identity"}
TRY_AGAIN = frozenset({408, 429, 502, 503, 504, 507})
# An alert of the other side's, or what is no TLS, may come as ssl's own error once the handshake is over here.
MAY_PASS = (httpx.NetworkError, httpx.TimeoutException, httpx.RemoteProtocolError, httpx.ProxyError, ssl.SSLError)

# So that a coordinator that says nothing for this long is gone.
SILENCE_SECONDS = LONGEST_POLL_SECONDS + 15.0

# In one process nobody is ever away for a moment.
NO_PATIENCE = 0.001

NO_FIELDS: Mapping[str, str] = {}


def _base_url(text: str) -> str:
    try:
        url = httpx.URL(text)
        url.host.encode("idna")  # as whoever looks the name up will do
    except (httpx.InvalidURL, UnicodeError):
        url = httpx.URL()
    in_range = url.port is None or 0 < url.port <= LARGEST_PORT
    if url.scheme not in {"http", "https"} or not url.host or url.userinfo or not in_range:
        raise ValueError("an address is http or https, a host and perhaps a port, like http://127.0.0.1:8440")
    return text


Params: TypeAlias = Mapping[str, str | int | float | list[str]]

# For settings: an address that no request could be made to is refused at start, under the setting's name.
BaseUrl: TypeAlias = Annotated[str, AfterValidator(_base_url)]


# Called with why a request is sent again, and with None once there is an answer, whatever that says.
OnRetry: TypeAlias = Callable[[TransportError | None], None]

# Called with how many bytes of a blob have come.
OnLength: TypeAlias = Callable[[int], None]


def tell_nobody(_: object) -> None:
    """Be an OnRetry, or an OnLength, where nobody waits."""


class Transport:
    """Requests to one coordinator."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        authenticator: Authenticator,
        ledger: Ledger,
        *,
        patience_seconds: float | None,
        on_retry: OnRetry = tell_nobody,
    ) -> None:
        """``patience_seconds`` is how long a request is retried; None means until it is answered."""
        self._client = client
        self._authenticator = authenticator
        self._ledger = ledger
        self._patience_seconds = patience_seconds
        self._on_retry = on_retry
        set_on_retry_hooks(())  # stamina's own log repeats the text of an exception, which may quote header fields

    async def call(
        self,
        method: str,
        path: str,
        answer: type[Answer],
        *,
        body: BaseModel | None = None,
        params: Params | None = None,
    ) -> Answer:
        """Send a JSON request and return its answer.

        Raises:
            RemoteProblem: the coordinator said no.
            Unreachable: nobody answered for as long as the transport is patient.
            ConfigurationError: no request can be made with this address and this credential.
            MessageInvalid: the answer is not what the protocol says.
            EgressError: the ledger does not let the request leave.
        """
        content = b"" if body is None else body.model_dump_json().encode()
        kind = {} if body is None else {"Content-Type": "application/json"}
        request = Egress(method, _target(path, params), len(content), digest_of(content))
        async for attempt in self._attempts(path):
            with attempt:
                async with self._sent(request, content, kind) as response:
                    came = await _kept(response)
        return parse(came.content, answer, url=str(came.url))

    async def upload(
        self,
        path: str,
        file: Path,
        answer: type[Answer],
        *,
        digest: str,
        kind: str = "application/vnd.safetensors",
        params: Params | None = None,
    ) -> Answer:
        """PUT the file's bytes, which are of this media type, and whose digest is ``digest``.

        Raises:
            BlobCorrupt: the file has other bytes than ``digest`` names.
            RemoteProblem, Unreachable, ConfigurationError, MessageInvalid, EgressError: as for ``call``.
        """
        if not await asyncio.to_thread(is_whole, file, digest):
            raise BlobCorrupt(f"{file} no longer has the bytes that were to be sent from it: nothing of it was sent")
        size = await asyncio.to_thread(lambda: file.stat().st_size)
        fields = {"Content-Type": kind, "Content-Length": str(size)}
        request = Egress("PUT", _target(path, params), size, digest)
        async for attempt in self._attempts(path):
            with attempt:
                async with self._sent(request, _pieces(file), fields) as response:
                    came = await _kept(response)
        return parse(came.content, answer, url=str(came.url))

    async def download(
        self, path: str, into: Path, *, digest: str, size: int | None = None, on_length: OnLength = tell_nobody
    ) -> int:
        """GET a blob into the file ``into``, which appears only whole and checked; return its length in bytes.

        ``size`` is the length that it must have, where that is known beforehand: nothing after it is written.
        ``on_length`` is told how much there is so far, from 0 again where the request is sent again.

        Raises:
            BlobTooLarge: more came than there should be.
            DigestMismatch: the bytes that came are not those that ``digest`` names.
            RemoteProblem, Unreachable, ConfigurationError, EgressError: as for ``call``.
        """
        part, request = into.with_name(f"{into.name}.part"), _asking(path)
        async for attempt in self._attempts(path):
            with attempt:
                received, length = hashlib.sha256(), 0
                async with self._sent(request) as response:
                    with part.open("wb") as file:
                        async for piece in response.aiter_raw(PIECE_BYTES):
                            received.update(piece)
                            length += len(piece)
                            if size is not None and length > size:
                                part.unlink()
                                raise BlobTooLarge(f"{path} goes on after the {size} bytes that it may have")
                            file.write(piece)
                            on_length(length)
                if f"sha256:{received.hexdigest()}" != digest:
                    part.unlink()
                    raise DigestMismatch(f"what came for {path} does not have digest {digest}: nothing was kept of it")
        part.replace(into)
        return length

    async def time_there(self) -> datetime | None:
        """Return what time it is at the coordinator, to the second, if it says so; errors are those of ``call``."""
        async for attempt in self._attempts("/healthz"):
            with attempt:
                async with self._sent(_asking("/healthz")) as response:
                    came = await _kept(response)
        parse(came.content, Health, url=str(came.url))
        return time_told(came.headers.get("Date"))

    @asynccontextmanager
    async def _sent(
        self, request: Egress, content: bytes | AsyncIterator[bytes] = b"", kind: Mapping[str, str] = NO_FIELDS
    ) -> AsyncIterator[httpx.Response]:
        """Send a request once, announced to the ledger, and give the answer, a good one, before its body is read."""
        said = {PROTOCOL_FIELD: str(PROTOCOL_VERSION), DIGEST_FIELD: to_field(request.digest)}
        fields = {**AS_IT_IS, **kind, **said, **self._authenticator.fields(request)}
        announcement = Announcement(request, self._ledger)
        async with self._client.stream(
            request.method, request.target, content=content, headers=fields, extensions={"trace": announcement}
        ) as response:
            if not announcement.made:
                raise EgressUnrecorded(
                    f"a request to {self._client.base_url} left and the ledger was not told: install the releases of "
                    "httpx and httpcore that constraints.txt names"
                )
            if not response.is_success:
                raise _refusal(await _kept(response))
            yield response

    async def _attempts(self, path: str) -> AsyncIterator[stamina.Attempt]:
        def try_again_after(error: Exception) -> bool | float:
            after = certificate_fault(error) is None and _try_again_after(error)
            if after is not False:
                self._on_retry(self._told(path, error))
            return after

        try:
            async for attempt in stamina.retry_context(
                try_again_after, attempts=None, timeout=self._patience_seconds, wait_max=5.0, wait_jitter=0.3
            ):
                yield attempt
        except (*MAY_PASS, httpx.HTTPStatusError) as error:
            if fault := certificate_fault(error):
                raise ConfigurationError(say_untrusted(str(self._client.base_url), fault)) from None
            raise self._told(path, error) from None
        except httpx.TransportError as error:
            # Not `from error`: its text may quote header fields.
            raise ConfigurationError(
                f"no request for {self._client.base_url}{path} can be made ({type(error).__name__}): "
                "look at the address and the token that are set"
            ) from None
        except EgressError:
            raise
        except FedCoLLMError:  # an answer too
            self._on_retry(None)
            raise
        else:
            self._on_retry(None)

    def _told(self, path: str, error: Exception) -> TransportError:
        """Return the error of the tree for one that may pass."""
        if isinstance(error, httpx.HTTPStatusError):
            return _problem(error.response)
        if isinstance(error, httpx.ProxyError):
            return Unreachable(
                f"the proxy of this machine did not pass on {self._client.base_url}{path}: look at HTTPS_PROXY and "
                "HTTP_PROXY, or name the coordinator's host in NO_PROXY"
            )
        hint = ""
        if fault := tls_fault(error):
            hint = f" TLS failed ({fault.reason}): does it speak TLS 1.3?"
        elif isinstance(error, httpx.RemoteProtocolError) and self._client.base_url.scheme == "http":
            hint = " Does it want https?"
        return Unreachable(
            f"{self._client.base_url}{path} did not answer ({type(error).__name__}): "
            f"is the coordinator running, and is this its address?{hint}"
        )


@asynccontextmanager
async def open_transport(
    base_url: str,
    authenticator: Authenticator,
    ledger: Ledger,
    *,
    patience_seconds: float | None,
    ca_file: Path | None = None,
    insecure: bool = False,
    on_retry: OnRetry = tell_nobody,
) -> AsyncIterator[Transport]:
    """Open connections to the coordinator at ``base_url`` for as long as the block runs.

    ``ca_file`` holds the only certificates that are trusted. ``insecure`` allows plain HTTP to another machine.

    Raises:
        ConfigurationError: what is sent would not be encrypted; ``ca_file`` or the environment's proxy cannot be used.
    """
    require_encryption(base_url, insecure=insecure)
    proxy = proxy_for(base_url)
    async with httpx.AsyncClient(
        base_url=base_url,
        headers={"User-Agent": product()},
        timeout=httpx.Timeout(SILENCE_SECONDS, connect=5.0),
        verify=trusting(ca_file),
        proxy=None if proxy is None else proxy.geturl(),
        trust_env=False,  # what the environment says of proxies is read in one place, so that `doctor` tells the truth
    ) as client:
        yield Transport(client, authenticator, ledger, patience_seconds=patience_seconds, on_retry=on_retry)


@asynccontextmanager
async def open_in_process(app: AsgiApp, authenticator: Authenticator, ledger: Ledger) -> AsyncIterator[Transport]:
    """Open a transport that calls an ASGI app in this process, for federations in memory."""
    inside = WithoutSocket(httpx.ASGITransport(app=app))
    headers = {"User-Agent": product()}
    async with httpx.AsyncClient(transport=inside, base_url="http://in-process", headers=headers) as client:
        yield Transport(client, authenticator, ledger, patience_seconds=NO_PATIENCE)


class WithoutSocket(httpx.AsyncBaseTransport):
    """Passes requests on inside this process, announced as httpcore announces what goes to a socket."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Pass a request on."""
        leaving = httpcore.Request(request.method, httpcore.URL(str(request.url)), headers=request.headers.raw)
        await request.extensions["trace"](LEAVING, {"request": leaving})
        return await self._inner.handle_async_request(request)


def _target(path: str, params: Params | None) -> str:
    try:
        return str(httpx.URL(path, params=params))
    except httpx.InvalidURL as error:
        raise ConfigurationError(f"no request for {path[:100]!r} can be made ({error})") from None


def _asking(path: str) -> Egress:
    return Egress("GET", _target(path, None), 0, NO_BODY)


def _try_again_after(error: Exception) -> bool | float:
    """Return whether a failed request is sent again, or after how many seconds if the coordinator said so."""
    if isinstance(error, httpx.HTTPStatusError):
        after = error.response.headers.get("Retry-After", "")
        return pause(after)
    return isinstance(error, MAY_PASS)


def _refusal(response: httpx.Response) -> Exception:
    """Return the problem that an answer tells, or the error of one that may pass."""
    told = _problem(response)
    # A server that is told to stop answers what it breaks off with a bare 500; what the coordinator itself fails on is
    # a problem document, and would fail again.
    if response.status_code in TRY_AGAIN or (told.status, told.code) == (500, NO_DOCUMENT):
        return httpx.HTTPStatusError("try again", request=response.request, response=response)
    return told


def _problem(response: httpx.Response) -> RemoteProblem:
    return problem(response.status_code, response.content, reason=response.reason_phrase)


async def _kept(response: httpx.Response) -> httpx.Response:
    """Return an answer with its body in memory; one that is packed, although none was asked for, is not read.

    Raises:
        MessageInvalid: it is longer than any of ours.
    """
    body, fields = bytearray(), response.headers.copy()
    if fields.pop("Content-Encoding", None) is None:
        async for piece in response.aiter_bytes(PIECE_BYTES):
            body += piece
            if len(body) > MOST_BYTES:
                raise MessageInvalid(
                    f"{response.url} answered with more than {MOST_BYTES} bytes: is this the coordinator's address?"
                )
    return httpx.Response(response.status_code, headers=fields, content=bytes(body), request=response.request)


async def _pieces(file: Path) -> AsyncIterator[bytes]:
    with file.open("rb") as source:
        while piece := source.read(PIECE_BYTES):
            yield piece
