"""An organisation's own CA, certificates of it for loopback, and servers that show them."""

import datetime as dt
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from shared.listening import listen
from shared.transport import AsgiApp

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Certificates:
    """A CA that nobody trusts by itself, and what it issued."""

    ca_file: Path
    chain: Path
    key: Path
    fingerprint: str = ""


def certificates(folder: Path, *, host: str = LOOPBACK, days: int = 60) -> Certificates:
    """Make a CA and a certificate for ``host`` that ends in so many days; less than none is one that has ended."""
    now = dt.datetime.now(dt.UTC)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"CA of {folder.name}")])
    san: x509.GeneralName = x509.IPAddress(ip_address(host)) if host[0].isdigit() else x509.DNSName(host)

    def issue(name: x509.Name, public: ec.EllipticCurvePublicKey, end: int) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(ca_name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=60))
            .not_valid_after(now + dt.timedelta(days=end))
        )

    ca = (
        issue(ca_name, ca_key.public_key(), 90)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    server = (
        issue(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)]), key.public_key(), days)
        .add_extension(x509.SubjectAlternativeName([san]), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    digest = server.fingerprint(hashes.SHA256()).hex(":").upper()
    made = Certificates(folder / "ca.pem", folder / "server.pem", folder / "server.key", digest)
    folder.mkdir(parents=True, exist_ok=True)
    made.ca_file.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    made.chain.write_bytes(server.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return made


@contextmanager
def served(app: AsgiApp, tls: Certificates | None = None) -> Iterator[str]:
    """Serve ``app`` on a port of loopback, in a thread, and give its address."""
    with listen(LOOPBACK, 0) as listening:
        config = uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            access_log=False,
            ssl_certfile=tls and tls.chain,
            ssl_keyfile=tls and tls.key,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        try:
            yield f"http{'s' if tls else ''}://{LOOPBACK}:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)


@contextmanager
def disagreeing(tls: Certificates, bend: Callable[[ssl.SSLContext], None]) -> Iterator[str]:
    """Be a server that speaks TLS in another way, tells every client so by an alert, and gives its address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.chain, tls.key)
    bend(context)
    with socket.create_server((LOOPBACK, 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    raw, _ = listening.accept()
                except OSError:
                    return
                with context.wrap_socket(raw, server_side=True, do_handshake_on_connect=False) as opened:
                    with suppress(ssl.SSLError):
                        opened.do_handshake()
                    while socket.socket.recv(opened, 65536):  # what is left unread would cut off the alert
                        pass

        threading.Thread(target=serve, daemon=True).start()
        yield f"https://{LOOPBACK}:{listening.getsockname()[1]}"


@dataclass
class Proxy:
    """A forward proxy that passes everything on to one place and remembers what it was asked for."""

    url: str
    asked: list[str] = field(default_factory=list)


@contextmanager
def proxy(onward: str, *, refusing: bool = False) -> Iterator[Proxy]:
    """Be a proxy on loopback: whatever host is named in a CONNECT or a request line, ``onward`` is meant."""
    host, port = onward.rsplit("/", 1)[-1].split(":")
    with socket.create_server((LOOPBACK, 0)) as listening:
        opened = Proxy(f"http://ada:a-secret@{LOOPBACK}:{listening.getsockname()[1]}")

        def serve(inside: socket.socket) -> None:
            with inside:
                head = b""
                while b"\r\n\r\n" not in head:
                    piece = inside.recv(65536)
                    if not piece:
                        return
                    head += piece
                opened.asked.append(head.split(b"\r\n", 1)[0].decode())
                if refusing:
                    inside.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                    return
                with socket.create_connection((host, int(port))) as outside:
                    if head.startswith(b"CONNECT"):
                        inside.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    else:
                        outside.sendall(head.replace(b" http://" + _authority(head), b" ", 1))
                    back = threading.Thread(target=_pour, args=(outside, inside), daemon=True)
                    back.start()
                    _pour(inside, outside)
                    back.join(10)

        def accept() -> None:
            while True:
                try:
                    inside, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(inside,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield opened


def _authority(head: bytes) -> bytes:
    return head.split(b" ")[1].removeprefix(b"http://").split(b"/")[0]


def _pour(source: socket.socket, into: socket.socket) -> None:
    """Pass bytes on until one side has ended."""
    try:
        while piece := source.recv(65536):
            into.sendall(piece)
        into.shutdown(socket.SHUT_WR)
    except OSError:
        return
