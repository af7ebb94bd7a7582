"""The processes of a story: coordinator, worker and agents as they are, over real sockets, told when to act.

Each is composed as its ``service.py`` composes it, but for what only tests have: training and co-tuning that move bytes
alone, a clock that stands still between two words of the conductor's, and a watch at its doors.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import structlog

from bench.federation import (
    FEDERATION,
    ManualClock,
    admit,
    client_of,
    key_of,
    known_tokens,
    make_agent,
    settings_of,
    sign,
    token_of,
)
from bench.no_op import InProcess, NoOpTrainer
from services.client_agent.egress_ledger import EgressLedger
from services.client_agent.holdout import HoldOut
from services.client_agent.holdout_folder import HoldOutFolder
from services.client_agent.state import StateFolder
from services.client_agent.status import Status
from services.coordinator.app import create_app, create_work_app
from services.coordinator.cli.following import waits_for_signature
from services.coordinator.context import Context, open_context
from services.coordinator.worker.loop import Worker
from shared.credentials import BearerToken, SignedRequests
from shared.egress import TrafficCount
from shared.errors import FedCoLLMError
from shared.protocol.audit import Chain
from shared.protocol.terms import RunTerms
from shared.transport import open_transport
from tests.crash.points import Point
from tests.crash.quirks import Heartbeats, QuirkyCoTuner
from tests.crash.seams import Watch, stand_in_the_doors
from tests.support.federations import RUN
from tests.support.served import served

HOST = "127.0.0.1"
COORDINATOR, WORKER = "coordinator", "worker"

# Whom a story kills. The other agents run the same code, so that their points would be the same ones again.
ADA = "ada"
VICTIMS = (COORDINATOR, WORKER, ADA)


@dataclass(frozen=True)
class Site:
    """Where a story takes place, and what is to happen there."""

    folder: Path
    agents: tuple[str, ...]
    port: int
    work_port: int
    kill_at: Point | None

    @property
    def passed(self) -> Path:
        """The file in which the processes note the points that they pass."""
        return self.folder / "passed"

    @property
    def ca_file(self) -> Path:
        """The one authority that they trust."""
        return self.folder / "ca.pem"


def live(conductor: Connection, site: Site, process: str) -> None:
    """Be a process of a story until the conductor is gone."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory(), processors=[lambda _log, _name, event: event])
    if process in VICTIMS:
        stand_in_the_doors(Watch(process, site.passed, site.kill_at))
    ear = Ear(conductor)
    match process:
        case "coordinator":
            _coordinate(ear, site)
        case "worker":
            asyncio.run(_work(ear, site))
        case _:
            asyncio.run(_take_part(ear, site, process))


class Ear:
    """Hears what the conductor says, and tells it what came of that; its words move this process's clock."""

    def __init__(self, conductor: Connection) -> None:
        self._conductor = conductor
        self.clock = ManualClock()

    def hear(self) -> tuple[str, dict[str, Any]]:
        """Wait for the next word; without a conductor there is none, nor any reason to live."""
        try:
            word = json.loads(self._conductor.recv_bytes())
        except EOFError:
            os._exit(0)
        self.clock.seconds = word["now"]
        return word["what"], word["with"]

    def tell(self, answer: object) -> None:
        """Say that it is done."""
        self._conductor.send_bytes(json.dumps(answer).encode())


# --- the coordinator ----------------------------------------------------------------------------------------------


def _coordinate(ear: Ear, site: Site) -> None:
    with open_context(settings_of(site.folder / COORDINATOR), known_tokens(), ear.clock) as context:
        admit(context, site.agents, ear.clock)
        with served(create_app(context), site.port), served(create_work_app(context), site.work_port):
            desk = Desk(context)
            while True:
                what, arguments = ear.hear()
                ear.tell(getattr(desk, what)(**arguments))


