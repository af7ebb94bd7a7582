"""Checks of the way to a coordinator, for `doctor`: name, proxy, port, certificate, clock, token.

Each step is tried on its own, so that what a request only tells as "no answer" has a place.
"""

import asyncio
import hashlib
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable
from datetime import timedelta
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from shared.answers import NO_DOCUMENT
from shared.credentials import Authenticator, BearerToken
from shared.egress import Ledger
from shared.errors import (
    ClockSkewed,
    FederationMismatch,
    MessageInvalid,
    NotAllowed,
    NotAMember,
    NotAuthenticated,
    ProtocolVersionMismatch,
    RemoteProblem,
    RequestSignatureInvalid,
    RouteUnknown,
)
from shared.findings import Check, Finding, failed, ok, warning
from shared.loopback import is_here
from shared.protocol.request_signatures import TOLERANCE_SECONDS
from shared.proxies import place, port, proxy_for
from shared.transport import Transport, open_transport
from shared.trust import ENDS_SOON, require_encryption, say_untrusted, trusting

CONNECT_SECONDS = 5.0
PATIENCE_SECONDS = 3.0

NO_COORDINATOR = "correct coordinator_url: what answers there is no coordinator, or a proxy in front of it"

ADVICE = {
    NotAMember.code: "read this agent's check code to the operator, who approves it by that",
    FederationMismatch.code: "compare federation with what the operator says: the coordinator is of another one",
    RequestSignatureInvalid.code: "has the key been made anew? Then ask the operator for a new invitation",
    ClockSkewed.code: "set the clock of the machine that is wrong (NTP)",
    NotAuthenticated.code: "compare token_file with the token that the operator gave you",
    NotAllowed.code: "ask the operator for a token of the right role, or look whether this is the right port",
    RouteUnknown.code: "correct coordinator_url: what answers there does not know this request; is it the right port?",
    ProtocolVersionMismatch.code: "install the release that the coordinator runs",
}


def reaching(
    url: str,
    *,
    named: str,
    credential: Callable[[], Authenticator],
    ca_file: Path | None,
    insecure: bool,
    ledger: Ledger,
    ask: Callable[[Transport], Awaitable[str]],
) -> list[Check]:
    """Return the checks of the way to ``url``; ``ask`` makes a harmless request that the credential is for.

    ``named`` is what the credential is called; the check of its file is called after it, and comes before these.
    """

    def over(request: Callable[[Transport], Awaitable[Finding]], *, authenticator: Authenticator) -> Finding:
        async def answered() -> Finding:
            async with open_transport(
                url,
                authenticator,
                ledger,
                patience_seconds=PATIENCE_SECONDS,
                ca_file=ca_file,
                insecure=insecure,
            ) as transport:
                return await request(transport)

        return asyncio.run(answered())

    async def accepted(transport: Transport) -> Finding:
        try:
            return ok(await ask(transport))
        except (RemoteProblem, MessageInvalid) as problem:
            return _said_no(problem)

    private = (
        Check("certificate", lambda: certificate(url, ca_file), after=("connection",))
        if urlsplit(url).scheme == "https"
        else Check("encryption", lambda: encryption(url, insecure=insecure))
    )
    return [
        Check("host name", lambda: host_name(url)),
        Check("connection", lambda: connection(url), after=("host name",)),
        private,
        Check("clock", lambda: over(clock, authenticator=BearerToken("")), after=("connection", private.name)),
        Check(
            f"{named} accepted",
            lambda: over(accepted, authenticator=credential()),
            after=(f"{named} file", "connection", private.name),
        ),
    ]


def host_name(url: str) -> Finding:
    """Check that the coordinator's host, or the proxy on the way to it, has an address."""
    proxy = proxy_for(url)
    there = proxy or urlsplit(url)
    try:
        addresses = _addresses(there)
    except socket.gaierror as error:
        return failed(
            f"{there.hostname} has no address here ({error.strerror})",
            "correct coordinator_url; where only a proxy knows outside names, set HTTPS_PROXY"
            if proxy is None
            else "it is the proxy that the environment names: correct HTTPS_PROXY or HTTP_PROXY",
        )
    if proxy is None:
        return ok(f"{there.hostname} is {addresses}, asked directly")
    return ok(f"by the proxy {place(proxy)} (from the environment; NO_PROXY names what is asked directly)")


