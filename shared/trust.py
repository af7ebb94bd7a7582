"""Which certificates are trusted: those of this machine and of certifi and, beside them, an organisation's own CA."""

import ssl
from pathlib import Path

import certifi

from shared.errors import ConfigurationError


def trusting(ca_file: Path | None) -> ssl.SSLContext:
    """Return the TLS context of a client that also trusts the CA certificates in ``ca_file``.

    Beside the others and not instead of them: who moves a coordinator behind a public certificate changes nothing here.

    Raises:
        ConfigurationError: the file cannot be read, or holds no certificate.
    """
    context = ssl.create_default_context()  # also what SSL_CERT_FILE names
    context.load_verify_locations(certifi.where())  # a slim container has no certificates of its own
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except OSError as error:  # ssl.SSLError is one
            why = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
            raise ConfigurationError(
                f"ca_file {ca_file} cannot be used ({why}): name a PEM file with the certificate of your CA"
            ) from None
    return context


def certificate_fault(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """Return what was wrong with a certificate, where that is what ``error`` came from."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error


def say_untrusted(where: str, fault: ssl.SSLCertVerificationError) -> str:
    """Say that the certificate shown at ``where`` is not trusted, and what to do."""
    return (
        f"the certificate of {where} is not trusted ({fault.verify_message}): if a CA of an organisation has issued "
        "it, set ca_file to that CA's certificate; else correct the address, or have the certificate renewed"
    )