class Desk:
    """What the conductor has the coordinator do: as its reconciler, and as its operator."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def reconcile(self) -> None:
        """Do a pass."""
        assert self._context.rounds.reconcile()

    def start(self, terms: dict[str, Any]) -> None:
        """Make and start the run."""
        self._context.lifecycle.create(RUN, RunTerms.model_validate(terms), actor="operator")
        self._context.lifecycle.start(RUN, actor="operator")

    def sign(self) -> None:
        """Sign the run, if it waits for that."""
        if waits_for_signature(self._context.lifecycle.run(RUN)):
            sign(self._context, RUN)

    def cancel(self) -> None:
        """Cancel the run."""
        self._context.lifecycle.cancel(RUN, "enough", actor="operator")

    def look(self) -> dict[str, Any]:
        """Return how things are."""
        run, rounds = self._context.lifecycle.run(RUN), self._context.lifecycle.rounds(RUN).rounds
        return {
            "run": run.state,
            "round": rounds[-1].state if rounds else None,
            "attempts": rounds[-1].attempts if rounds else 0,
            "number": len(rounds),
            "published": run.published.round if run.published else 0,
            "moved": self._context.audit.head().head.seq,
        }

    def outcome(self) -> dict[str, Any]:
        """Return everything that the run has decided, its audit log checked."""
        chain = Chain(self._context.audit.head().head)
        while page := self._context.audit.page(after=chain.seq, limit=500).entries:
            for entry in page:
                chain.append(entry)
        chain.require_whole()
        with self._context.store.read() as tx:
            run = tx.run(RUN)
            rounds = [
                [
                    *(at.number, at.state, at.reason, at.accepted, at.refused, at.late, at.attempt),
                    *(at.slm_adapter, at.llm_adapter, at.aggregate, at.slm_candidate, at.llm_candidate),
                    at.evaluation and at.evaluation.model_dump(),
                ]
                for at in tx.rounds(RUN)
            ]
            return {"run": [run.state, run.reason, run.slm_adapter, run.llm_adapter], "rounds": rounds}


# --- the others ---------------------------------------------------------------------------------------------------


async def _act(ear: Ear, act: Callable[[], Awaitable[object]]) -> None:
    """Act when the conductor says so, as often as it does; what failed is tried again by the next word."""
    while True:
        await asyncio.to_thread(ear.hear)
        try:
            await act()
        except (FedCoLLMError, OSError) as error:
            ear.tell(f"{type(error).__name__}: {error}")
        else:
            ear.tell(None)


async def _work(ear: Ear, site: Site) -> None:
    heartbeats, folder = Heartbeats(), site.folder / WORKER
    cotuner = QuirkyCoTuner(folder, heartbeats.heard)
    token, url = BearerToken(token_of("worker")), f"http://{HOST}:{site.work_port}"
    async with open_transport(url, token, TrafficCount(), patience_seconds=None, ca_file=site.ca_file) as transport:
        worker = Worker(transport, cotuner, folder, heartbeats.pause, name=WORKER)
        await _act(ear, lambda: worker.step(wait_seconds=0))


async def _take_part(ear: Ear, site: Site, name: str) -> None:
    folder, status, trainer = site.folder / name, Status(), InProcess(NoOpTrainer())
    ledger = EgressLedger(folder, status.sent, lambda: datetime.fromtimestamp(ear.clock(), UTC))
    signing, url = SignedRequests(name, key_of(name), FEDERATION, ear.clock), f"http://{HOST}:{site.port}"
    async with open_transport(url, signing, ledger, patience_seconds=None, ca_file=site.ca_file) as transport:
        state, client, holdout = StateFolder(folder), client_of(transport), None
        if name == ADA:
            holdout = HoldOut(client, trainer, state, HoldOutFolder(folder), name=name, clock=ear.clock)
        with state.owned():
            agent = make_agent(name, client, trainer, state, status, clock=ear.clock, holdout=holdout)

            async def act() -> None:
                await agent.step(wait_seconds=0)
                while holdout is not None and await holdout.step():
                    pass

            await _act(ear, act)
