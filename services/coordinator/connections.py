"""What a connection may take out of the app's sight: uvicorn bounds neither the size of a request's head nor its time.

All of it comes before anybody knows who sends it, and so does the TLS handshake (``handshakes.py``). How a body may
come is the app's to say (``routes/slow_bodies.py``).
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from services.coordinator.handshakes import Handshake
from services.coordinator.principals import Principal, Role
from services.coordinator.strangers import Closed, Strangers


class BoundedConnection(HttpToolsProtocol):
    """A connection whose requests have heads of a bounded size, in a bounded time."""

    # Ours have 2 kB, and a proxy may add as much; what one read from the socket brings is not counted.
    head_bytes = 64 << 10
    head_seconds = 20.0
    # How long who was answered early may go on sending a body that nobody reads, so that the answer reaches it.
    linger_seconds = 20.0

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        strangers: Strangers,
        closed: Closed,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._strangers = strangers
        self._closed = closed
        self._deadline: asyncio.TimerHandle | None = None
        self._in_head = self._whole = True
        self._read_of_head = 0
        self._known = False

    @property
    def is_known(self) -> bool:
        """Whether somebody whom the app knows has asked something on it."""
        asked: Principal | None = (self.scope or {}).get("state", {}).get("who")
        return self._known or (asked is not None and asked.role is not Role.ANYONE)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._strangers.add(self, self._address)
        self._close_after(self.head_seconds, "no request came")

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        super().connection_lost(exc)
        self._strangers.discard(self)
        self._cancel_deadline()

    def give_way(self) -> None:
        """End, because there are too many; what the other side has not sent by now is not waited for."""
        self._closed.note(self._address, "it made room for a newer one")
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Parse what came, and count it if all of it belongs to a head."""
        was_in_head = self._in_head
        super().data_received(data)
        if was_in_head and self._in_head:
            self._read_of_head += len(data)
            if self._read_of_head > self.head_bytes:
                self._close("the head of the request is too long")

    def on_message_begin(self) -> None:
        """Begin a head."""
        self._known = self.is_known
        super().on_message_begin()
        self._in_head, self._whole, self._read_of_head = True, False, 0
        self._close_after(self.head_seconds, "the head of the request took too long")

    def on_headers_complete(self) -> None:
        """End a head."""
        self._in_head = False
        self._cancel_deadline()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End a body."""
        super().on_message_complete()
        self._whole = True
        self._cancel_deadline()

    def on_response_complete(self) -> None:
        """End an answer."""
        super().on_response_complete()
        if self.cycle.response_complete and not self._whole:
            self._close_after(self.linger_seconds, "the body of an answered request took too long")

    def _close_after(self, seconds: float, why: str) -> None:
        self._cancel_deadline()
        self._deadline = self.loop.call_later(seconds, self._close, why)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _close(self, why: str) -> None:
        if not self.transport.is_closing():
            self._closed.note(self._address, why)
            self.transport.close()

    @property
    def _address(self) -> str:
        return self.client[0] if self.client else "unknown"


def connecting(
    kind: type[BoundedConnection] = BoundedConnection,
    *,
    tls: ssl.SSLContext | None = None,
    strangers: Strangers | None = None,
) -> Callable[..., asyncio.Protocol]:
    """Return what makes a server's connections, for uvicorn's ``http``: all of them count in one place."""
    strangers, closed = strangers or Strangers(), Closed()

    def connect(**arguments: Any) -> asyncio.Protocol:  # noqa: ANN401 - uvicorn's
        connection = kind(**arguments, strangers=strangers, closed=closed)
        if tls is None:
            return connection
        return Handshake(connection, tls, strangers, closed, seconds=kind.head_seconds)

    return connect
