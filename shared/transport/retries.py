"""When a request is sent again, and what is said where it is not (docs/protocol.md, "Retries")."""

import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TypeAlias

import httpx
import stamina
from stamina.instrumentation import set_on_retry_hooks

from shared.answers import NO_DOCUMENT, pause, problem
from shared.backoff import Backoff
from shared.errors import (
    ConfigurationError,
    DigestMismatch,
    EgressError,
    FedCoLLMError,
    RemoteProblem,
    TransportError,
    Unreachable,
    UploadOffsetMismatch,
)
from shared.trust import certificate_fault, say_untrusted, tls_fault

TRY_AGAIN = frozenset({408, 416, 429, 502, 503, 504, 507})
# What was kept of an upload may have been lost or damaged since it came: it is asked for again.
BEGIN_ANEW = frozenset({DigestMismatch.code, UploadOffsetMismatch.code})
# An alert of the other side's, or what is no TLS, may come as ssl's own error once the handshake is over here.
MAY_PASS = (httpx.NetworkError, httpx.TimeoutException, httpx.RemoteProtocolError, httpx.ProxyError, ssl.SSLError)

# After a break of a transfer that had gone on; without that, each break is waited for longer than the one before.
SOON_SECONDS = 0.1

# In one process nobody is ever away for a moment.
NO_PATIENCE = 0.001

# Called with why a request is sent again, and with None once there is an answer, whatever that says.
OnRetry: TypeAlias = Callable[[TransportError | None], None]


def tell_nobody(_: object) -> None:
    """Be an OnRetry, or told of a length, where nobody waits."""


@dataclass
class Progress:
    """Whether the last attempt at a transfer has brought it further than the one before."""

    made: bool = False


class Retries:
    """The attempts at a request, until there is an answer."""

    def __init__(
        self, base_url: httpx.URL, *, patience_seconds: float | None, on_retry: OnRetry, backoff: Backoff
    ) -> None:
        self._base_url = base_url
        self._patience_seconds = patience_seconds
        self._on_retry = on_retry
        self._backoff = backoff
        set_on_retry_hooks(())  # stamina's own log repeats the text of an exception, which may quote header fields

    async def attempts(self, path: str, gone_on: Progress | None = None) -> AsyncIterator[stamina.Attempt]:
        """Yield attempts until one ends well, or with an error that will not pass."""
        failures = 0

        def try_again_after(error: Exception) -> bool | float:
            nonlocal failures
            if not _may_pass(error):
                return False
            self._on_retry(self._told(path, error))
            failures = 0 if gone_on is not None and gone_on.made else failures + 1
            return _pause_told(error) + (self._backoff.seconds(failures) if failures else SOON_SECONDS)

        try:
            async for attempt in stamina.retry_context(try_again_after, attempts=None, timeout=self._patience_seconds):
                yield attempt
        except (*MAY_PASS, httpx.HTTPStatusError) as error:
            if fault := certificate_fault(error):
                raise ConfigurationError(say_untrusted(str(self._base_url), fault)) from None
            raise self._told(path, error) from None
        except httpx.TransportError as error:
            # Not `from error`: its text may quote header fields.
            raise ConfigurationError(
                f"no request for {self._base_url}{path} can be made ({type(error).__name__}): "
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
            return told_by(error.response)
        if isinstance(error, httpx.ProxyError):
            return Unreachable(
                f"the proxy of this machine did not pass on {self._base_url}{path}: look at HTTPS_PROXY and "
                "HTTP_PROXY, or name the coordinator's host in NO_PROXY"
            )
        hint = ""
        if fault := tls_fault(error):
            hint = f" TLS failed ({fault.reason}): does it speak TLS 1.3?"
        elif isinstance(error, httpx.RemoteProtocolError) and self._base_url.scheme == "http":
            hint = " Does it want https?"
        return Unreachable(
            f"{self._base_url}{path} did not answer ({type(error).__name__}): "
            f"is the coordinator running, and is this its address?{hint}"
        )


def _may_pass(error: Exception) -> bool:
    return certificate_fault(error) is None and isinstance(error, (*MAY_PASS, httpx.HTTPStatusError))


def _pause_told(error: Exception) -> float:
    """Return for how many seconds the coordinator has said to wait."""
    return pause(error.response.headers.get("Retry-After", "")) if isinstance(error, httpx.HTTPStatusError) else 0.0


def refusal(response: httpx.Response) -> Exception:
    """Return the problem that an answer tells, or the error of one that may pass."""
    told = told_by(response)
    # A server that is told to stop answers what it breaks off with a bare 500; what the coordinator itself fails on is
    # a problem document, and would fail again.
    may_pass = response.status_code in TRY_AGAIN or (told.status, told.code) == (500, NO_DOCUMENT)
    if may_pass or (response.request.method == "PATCH" and told.code in BEGIN_ANEW):
        return httpx.HTTPStatusError("try again", request=response.request, response=response)
    return told


def told_by(response: httpx.Response) -> RemoteProblem:
    """Return the problem that an answer tells."""
    return problem(response.status_code, response.content, reason=response.reason_phrase)
