"""Whom a client trusts: the certificates in ``ca_file`` and no others, or else the usual ones; no network."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, TypeAlias
from urllib.parse import urlsplit

import certifi
from pydantic import Field

from shared.errors import ConfigurationError
from shared.loopback import is_here

# For settings of whoever speaks to a coordinator.
CaFile: TypeAlias = Annotated[
    Path | None,
    Field(
        description="PEM file of the CA that has issued the coordinator's certificate, or of several: these and no "
        "others are trusted. Where it is not set, the usual ones are.",
        examples=["ca.pem"],
    ),
]
Insecure: TypeAlias = Annotated[
    bool, Field(description="Speak plain HTTP to another machine: only where the network itself encrypts.")
]

# Time enough to have a certificate renewed.
ENDS_SOON = timedelta(days=30)

# OpenSSL's codes (X509_V_ERR_*) for a certificate that is not valid yet or no more, and for one of another host.
_TIME, _NAME = frozenset({9, 10}), frozenset({62, 64})


def trusting(ca_file: Path | None) -> ssl.SSLContext:
    """Return the TLS context of a client: TLS 1.3, and servers whose certificate one in ``ca_file`` vouches for.

    No other is trusted then: whoever can get a certificate of one of the usual CAs is not the coordinator by that.
    Without the file these are: the machine's own, or what SSL_CERT_FILE names instead, and certifi's.

    Raises:
        ConfigurationError: the file cannot be read, or holds no certificate.
    """
    if ca_file is None:
        context = ssl.create_default_context()
        context.load_verify_locations(certifi.where())  # a slim container has no certificates of its own
    else:
        try:
            context = ssl.create_default_context(cafile=ca_file)
        except OSError as error:  # ssl.SSLError is one
            why = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
            raise ConfigurationError(
                f"ca_file {ca_file} cannot be used ({why}): name a PEM file with the certificate of your CA"
            ) from None
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # an intermediate CA can be pinned, and not its root
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def require_encryption(url: str, *, insecure: bool) -> None:
    """Check that what is sent to ``url`` crosses no network in the clear, unless ``insecure`` allows it.

    Raises:
        ConfigurationError: it would.
    """
    there = urlsplit(url)
    if there.scheme != "https" and not insecure and not is_here(there.hostname or ""):
        raise ConfigurationError(
            f"{url} is not encrypted, and {there.hostname} is another machine: use https, with ca_file where the "
            "coordinator has a CA of its own; only where the network itself encrypts, set insecure = true (--insecure)"
        )


def tls_fault(error: BaseException | None) -> ssl.SSLError | None:
    """Return what went wrong in TLS, where that is what ``error`` came from."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error


def certificate_fault(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """Return what was wrong with a certificate, where that is what ``error`` came from."""
    fault = tls_fault(error)
    return fault if isinstance(fault, ssl.SSLCertVerificationError) else None


def say_untrusted(where: str, fault: ssl.SSLCertVerificationError) -> str:
    """Say that the certificate shown at ``where`` is not trusted, and what to do."""
    if fault.verify_code in _TIME:
        advice = (
            f"this machine's clock says {datetime.now(UTC):%Y-%m-%d %H:%M} UTC: set it if it is wrong, else have the "
            "operator renew the certificate (`fedcollm tls issue`)"
        )
    elif fault.verify_code in _NAME:
        advice = "correct the address, or have a certificate issued for this one too (`fedcollm tls issue --host`)"
    else:
        advice = "set ca_file to the certificate of the CA that has issued it, which the operator gives you"
    return f"the certificate of {where} is not trusted ({fault.verify_message}): {advice}"
