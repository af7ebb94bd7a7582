"""A TLS handshake in a bounded time, among connections that are counted: uvicorn would begin to count behind it."""

import asyncio
import ssl

from services.coordinator.strangers import Closed, Strangers


class Handshake(asyncio.Protocol):
    """A connection until TLS is agreed on; then ``inner`` has it."""

    is_known = False

    def __init__(
        self,
        inner: asyncio.Protocol,
        tls: ssl.SSLContext,
        strangers: Strangers,
        closed: Closed,
        *,
        seconds: float,
    ) -> None:
        self._inner = inner
        self._tls = tls
        self._strangers = strangers
        self._closed = closed
        self._seconds = seconds
        self._early = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as asyncio calls it
        """Begin the handshake."""
        self._transport = transport
        self._address = (transport.get_extra_info("peername") or ("unknown",))[0]
        self._strangers.add(self, self._address)
        self._shaking = asyncio.get_running_loop().create_task(self._shake())

    def data_received(self, data: bytes) -> None:
        """Keep what comes right behind the handshake, before ``inner`` is there to read it."""
        self._early += data

    def give_way(self) -> None:
        """End."""
        self._closed.note(self._address, "it made room for a newer one")
        self._transport.abort()

    async def _shake(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            tls = await loop.start_tls(
                self._transport, self, self._tls, server_side=True, ssl_handshake_timeout=self._seconds
            )
        except OSError as error:  # ssl's errors are some, and so is that of the deadline
            self._transport.abort()
            if isinstance(error, ConnectionAbortedError):
                self._closed.note(self._address, "the TLS handshake took too long")
            return
        finally:
            self._strangers.discard(self)
        if tls is None or tls.is_closing():  # the other side went, before or after it was done
            return
        tls.set_protocol(self._inner)
        self._inner.connection_made(tls)
        if self._early:
            self._inner.data_received(self._early)
