"""One process with many agents: ``python -m bench.load.agents PLAN``, started by ``bench.load``; SIGTERM ends it.

Each is the real agent with the real client, state folder, certificates and masks; its trainer adds noise. What they
compute takes turns in one thread, and the loop goes first, so that the clock of a request counts little else.
"""

import asyncio
import logging
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import cache
from pathlib import Path

import structlog
from pydantic import BaseModel

from bench.federation import EVERYTHING, key_of
from bench.load.losses import losses
from bench.load.stopwatch import Lost, Noted, Stopwatch, Told
from bench.no_op import InProcess, NoOpTrainer
from services.client_agent.agent import Agent
from services.client_agent.attempts import AttemptMember, Standing
from services.client_agent.coordinator_client import CoordinatorClient
from services.client_agent.state import StateFolder
from services.client_agent.status import Status
from shared.credentials import SignedRequests
from shared.egress import TrafficCount
from shared.errors import FedCoLLMError
from shared.protocol.messages import LONGEST_POLL_SECONDS
from shared.protocol.terms import FROZEN
from shared.transport import Transport, open_transport

PAUSE_AFTER_FAILURE_SECONDS = 2.0

# How long one thread may compute before the loop has its turn.
SWITCH_SECONDS = 0.0005


class Plan(BaseModel):
    """Who the agents of a process are, whom they ask, how many of all ``names`` are lost, and where it is written."""

    url: str
    ca_file: Path
    federation: str
    operator_key: str
    folder: Path
    names: tuple[str, ...]
    mine: tuple[str, ...]
    lost_share: float
    away_seconds: float
    seed: int
    into: Path
    model_config = FROZEN


class Seen(BaseModel):
    """What the agents of a process have seen, in seconds; ``sent`` are all bytes that have left them."""

    requests: dict[str, tuple[float, ...]]
    told: tuple[Told, ...]
    retries: dict[str, int]
    failures: dict[str, int]
    lost: int
    sent: int
    model_config = FROZEN


async def live(agent: Agent, away_seconds: float, failures: Counter[str]) -> None:
    """Take part until cancelled; whoever is lost is back after a while, as it was."""
    while True:
        try:
            await agent.step(wait_seconds=LONGEST_POLL_SECONDS)
        except Lost:
            failures["lost"] += 1
            await asyncio.sleep(away_seconds)
        except FedCoLLMError as error:
            failures[error.code] += 1
            await asyncio.sleep(PAUSE_AFTER_FAILURE_SECONDS)


def agent_of(name: str, transport: Transport, plan: Plan) -> Agent:
    """Return an agent whose training does nothing."""
    coordinator = CoordinatorClient(transport, federation=plan.federation, operator_key=plan.operator_key)
    state, policy = StateFolder(plan.folder / name), EVERYTHING
    standing = Standing(name, key_of(name), plan.federation, plan.operator_key)
    member = AttemptMember(coordinator, state, policy, standing, clock=time.time)
    trainer = InProcess(NoOpTrainer())
    return Agent(coordinator, trainer, state, Status(), name=name, member=member, policy=policy, slm="none")


async def run(plan: Plan) -> None:
    """Be the agents of a plan until SIGTERM, and write what they have seen."""
    stopped, noted, failures, sent = asyncio.Event(), Noted(), Counter[str](), TrafficCount()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    loop.set_default_executor(ThreadPoolExecutor(max_workers=1))

    @cache
    def lost_in(number: int) -> dict[str, str]:
        return losses(plan.names, plan.lost_share, round_number=number, seed=plan.seed)

    def fate_of(name: str) -> Callable[[int, str], bool]:
        return lambda number, message: lost_in(number).get(name) == message

    async with AsyncExitStack() as stack:
        agents = []
        for name in plan.mine:
            watch = Stopwatch(SignedRequests(name, key_of(name), plan.federation), fate_of(name), noted)
            opened = open_transport(
                plan.url, watch, sent, patience_seconds=None, ca_file=plan.ca_file, on_retry=watch.answered
            )
            agents.append(agent_of(name, await stack.enter_async_context(opened), plan))
        living = [asyncio.create_task(live(agent, plan.away_seconds, failures)) for agent in agents]
        await stopped.wait()
        for task in living:
            task.cancel()
        await asyncio.gather(*living, return_exceptions=True)
    seen = Seen(
        requests={kind: tuple(seconds) for kind, seconds in noted.requests.items()},
        told=tuple(noted.told),
        retries=noted.retries,
        lost=failures.pop("lost", 0),
        failures=dict(failures),
        sent=sent.bytes,
    )
    plan.into.write_text(seen.model_dump_json())


def main() -> None:
    """Be the process of one plan."""
    sys.setswitchinterval(SWITCH_SECONDS)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))  # a thousand write little
    asyncio.run(run(Plan.model_validate_json(Path(sys.argv[1]).read_text())))


if __name__ == "__main__":
    main()
