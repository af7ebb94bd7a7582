"""FedCoLLM as its demo runs it: coordinator, worker and agents as processes, TLS, signed requests, durable state."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.counting_proxy import ByteCount, counting_proxy
from bench.peers.processes import ProcessTree, end
from bench.peers.systems import Case, RoundEnd, Running
from bench.round import Setting
from examples.demo.processes import LocalFederation, free_ports, local_federation
from shared.protocol.messages import EventList, RunView
from shared.protocol.rounds import ENDED_RUNS, RunState
from shared.protocol.terms import AggregationName
from shared.transport import Transport

RUN_ID = "peers"


@dataclass(frozen=True)
class FedCoLLM:
    """The product, with readable updates or with secure aggregation."""

    aggregation: AggregationName

    @property
    def name(self) -> str:
        """Name of the system and what its coordinator sees."""
        return "FedCoLLM" if self.aggregation == "PlaintextAggregation" else "FedCoLLM, secure aggregation"

    @property
    def mode(self) -> str:
        """How it runs here."""
        seen = "readable updates" if self.aggregation == "PlaintextAggregation" else "masked updates"
        return (
            f"processes of the demo, TLS, signed requests, {seen}, SQLite and blobs synced to the disk; a round has a "
            "co-tuning and an evaluation that do nothing, handed to a worker process"
        )

    @property
    def least_agents(self) -> int:
        """Agents that it needs: masked updates hide each among at least three others."""
        return 2 if self.aggregation == "PlaintextAggregation" else 4

    @asynccontextmanager
    async def running(self, folder: Path, case: Case) -> AsyncIterator[Running]:
        """Start everything."""
        agents = tuple(f"agent-{number + 1}" for number in range(case.agents))
        async with local_federation(folder, agents) as federation:
            port = free_ports(1)[0]
            await federation.start_coordinator()
            async with federation.operator() as operator, counting_proxy(port, federation.public.port) as count:
                running = _Running(federation, operator, case, count)
                await running.start_worker()
                seen_by_agents = replace(federation, public=replace(federation.public, port=port))
                for name in agents:
                    await seen_by_agents.start_agent(
                        name,
                        running.command("agent"),
                        slm="none",
                        data=Path(os.devnull),
                        allow_plaintext=self.aggregation == "PlaintextAggregation",
                    )
                terms = Setting("peers", agents, self.aggregation).terms(case.rounds)
                await operator.call("PUT", f"/v1/runs/{RUN_ID}", RunView, body=terms)
                await operator.call("POST", f"/v1/runs/{RUN_ID}/start", RunView)
                await federation.sign(operator, RUN_ID, terms)
                following = asyncio.create_task(running.follow())
                try:
                    yield running
                finally:
                    following.cancel()
                    with suppress(asyncio.CancelledError, Exception):
                        await following


@dataclass
class _Running:
    federation: LocalFederation
    operator: Transport
    case: Case
    count: ByteCount
    coordinator: ProcessTree = field(default_factory=ProcessTree)
    _rounds: list[RoundEnd] = field(default_factory=list)
    _failed: str | None = None

    def __post_init__(self) -> None:
        self._own("coordinator")

    @property
    def port(self) -> int:
        """The coordinator's own."""
        return self.federation.public.port

    def command(self, which: str) -> list[str]:
        """Return the command of a worker or an agent."""
        return [sys.executable, "-m", "bench.peers.fedcollm_processes", which, str(self.case.dim), str(self.case.steps)]

    async def start_worker(self) -> None:
        """Start the worker, which is on the coordinator's side."""
        unused = Path(os.devnull)
        await self.federation.start_worker(self.command("worker"), auxiliary=unused, validation=unused)
        self._own("worker")

    def rounds(self) -> Sequence[RoundEnd]:
        """Return the rounds that were published."""
        if self._failed:
            raise RuntimeError(self._failed)
        self.federation.processes.require_alive(*self.federation.agents)
        return self._rounds

    async def follow(self) -> None:
        """Note the rounds from the run's events."""
        after = 0
        try:
            while True:
                page = await self.operator.call(
                    "GET", f"/v1/runs/{RUN_ID}/events", EventList, params={"after": after, "wait_seconds": 5}
                )
                after = page.last
                run = await self._run()
                for event in page.events:
                    if event.kind == "round.published" and event.round is not None:
                        published = run.published if event.round == self.case.rounds else None
                        self._rounds.append(RoundEnd(event.round, event.at, published.digest if published else None))
                if run.state in ENDED_RUNS and not page.events:
                    if run.state is not RunState.FINISHED:
                        self._failed = f"the run has {run.state}: {run.reason}"
                    return
        except Exception as error:  # noqa: BLE001 - shown to whoever asks for the rounds
            self._failed = f"{type(error).__name__}: {error}"

    async def kept(self) -> int | None:
        """Return the round that the coordinator knows as published last."""
        published = (await self._run()).published
        return published.round if published else None

    async def crash(self) -> None:
        """Kill coordinator and worker."""
        end(self.coordinator.living())

    async def restart(self) -> None:
        """Start both again, on the state that they left."""
        await self.federation.start_coordinator()
        self._own("coordinator")
        await self.start_worker()

    async def _run(self) -> RunView:
        return await self.operator.call("GET", f"/v1/runs/{RUN_ID}", RunView)

    def _own(self, name: str) -> None:
        self.coordinator.roots.append(self.federation.processes.running[name].pid)
