"""The private CA, its certificates, and TLS as it is served with them."""

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from services.coordinator.certificates import (
    AUTHORITY_LASTS,
    CERTIFICATE_LASTS,
    HERE,
    CertifiedKey,
    host_name,
    hosts_of,
    issue,
    new_authority,
    read_authority,
    read_certificate,
    serving_tls,
)
from shared.errors import ConfigurationError
from shared.trust import trusting
from tests.support.tls import certificates

NOW = datetime.now(UTC).replace(microsecond=0)


def write(folder: Path, name: str, made: CertifiedKey) -> tuple[Path, Path]:
    """Write certificate and key, and return where."""
    files = folder / f"{name}.pem", folder / f"{name}.key"
    for file, text in zip(files, (made.certificate_pem, made.key_pem), strict=True):
        file.write_text(text)
    return files


def shakes_hands(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> str | None:
    """Connect the two, and return which TLS they speak."""
    inside, outside = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(inside, server_side=True).close()
        except OSError:
            inside.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(outside, server_hostname=host) as opened:
            return opened.version()
    finally:
        outside.close()
        thread.join()


@pytest.mark.parametrize("host", ["coordinator.test", "10.1.2.3", "2001:db8::1", *HERE])
def test_whoever_trusts_the_ca_trusts_the_coordinator_by_its_names(host: str, tmp_path: Path):
    """Also on its own machine, and also by the rules that Python 3.13 begins to insist on."""
    authority = new_authority(NOW)
    ca_file, _ = write(tmp_path, "ca", authority)
    issued = issue(authority, ["coordinator.test", "10.1.2.3", "2001:db8::1"], NOW)
    client = trusting(ca_file)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    assert shakes_hands(serving_tls(*write(tmp_path, "server", issued)), client, host) == "TLSv1.3"


def test_the_ca_vouches_for_no_other_name(tmp_path: Path):
    """Than those that were given."""
    authority = new_authority(NOW)
    ca_file, _ = write(tmp_path, "ca", authority)
    server = serving_tls(*write(tmp_path, "server", issue(authority, ["coordinator.test"], NOW)))
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shakes_hands(server, trusting(ca_file), "other.test")


def test_two_cas_in_one_file_do_not_stand_in_each_others_way(tmp_path: Path):
    """As when one follows the other; both are found by their names, in either order."""
    first, second = new_authority(NOW), new_authority(NOW)
    both = tmp_path / "both.pem"
    both.write_text(f"{first.certificate_pem}\n{second.certificate_pem}\n")
    for authority in (first, second):
        server = serving_tls(*write(tmp_path, "server", issue(authority, [], NOW)))
        assert shakes_hands(server, trusting(both), "localhost") == "TLSv1.3"


def test_nothing_before_tls_13_is_spoken(tmp_path: Path):
    """Whoever knows less is told so."""
    authority = new_authority(NOW)
    ca_file, _ = write(tmp_path, "ca", authority)
    client = ssl.create_default_context(cafile=ca_file)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    server = serving_tls(*write(tmp_path, "server", issue(authority, [], NOW)))
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        shakes_hands(server, client, "localhost")


def test_a_certificate_is_never_of_use_after_its_ca():
    """A year, or what is left; a clock that is a little behind takes it too."""
    authority = new_authority(NOW)
    over = authority.certificate.not_valid_after_utc
    assert over == NOW + AUTHORITY_LASTS
    usual = issue(authority, [], NOW).certificate
    assert usual.not_valid_after_utc == NOW + CERTIFICATE_LASTS
    assert usual.not_valid_before_utc < NOW
    assert issue(authority, [], over - timedelta(days=1)).certificate.not_valid_after_utc == over
    with pytest.raises(ConfigurationError, match=r"the CA was over on 20\d\d-.*in a new folder"):
        issue(authority, [], over)


def test_a_ca_signs_servers_and_no_other_ca():
    """And servers sign nothing."""
    authority = new_authority(NOW)
    for certificate, is_authority in ((authority.certificate, True), (issue(authority, [], NOW).certificate, False)):
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
        assert basic.critical
        assert usage.critical
        assert (basic.value.ca, usage.value.key_cert_sign) == (is_authority, is_authority)
    assert basic.value.path_length is None
    assert authority.certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("Coordinator.Example", "coordinator.example"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("*.example", "*.example"),
        ("work_1", "work_1"),
        ("010.1.1.1", "010.1.1.1"),
        ("2001:DB8::0", "2001:db8::"),
    ],
)
def test_a_host_is_named_as_a_certificate_does(given: str, named: str):
    """In ASCII, and in lower case."""
    assert host_name(given) == named


