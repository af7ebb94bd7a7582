"""Measures every request: how long it took, how it was answered, and how many bytes went in and out.

It looks at the messages that pass and keeps none, so that blobs stream as they did; a request costs microseconds.
"""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.coordinator.changes import Changes
from services.coordinator.metrics import Metrics

NO_ROUTE = "none"


class Measuring:
    """An ASGI app around another one, whose requests are told to ``Metrics`` when they are over."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, changes: Changes) -> None:
        self._app = app
        self._metrics = metrics
        self._changes = changes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        received = sent = 0
        status = 500  # what is answered outside of here, if the app raises

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def send_counted(message: Message) -> None:
            nonlocal sent, status
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                sent += len(message.get("body", b""))
            await send(message)

        began = time.perf_counter()
        try:
            with self._changes.serving():
                await self._app(scope, receive_counted, send_counted)
        finally:
            self._metrics.answered(
                route=getattr(scope.get("route"), "path", NO_ROUTE),
                method=scope["method"],
                status=status,
                seconds=time.perf_counter() - began,
                received=received,
                sent=sent,
            )
