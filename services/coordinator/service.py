"""A coordinator from its start to its end."""

import asyncio
import ctypes
import resource
import ssl
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import structlog
import uvicorn

from services.coordinator.app import by_port, create_app, create_work_app
from services.coordinator.certificates import serving_tls
from services.coordinator.changes import Changes
from services.coordinator.connections import connecting
from services.coordinator.context import open_context
from services.coordinator.reconciling import reconciling
from services.coordinator.settings import Settings
from services.coordinator.tokens import TokenFile
from shared.configuration import read_settings
from shared.errors import FedCoLLMError
from shared.listening import listen
from shared.logs import log_to_stderr
from shared.protocol.identity import fingerprint
from shared.stopping import stoppable

M_ARENA_MAX = -8  # of <malloc.h>
MANY_FILES = 65_536

log = structlog.get_logger()


async def serve(settings: Settings) -> None:
    """Serve both ports until told to stop."""
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    with stoppable(lambda: loop.call_soon_threadsafe(told.set)):
        await _serve(settings, told)


async def _serve(settings: Settings, told: asyncio.Event) -> None:
    tls = _tls(settings)
    public = listen(settings.host, settings.port)
    internal = listen(settings.work_host, settings.work_port, "work_port")
    with open_context(settings, TokenFile(settings.principals_file), time.time) as context:
        async with reconciling(context):
            scheme = "http" if tls is None else "https"
            address = f"{scheme}://{settings.host}:{public.getsockname()[1]}"
            log.info(
                "coordinator.serving",
                agents=address,
                dashboard=f"{address}/dashboard/",
                workers=f"{scheme}://{settings.work_host}:{internal.getsockname()[1]}",
                audit_key=fingerprint(context.audit.head().key),
            )
            app = by_port(create_app(context), create_work_app(context), work_port=internal.getsockname()[1])
            config = uvicorn.Config(
                app,
                lifespan="off",
                log_config=None,
                access_log=False,
                http=connecting(tls=tls),  # type: ignore[arg-type]  # it calls what it is given
                ws="none",
                timeout_graceful_shutdown=1,
            )
            server = uvicorn.Server(config)
            server.capture_signals = nullcontext  # type: ignore[method-assign, assignment]  # it sends them again
            ending = asyncio.create_task(_end(server, context.changes, told))
            try:
                await server.serve([public, internal])
            finally:
                ending.cancel()


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.tls_certificate_file is None or settings.tls_key_file is None:
        return None
    return serving_tls(settings.tls_certificate_file, settings.tls_key_file)


async def _end(server: uvicorn.Server, changes: Changes, told: asyncio.Event) -> None:
    """Once told to stop, end the server, and the long polls, which it would wait for and then break off."""
    await told.wait()
    changes.stop()
    server.should_exit = True


def open_many_files() -> None:
    """Let this process have many connections and files open, if the system allows it: the usual is 1,024."""
    usual, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = MANY_FILES if most == resource.RLIM_INFINITY else min(MANY_FILES, most)
    if usual != resource.RLIM_INFINITY and usual < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))


def share_one_heap() -> None:
    """Let all threads take memory from one heap, where the C library is glibc.

    It would give each its own, which Python's lock makes worthless, and which keep what has been freed: 10 MB.
    """
    adjust = getattr(ctypes.CDLL(None), "mallopt", None)
    if adjust is not None:
        adjust(M_ARENA_MAX, 1)


def run(config: Path | None, *, insecure: bool = False) -> int:
    """Run until told to stop; 2 means that the configuration is wrong. ``insecure`` sets what is called so."""
    share_one_heap()
    open_many_files()
    try:
        settings = read_settings(Settings, config, given={"insecure": True} if insecure else None)
        log_to_stderr(settings.log_format)
        asyncio.run(serve(settings))
    except FedCoLLMError as error:
        sys.stderr.write(f"coordinator: {error}\n")
        return 2
    except KeyboardInterrupt:
        pass
    return 0