@pytest.mark.parametrize(
    "given",
    ["", "https://here", "here:8440", "a..b", "-a", "a b", f"{'a' * 64}.example", "*.*.a", "here/v1", "é" * 300],
)
def test_what_is_no_host_is_refused(given: str):
    """An address with more than the host, above all."""
    with pytest.raises(ConfigurationError, match="is no host: give a DNS name or an IP address"):
        host_name(given)


def test_hosts_are_those_of_the_certificate(tmp_path: Path):
    """Each once, and none where it names none."""
    authority = new_authority(NOW)
    issued = issue(authority, ["a.test", "A.test", "localhost", "10.0.0.1"], NOW)
    assert sorted(hosts_of(issued.certificate)) == sorted(["a.test", "10.0.0.1", *HERE])
    assert hosts_of(authority.certificate) == []
    assert hosts_of(read_certificate(certificates(tmp_path, host="10.0.0.9").chain)) == [str(ip_address("10.0.0.9"))]


def test_a_ca_is_read_as_it_was_written(tmp_path: Path):
    """To sign the next certificate with it."""
    authority = new_authority(NOW)
    read = read_authority(*write(tmp_path, "ca", authority))
    assert (read.certificate_pem, read.key_pem) == (authority.certificate_pem, authority.key_pem)


def test_a_ca_that_cannot_be_used_is_told(tmp_path: Path):
    """Which file, and what is wrong with it; no key is repeated."""
    authority, other = new_authority(NOW), new_authority(NOW)
    certificate, key = write(tmp_path, "ca", authority)
    locked, foreign = tmp_path / "locked.key", tmp_path / "foreign.key"
    locked.write_bytes(
        authority.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"a password"))
    )
    foreign.write_bytes(Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    _, others = write(tmp_path, "other", other)
    for files, said in (
        ((tmp_path / "c.pem", key), r"the certificate: there is no 'c.pem'"),
        ((key, key), "ca.key holds no certificate"),
        ((certificate, tmp_path / "cb.key"), "the CA's key: there is no 'cb.key'"),
        ((certificate, certificate), "holds no key without a password"),
        ((certificate, locked), "holds no key without a password"),
        ((certificate, others), "other.key is not the key of"),
        ((certificate, foreign), "foreign.key is not the key of"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            read_authority(*files)


def test_files_that_cannot_be_served_with_are_told(tmp_path: Path):
    """By the setting that names each; and nobody is asked for a password on a terminal."""
    authority = new_authority(NOW)
    issued = issue(authority, [], NOW)
    certificate, key = write(tmp_path, "server", issued)
    _, others = write(tmp_path, "ca", authority)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        issued.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"a password"))
    )
    for files, said in (
        ((tmp_path / "none.pem", key), r"tls_certificate_file: there is no 'none.pem'"),
        ((certificate, tmp_path / "none.key"), r"tls_key_file: there is no 'none.key'"),
        ((certificate, others), "cannot be used together"),
        ((certificate, locked), "no password"),
        ((key, certificate), "cannot be used together"),
        ((tmp_path, key), "cannot be used together"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            serving_tls(*files)