def connection(url: str) -> Finding:
    """Check that something listens there."""
    proxy = proxy_for(url)
    there = proxy or urlsplit(url)
    try:
        socket.create_connection((there.hostname or "", port(there)), CONNECT_SECONDS).close()
    except TimeoutError:
        return failed(f"{place(there)} does not answer", "a firewall may be in between: have this port let out")
    except OSError as error:
        return failed(
            f"nothing can be reached at {place(there)} ({error.strerror})",
            "is the coordinator running, and is this its address and port?"
            if proxy is None
            else "it is the proxy that the environment names: correct HTTPS_PROXY or HTTP_PROXY, or start it",
        )
    return ok(f"{place(there)} accepts connections")


def certificate(url: str, ca_file: Path | None) -> Finding:
    """Check that the coordinator's certificate is trusted, and for how long."""
    trusted = trusting(ca_file)
    try:
        with _tls(url, trusted) as shown:
            ends = ssl.cert_time_to_seconds(str((shown.getpeercert() or {})["notAfter"]))
    except ssl.SSLCertVerificationError as fault:
        return failed(f"{say_untrusted(url, fault)} (the server's own has SHA-256 {_fingerprint(url)})")
    except ssl.SSLError as error:
        return failed(f"{url} does not speak TLS 1.3 ({error.reason})", "was http:// meant, or another port?")
    except OSError as error:
        return failed(
            f"{url} cannot be reached ({error})",
            "what listens there does not answer as a server with TLS does: was http:// meant, or another port?"
            if proxy_for(url) is None
            else "have the proxy let it through, or name its host in NO_PROXY",
        )
    left = timedelta(seconds=ends - time.time())
    if left < ENDS_SOON:
        return warning(f"trusted, and ends in {left.days} days", "remind the operator to renew it")
    return ok(f"trusted for another {left.days} days, with {ca_file or 'the usual CAs'}")


def encryption(url: str, *, insecure: bool) -> Finding:
    """Check that what is sent without TLS crosses no network, or that somebody has allowed it to."""
    require_encryption(url, insecure=insecure)
    if is_here(urlsplit(url).hostname or ""):
        return ok("none is needed on this machine")
    return warning(
        "plain HTTP to another machine, as `insecure` allows", "use https: whoever is on the way reads and changes it"
    )


async def clock(transport: Transport) -> Finding:
    """Compare this machine's clock with the coordinator's, and see that a coordinator it is."""
    try:
        there = await transport.time_there()
    except (RemoteProblem, MessageInvalid) as problem:
        return _said_no(problem)
    if there is None:
        return ok("the coordinator does not say what time it is")
    skew = time.time() - there.timestamp()
    if abs(skew) > TOLERANCE_SECONDS:
        return warning(
            f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the coordinator's",
            "set the clock (NTP) of the one that is wrong: logs cannot be compared, and certificates may seem invalid",
        )
    return ok("that of the coordinator")


def _said_no(problem: RemoteProblem | MessageInvalid) -> Finding:
    if isinstance(problem, RemoteProblem) and problem.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        return failed(str(problem), "give the proxy a name and a password: HTTP_PROXY=http://name:password@proxy:3128")
    if isinstance(problem, MessageInvalid) or problem.code == NO_DOCUMENT:
        return failed(str(problem), NO_COORDINATOR)
    return failed(str(problem), ADVICE.get(problem.code, "the coordinator's log says more"))


def _addresses(there: SplitResult) -> str:
    found = socket.getaddrinfo(there.hostname, port(there), type=socket.SOCK_STREAM)
    return ", ".join(sorted({str(address[0]) for *_, address in found}))


def _tls(url: str, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Open a TLS connection, by the proxy where there is one, and return its socket."""
    there, proxy = urlsplit(url), proxy_for(url)
    raw = proxy or there
    opened = HTTPConnection(raw.hostname or "", port(raw), timeout=CONNECT_SECONDS)
    if proxy is not None:
        opened.set_tunnel(there.hostname or "", port(there), _proxy_fields(proxy))
    opened.connect()
    return context.wrap_socket(opened.sock, server_hostname=there.hostname)


def _proxy_fields(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    name = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(name.encode()).decode()}"}


def _fingerprint(url: str) -> str:
    """Return the SHA-256 of the certificate that is shown there, trusted or not, as `openssl x509` prints it."""
    anyone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anyone.check_hostname = False
    anyone.verify_mode = ssl.CERT_NONE  # nothing is sent over it
    with _tls(url, anyone) as shown:
        digest = hashlib.sha256(shown.getpeercert(binary_form=True) or b"").hexdigest().upper()
    return ":".join(digest[start : start + 2] for start in range(0, len(digest), 2))
