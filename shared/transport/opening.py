"""How a transport is opened: over the network, or to an app in this process."""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import httpcore
import httpx
from pydantic import AfterValidator

from shared.backoff import SOON, Backoff
from shared.credentials import Authenticator
from shared.egress import LEAVING, Ledger
from shared.proxies import LARGEST_PORT, proxy_for
from shared.release import product
from shared.transport.arriving import SILENCE_SECONDS
from shared.transport.client import Transport
from shared.transport.retries import NO_PATIENCE, OnRetry, tell_nobody
from shared.trust import require_encryption, trusting

Scope: TypeAlias = MutableMapping[str, Any]
AsgiApp: TypeAlias = Callable[
    [Scope, Callable[[], Awaitable[Scope]], Callable[[Scope], Awaitable[None]]], Coroutine[None, None, None]
]


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


# For settings: an address that no request could be made to is refused at start, under the setting's name.
BaseUrl: TypeAlias = Annotated[str, AfterValidator(_base_url)]


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
    backoff: Backoff = SOON,
    silence_seconds: float = SILENCE_SECONDS,
) -> AsyncIterator[Transport]:
    """Open connections to the coordinator at ``base_url`` for as long as the block runs.

    ``ca_file`` holds the only certificates that are trusted. ``insecure`` allows plain HTTP to another machine. A
    connection on which nothing comes for ``silence_seconds`` is given up.

    Raises:
        ConfigurationError: what is sent would not be encrypted; ``ca_file`` or the environment's proxy cannot be used.
    """
    require_encryption(base_url, insecure=insecure)
    proxy = proxy_for(base_url)
    async with httpx.AsyncClient(
        base_url=base_url,
        headers={"User-Agent": product()},
        timeout=httpx.Timeout(silence_seconds, connect=5.0),
        verify=trusting(ca_file),
        proxy=None if proxy is None else proxy.geturl(),
        trust_env=False,  # what the environment says of proxies is read in one place, so that `doctor` tells the truth
    ) as client:
        yield Transport(
            client,
            authenticator,
            ledger,
            patience_seconds=patience_seconds,
            on_retry=on_retry,
            backoff=backoff,
            silence_seconds=silence_seconds,
        )


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
