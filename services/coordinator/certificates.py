"""The coordinator's certificate: a private CA that signs it, for a first deployment, and TLS as it is served with one.

Keys are ECDSA P-256, which every TLS 1.3 client knows. Clocks are the caller's, in UTC.
"""

import re
import secrets
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shared.access import refusal, require_readable
from shared.errors import ConfigurationError, about

AUTHORITY_LASTS = timedelta(days=5 * 365)
CERTIFICATE_LASTS = timedelta(days=365)
# Another machine's clock may be behind.
BEFORE = timedelta(hours=1)

# In every certificate, for workers and operators on the coordinator's own machine.
HERE = ("localhost", "127.0.0.1", "::1")

_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"(?=.{{1,253}}$)(\*\.)?{_LABEL}(\.{_LABEL})*")


@dataclass(frozen=True)
class CertifiedKey:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> str:
        """Return the certificate as PEM."""
        return self.certificate.public_bytes(Encoding.PEM).decode().strip()

    @property
    def key_pem(self) -> str:
        """Return the key as PEM, which no password guards."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode().strip()


def new_authority(now: datetime) -> CertifiedKey:
    """Return a new CA, which can sign servers' certificates and no other CA's."""
    key = generate_private_key(SECP256R1())
    # Of a name of its own: where a file holds the CA before and the one after, each is found by its name.
    name = _name(f"FedCoLLM CA {secrets.token_hex(4)}")
    certificate = (
        _certificate(name, name, key, now, now + AUTHORITY_LASTS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .sign(key, SHA256())
    )
    return CertifiedKey(certificate, key)


def issue(authority: CertifiedKey, hosts: Sequence[str], now: datetime) -> CertifiedKey:
    """Return a certificate for a server that is reached at ``hosts`` and on its own machine; no longer than its CA's.

    Raises:
        ConfigurationError: the CA is over.
    """
    over = authority.certificate.not_valid_after_utc
    if over <= now:
        raise ConfigurationError(
            f"the CA was over on {over:%Y-%m-%d}: make another in a new folder (`fedcollm tls init`), and give "
            "everybody its ca.pem"
        )
    key, issuer = generate_private_key(SECP256R1()), authority.certificate
    certificate = (
        _certificate(_name("FedCoLLM coordinator"), issuer.subject, key, now, min(now + CERTIFICATE_LASTS, over))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general(host) for host in _unique(hosts)]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
        .sign(authority.key, SHA256())
    )
    return CertifiedKey(certificate, key)


def host_name(text: str) -> str:
    """Return a host as a certificate names it: an IP address, or a DNS name in lower-case ASCII.

    Raises:
        ConfigurationError: it is neither.
    """
    try:
        return str(ip_address(text))
    except ValueError:
        pass
    try:
        name = text.encode("idna").decode().lower()
    except UnicodeError:
        name = ""
    if not _HOST.fullmatch(name):
        raise ConfigurationError(
            f"{text!r} is no host: give a DNS name or an IP address, without https:// and without a port"
        )
    return name


def hosts_of(certificate: x509.Certificate) -> list[str]:
    """Return the hosts that a certificate names."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses = names.get_values_for_type(x509.IPAddress)
    return [*names.get_values_for_type(x509.DNSName), *map(str, addresses)]


def sha256_of(certificate: x509.Certificate) -> str:
    """Return a certificate's SHA-256 as `openssl x509 -fingerprint -sha256` prints it."""
    return certificate.fingerprint(SHA256()).hex(":").upper()


def read_certificate(file: Path) -> x509.Certificate:
    """Return the first certificate of a PEM file, or raise ConfigurationError."""
    try:
        return x509.load_pem_x509_certificate(file.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"the certificate: {refusal(file, error)}") from None
    except ValueError:
        raise ConfigurationError(f"{file} holds no certificate: name a PEM file") from None


def read_authority(certificate_file: Path, key_file: Path) -> CertifiedKey:
    """Return a CA as `fedcollm tls init` has written it.

    Raises:
        ConfigurationError: a file cannot be read, or one does not belong to the other.
    """
    certificate = read_certificate(certificate_file)
    try:
        key = load_pem_private_key(key_file.read_bytes(), password=None)
    except OSError as error:
        raise ConfigurationError(f"the CA's key: {refusal(key_file, error)}") from None
    except (TypeError, ValueError):  # an encrypted one is a TypeError
        raise ConfigurationError(f"{key_file} holds no key without a password: name a PEM file") from None
    if not isinstance(key, EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ConfigurationError(f"{key_file} is not the key of {certificate_file}: put the CA's own two files there")
    return CertifiedKey(certificate, key)


def serving_tls(certificate_file: Path, key_file: Path) -> ssl.SSLContext:
    """Return the TLS context of a server: TLS 1.3 and nothing before it.

    Raises:
        ConfigurationError: the files cannot be read, or one does not belong to the other.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    for setting, file in (("tls_certificate_file", certificate_file), ("tls_key_file", key_file)):
        with about(setting):
            require_readable(file)
    try:
        context.load_cert_chain(certificate_file, key_file, password=lambda: "")  # or it would ask on the terminal
    except (OSError, ValueError):
        raise ConfigurationError(
            f"tls_certificate_file {certificate_file} and tls_key_file {key_file} cannot be used together: name PEM "
            "files of the certificate and of its own key, which has no password"
        ) from None
    return context


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: EllipticCurvePrivateKey, now: datetime, until: datetime
) -> x509.CertificateBuilder:
    public = key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BEFORE)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _unique(hosts: Sequence[str]) -> list[str]:
    return list(dict.fromkeys([*map(host_name, hosts), *HERE]))


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)
