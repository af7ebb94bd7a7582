"""A TCP relay on loopback that keeps every byte that is sent through it, and what HTTP/1.1 requests they are."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from shared.protocol.digests import digest_of

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Seen:
    """A request as it was on the wire."""

    method: str
    target: str
    head_bytes: int
    body_bytes: int
    digest: str


@dataclass
class Tap:
    """Where the relay listens, and the bytes of each connection to the other side, in the order of their opening."""

    port: int
    connections: list[bytearray] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where clients go."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def bytes(self) -> int:
        """How many bytes clients have sent."""
        return sum(map(len, self.connections))

    def requests(self) -> list[Seen]:
        """Return the requests that the bytes are, to the last byte; a way through a proxy goes on inside."""
        return [request for sent in self.connections for request in parsed(bytes(sent))]


def parsed(sent: bytes) -> Iterator[Seen]:
    """Yield the requests of a connection; what is left over is an error."""
    while sent:
        head, end, rest = sent.partition(b"\r\n\r\n")
        assert end, f"{sent[:100]!r} is no whole head of a request"
        line, *lines = head.decode("ascii").split("\r\n")
        method, target, version = line.split(" ")
        assert version == "HTTP/1.1"
        fields = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
        assert "transfer-encoding" not in fields
        length = int(fields.get("content-length", 0))
        body, sent = rest[:length], rest[length:]
        assert len(body) == length, f"{line} was cut off"
        yield Seen(method, target, len(head) + len(end), length, digest_of(body))


@contextmanager
def tapped(port: int) -> Iterator[Tap]:
    """Relay between a new port and ``port`` while the block runs."""
    with socket.create_server((LOOPBACK, 0)) as listening:
        tap = Tap(listening.getsockname()[1])

        def serve(inside: socket.socket, sent: bytearray) -> None:
            try:
                with inside, socket.create_connection((LOOPBACK, port)) as outside:
                    back = threading.Thread(target=_pour, args=(outside, inside), daemon=True)
                    back.start()
                    _pour(inside, outside, sent)
                    back.join(10)
            except OSError:  # nobody listens there at this moment
                return

        def accept() -> None:
            while True:
                try:
                    inside, _ = listening.accept()
                except OSError:
                    return
                tap.connections.append(bytearray())
                threading.Thread(target=serve, args=(inside, tap.connections[-1]), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield tap


def _pour(source: socket.socket, into: socket.socket, kept: bytearray | None = None) -> None:
    """Pass bytes on until one side has ended, and keep them."""
    try:
        while piece := source.recv(65536):
            if kept is not None:
                kept += piece
            into.sendall(piece)
        into.shutdown(socket.SHUT_WR)
    except OSError:
        return
