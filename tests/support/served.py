"""A coordinator on a real port of this machine, in a thread, for clients that are programs."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from bench.federation import FEDERATION, key_of, token_of
from services.coordinator.app import create_app
from services.coordinator.connections import connecting
from services.coordinator.context import Context
from shared.key_file import keep_key
from shared.listening import listen
from shared.transport import AsgiApp


@contextmanager
def served(app: AsgiApp, port: int = 0, *, http: Callable[..., asyncio.Protocol] | None = None) -> Iterator[int]:
    """Serve ``app`` while the block runs, and give its port; nobody who asks early is refused."""
    socket = listen("127.0.0.1", port)
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        http=http or connecting(),
        ws="none",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([socket],))
    thread.start()
    try:
        yield socket.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        socket.close()


@dataclass(frozen=True)
class Operated:
    """A coordinator that is served, and the options by which a command reaches it."""

    context: Context
    port: int
    options: tuple[str, ...]


@contextmanager
def operated(context: Context, folder: Path) -> Iterator[Operated]:
    """Serve a coordinator, with an operator's settings in ``folder``."""
    with served(create_app(context)) as port:
        try:
            yield Operated(context, port, operator_options(folder, port))
        finally:
            context.changes.stop()  # as a coordinator does that is told to stop


def operator_options(folder: Path, port: int) -> tuple[str, ...]:
    """Write an operator's settings into ``folder``, and return the options by which a command finds them."""
    (folder / "token").write_text(token_of("operator"))
    file = folder / "operator.toml"
    keep_key(folder / "operator.key", key_of("operator"))
    file.write_text(
        f'coordinator_url = "http://127.0.0.1:{port}"\ntoken_file = "token"\n'
        f'federation = "{FEDERATION}"\nkey_file = "operator.key"\n'
    )
    return "--config", str(file)
