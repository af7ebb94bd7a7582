"""A federation that lives by itself, in a thread: a coordinator on a real port, its reconciler, a worker and agents.

Agents and worker are the real ones, over HTTP; only training and co-tuning are those of tests. The clock is the
machine's, and runs wait for their operator's signature.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import uvicorn
from anyio.from_thread import start_blocking_portal

from bench.federation import FEDERATION, admit, client_of, key_of, known_tokens, make_agent, settings_of, token_of
from bench.no_op import InProcess, NoOpTrainer
from services.client_agent.state import StateFolder
from services.client_agent.status import Status
from services.coordinator.app import by_port, create_app, create_work_app
from services.coordinator.connections import connecting
from services.coordinator.context import open_context
from services.coordinator.reconciling import reconciling
from services.coordinator.worker.loop import CoTuner, Worker
from shared.credentials import BearerToken, SignedRequests
from shared.egress import TrafficCount
from shared.listening import listen
from shared.transport import open_transport

HOST = "127.0.0.1"


@contextmanager
def living(folder: Path, cotuner: CoTuner, agents: Sequence[str], port: int = 0) -> Iterator[int]:
    """Let a federation live whose state lies in ``folder``, and give the port of its coordinator.

    Another one on the same folder goes on where the one before was stopped.
    """
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(_living(folder, cotuner, agents, port)) as served_at,
    ):
        yield served_at


@asynccontextmanager
async def _living(folder: Path, cotuner: CoTuner, agents: Sequence[str], port: int) -> AsyncIterator[int]:
    public, internal = listen(HOST, port), listen(HOST, 0)
    public_port, work_port = public.getsockname()[1], internal.getsockname()[1]
    with open_context(settings_of(folder / "coordinator"), known_tokens(), time.time) as context:
        admit(context, agents, time.time)
        async with reconciling(context):
            config = uvicorn.Config(
                by_port(create_app(context), create_work_app(context), work_port=work_port),
                lifespan="off",
                log_config=None,
                access_log=False,
                http=connecting(),
                ws="none",
                timeout_graceful_shutdown=1,
            )
            server = uvicorn.Server(config)
            serving = asyncio.create_task(server.serve([public, internal]))
            others = [
                asyncio.create_task(_work(folder / "worker", cotuner, f"http://{HOST}:{work_port}")),
                *(
                    asyncio.create_task(_take_part(folder / name, name, f"http://{HOST}:{public_port}"))
                    for name in agents
                ),
            ]
            try:
                yield public_port
            finally:
                for task in others:
                    task.cancel()
                await asyncio.gather(*others, return_exceptions=True)
                context.changes.stop()
                server.should_exit = True
                await serving


async def _work(folder: Path, cotuner: CoTuner, url: str) -> None:
    token = BearerToken(token_of("worker"))
    async with open_transport(url, token, TrafficCount(), patience_seconds=None) as transport:
        await Worker(transport, cotuner, folder, name="worker").run()


async def _take_part(folder: Path, name: str, url: str) -> None:
    status, signing = Status(), SignedRequests(name, key_of(name), FEDERATION)
    async with open_transport(url, signing, status.sent, patience_seconds=None) as transport:
        agent = make_agent(name, client_of(transport), InProcess(NoOpTrainer()), StateFolder(folder), status)
        await agent.run()
