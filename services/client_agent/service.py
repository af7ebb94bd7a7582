"""An agent from its start to its end."""

import asyncio
import sys
import time
from contextlib import nullcontext, suppress
from pathlib import Path

import structlog
import uvicorn

from services.client_agent.agent import Agent
from services.client_agent.attempts import AttemptMember, Standing
from services.client_agent.coordinator_client import CoordinatorClient
from services.client_agent.egress_ledger import EgressLedger
from services.client_agent.holdout import HoldOut
from services.client_agent.holdout_folder import HoldOutFolder
from services.client_agent.instance import Instance
from services.client_agent.pages import agent_of
from services.client_agent.settings import Settings, page_url
from services.client_agent.state import StateFolder
from services.client_agent.status import Status
from services.client_agent.status_page import create_status_page
from services.client_agent.trainer import TrainerProcess
from shared.access import require_model, require_readable, require_writable
from shared.backoff import Backoff
from shared.configuration import read_settings
from shared.credentials import SignedRequests
from shared.errors import FedCoLLMError, TransportError, about
from shared.key_file import read_key
from shared.listening import listen
from shared.logs import TroubleLog, log_to_stderr
from shared.stopping import stoppable
from shared.transport import open_transport

# Whoever stops an agent waits no longer than that for it to have said so.
LEAVING_SECONDS = 2.0

# Hundreds of agents wait for one coordinator, and each may be a minute late.
AWAY = Backoff(most_seconds=60.0)

log = structlog.get_logger()

TRAINER_COMMAND = (sys.executable, "-m", "services.client_agent.trainer_process")


async def serve(settings: Settings, trainer: TrainerProcess) -> None:
    """Take part and show the status page, until told to stop."""
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    with stoppable(lambda: loop.call_soon_threadsafe(told.set)):
        await _serve(settings, trainer, told)


async def _serve(settings: Settings, trainer: TrainerProcess, told: asyncio.Event) -> None:
    with about("state_dir"):
        require_writable(settings.state_dir)
    state, status, trouble = (
        StateFolder(settings.state_dir),
        Status(settings.state_dir.absolute(), started_at=time.time()),
        TroubleLog(settings.coordinator_url),
    )

    def on_retry(problem: TransportError | None) -> None:
        status.retrying(problem)
        trouble(problem)

    socket = listen(settings.status_host, settings.status_port, "status_port")
    page = uvicorn.Config(
        create_status_page(status, agent_of(settings)),
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
    )
    key = read_key(settings.identity_key_file)
    # What can be seen at once is told at once; the training process finds out the rest.
    with about("slm"):
        require_model(settings.slm)
    with about("data.path"):
        require_readable(settings.data.path)
    if settings.holdout is not None:
        with about("holdout.path"):
            require_readable(settings.holdout.path)
    with state.owned():
        async with open_transport(
            settings.coordinator_url,
            SignedRequests(settings.name, key, settings.federation),
            EgressLedger(settings.state_dir, status.sent),
            patience_seconds=None,
            ca_file=settings.ca_file,
            insecure=settings.insecure,
            on_retry=on_retry,
            backoff=AWAY,
        ) as transport:
            log.info(
                "agent.started",
                coordinator=settings.coordinator_url,
                status_page=page_url(settings.status_host, socket.getsockname()[1]),
                state_dir=str(settings.state_dir),
                device=settings.device,
                threads=settings.threads,
            )
            await trainer.start()
            coordinator = CoordinatorClient(
                transport,
                federation=settings.federation,
                operator_key=settings.operator_key,
                instance=Instance(settings.state_dir),
            )
            standing = Standing(settings.name, key, settings.federation, settings.operator_key)
            member = AttemptMember(coordinator, state, settings.policy, standing, clock=time.time)
            holdout = None
            if settings.holdout is not None:
                folder = HoldOutFolder(settings.state_dir)
                holdout = HoldOut(coordinator, trainer, state, folder, name=settings.name, clock=time.time)
            agent = Agent(
                *(coordinator, trainer, state, status),
                name=settings.name,
                member=member,
                policy=settings.policy,
                slm=settings.slm,
                holdout=holdout,
            )
            server = uvicorn.Server(page)
            server.capture_signals = nullcontext  # type: ignore[method-assign, assignment]  # it sends them again
            serving = asyncio.create_task(server.serve([socket]))
            tasks = [serving, *map(asyncio.create_task, (agent.run(), told.wait()))]
            if holdout is not None:
                tasks.append(asyncio.create_task(holdout.run()))
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                for task in tasks[1:]:
                    task.cancel()
                await asyncio.gather(*tasks[1:], return_exceptions=True)
                await _leave(coordinator, status)
                await trainer.stop()
                server.should_exit = True
                await asyncio.gather(*tasks, return_exceptions=True)


async def _leave(coordinator: CoordinatorClient, status: Status) -> None:
    """Tell the coordinator that this agent stops, if it can be told at once; whoever is silent is given up as well."""
    if status.unwell is None:
        with suppress(TimeoutError, FedCoLLMError):
            async with asyncio.timeout(LEAVING_SECONDS):
                await coordinator.leave()


def run(config: Path | None, *, insecure: bool = False) -> int:
    """Run until told to stop; 2 means that the configuration is wrong. ``insecure`` sets what is called so."""
    try:
        settings = read_settings(Settings, config, given={"insecure": True} if insecure else None)
        log_to_stderr(settings.log_format, agent=settings.name)
        command = TRAINER_COMMAND if config is None else (*TRAINER_COMMAND, "--config", str(config))
        asyncio.run(serve(settings, TrainerProcess(command)))
    except FedCoLLMError as error:
        sys.stderr.write(f"agent: {error}\n")
        return 2
    except KeyboardInterrupt:
        pass
    return 0
