"""One run of many agents, from the start of the coordinator to the end of the last round, and what it took."""

import asyncio
import signal
import ssl
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel

from bench.federation import admit, known_tokens
from bench.load.agents import Plan, Seen
from bench.load.losses import never_ready
from bench.no_op import NoOpCoTuner
from examples.demo.processes import FEDERATION, LocalFederation, local_federation
from services.coordinator.context import open_context
from services.coordinator.settings import Settings
from services.coordinator.worker.loop import Worker
from shared.credentials import BearerToken
from shared.egress import TrafficCount
from shared.protocol.messages import Event, EventList, RoundList, RoundView, RunView
from shared.protocol.rounds import ENDED_RUNS
from shared.protocol.secagg.attempt import threshold_of
from shared.protocol.tensors import Layout
from shared.protocol.terms import FROZEN, CohortTerms, CotuningTerms, MaskingTerms, OptimiserTerms, RunTerms
from shared.protocol.terms import TrainingTerms as Training
from shared.transport import Transport, open_transport

RUN_ID = "load"
OPTIMISER = OptimiserTerms(learning_rate=1e-3)

# 4,096 parameters: what a request costs, and not what its bytes do, which ``bench.round`` measures.
LAYOUT: Layout = {
    "base_model.model.q_proj.lora_A.weight": (8, 256),
    "base_model.model.q_proj.lora_B.weight": (256, 8),
}
LOOK_SECONDS = 0.25
DAY_SECONDS = 86_400.0


@dataclass(frozen=True)
class Setting:
    """What is measured."""

    agents: int
    rounds: int
    lost_share: float
    stage_seconds: float
    processes: int
    seed: int
    most_seconds: float

    @property
    def names(self) -> tuple[str, ...]:
        """Of all agents."""
        return tuple(f"agent-{place:04}" for place in range(self.agents))

    @property
    def terms(self) -> RunTerms:
        """Return terms of rounds that close as soon as everybody is ready who will be."""
        ready = self.agents - never_ready(self.agents, self.lost_share)
        least = max(3, min(ready, threshold_of(self.agents)))
        return RunTerms(
            llm="none",
            slm="none",
            seed=self.seed,
            rounds=self.rounds,
            training=Training(batch_size=1, optimiser=OPTIMISER, max_tokens=8),
            cotuning=CotuningTerms(batch_size=1, llm_optimiser=OPTIMISER, slm_optimiser=OPTIMISER),
            cohort=CohortTerms(min_count=least, max_count=ready, min_seconds=DAY_SECONDS, max_seconds=DAY_SECONDS),
            masking=MaskingTerms(clip_norm=1000.0, stage_seconds=self.stage_seconds),
        )


class Sample(BaseModel):
    """The coordinator when a round ended: processor seconds since its start, and the most memory since the last one."""

    at: float
    cpu_seconds: float
    resident: int
    model_config = FROZEN


class Measured(BaseModel):
    """What a run took. ``answered`` are requests by the seconds within which the coordinator says it served them."""

    agents: int
    asked_rounds: int
    ended: str
    rounds: tuple[RoundView, ...]
    events: tuple[Event, ...]
    first: Sample
    samples: tuple[Sample, ...]
    seen: tuple[Seen, ...]
    answered: dict[float, float]
    received: float
    sent: float
    model_config = FROZEN


@dataclass
class Watched:
    """The coordinator's process, looked at four times a second; its children unmask."""

    process: psutil.Process
    peak: int = 0
    children: dict[int, float] = field(default_factory=dict)

    async def watch(self) -> None:
        """Look until cancelled."""
        while True:
            self.peak = max(self.peak, self.process.memory_info().rss)
            for child in self.process.children():
                times = child.cpu_times()
                self.children[child.pid] = times.user + times.system
            await asyncio.sleep(LOOK_SECONDS)

    def sample(self) -> Sample:
        """Take a sample, and begin to look for the most memory anew."""
        times, resident = self.process.cpu_times(), max(self.peak, self.process.memory_info().rss)
        self.peak = 0
        used = times.user + times.system + sum(self.children.values())
        return Sample(at=time.time(), cpu_seconds=used, resident=resident)


async def measure(folder: Path, agents_folder: Path, setting: Setting) -> Measured:
    """Run the rounds; a run that takes longer than ``most_seconds`` is ended there, and what there is, is returned."""
    async with local_federation(folder, ()) as federation:
        _admit_all(federation, setting.names)
        await federation.start_coordinator()
        async with federation.operator() as operator, _worker(federation):
            terms = setting.terms
            await operator.call("PUT", f"/v1/runs/{RUN_ID}", RunView, body=terms)
            await operator.call("POST", f"/v1/runs/{RUN_ID}/start", RunView)
            watched = Watched(psutil.Process(federation.processes.running["coordinator"].pid))
            watching = asyncio.create_task(watched.watch())
            plans = await _start_agents(federation, agents_folder, setting)
            await asyncio.sleep(min(20.0, 1.0 + setting.agents / 100))  # until all are there, and wait
            first = watched.sample()
            await federation.sign(operator, RUN_ID, terms)
            samples, ended = await _follow(operator, federation, watched, most_seconds=setting.most_seconds)
            events, rounds = await _log(operator)
            answered, received, sent = _metrics(federation)
            watching.cancel()
            seen = await _end_agents(federation, plans)
    return Measured(
        agents=setting.agents,
        asked_rounds=setting.rounds,
        ended=ended,
        rounds=rounds,
        events=events,
        first=first,
        samples=tuple(samples),
        seen=tuple(seen),
        answered=answered,
        received=received,
        sent=sent,
    )


def _admit_all(federation: LocalFederation, names: Sequence[str]) -> None:
    """Make the agents members before the coordinator starts: a thousand invitations are not what is measured."""
    settings = Settings(
        data_dir=federation.folder / "coordinator",
        principals_file=federation.folder / "principals.json",
        federation=FEDERATION,
        operator_key=federation.operator_key.public,
    )
    with open_context(settings, known_tokens(), time.time) as context:
        admit(context, names, time.time, federation=FEDERATION, operator_key=federation.operator_key)


@asynccontextmanager
async def _worker(federation: LocalFederation) -> AsyncIterator[None]:
    """Run a worker whose co-tuning moves bytes only, in this process."""
    async with open_transport(
        federation.work.url,
        BearerToken(federation.tokens["worker"]),
        TrafficCount(),
        patience_seconds=None,
        ca_file=federation.ca_file,
    ) as transport:
        worker = Worker(transport, NoOpCoTuner(LAYOUT, LAYOUT), federation.folder / "worker", name="worker")
        working = asyncio.create_task(worker.run())
        try:
            yield
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)


async def _start_agents(federation: LocalFederation, folder: Path, setting: Setting) -> list[Plan]:
    plans = [
        Plan(
            url=federation.public.url,
            ca_file=federation.ca_file,
            federation=FEDERATION,
            operator_key=federation.operator_key.public,
            folder=folder,
            names=setting.names,
            mine=setting.names[place :: setting.processes],
            lost_share=setting.lost_share,
            away_seconds=setting.stage_seconds + 1.0,
            seed=setting.seed,
            into=federation.folder / f"agents-{place}.seen",
        )
        for place in range(setting.processes)
    ]
    for place, plan in enumerate(plans):
        file = federation.folder / f"agents-{place}.plan"
        file.write_text(plan.model_dump_json())
        # The coordinator goes first, as on a machine of its own, where nobody masks beside it.
        command = ["nice", "-n", "10", sys.executable, "-m", "bench.load.agents", str(file)]
        await federation.processes.start(f"agents-{place}", command, {})
    return plans


async def _follow(
    operator: Transport, federation: LocalFederation, watched: Watched, *, most_seconds: float
) -> tuple[list[Sample], str]:
    """Follow a run to its end, and take a sample when a round ends; return how it ended, too."""
    after, samples, latest = 0, list[Sample](), time.monotonic() + most_seconds
    while True:
        federation.processes.require_alive(*federation.processes.running)
        params = {"after": after, "wait_seconds": 5}
        page = await operator.call("GET", f"/v1/runs/{RUN_ID}/events", EventList, params=params)
        after = page.last
        samples += [watched.sample() for event in page.events if event.kind == "round.published"]
        run = await operator.call("GET", f"/v1/runs/{RUN_ID}", RunView)
        if run.state in ENDED_RUNS and not page.events:
            return samples, run.state if run.reason is None else f"{run.state}: {run.reason}"
        if time.monotonic() > latest:
            return samples, f"ended after {most_seconds:.0f} seconds"


async def _log(operator: Transport) -> tuple[tuple[Event, ...], tuple[RoundView, ...]]:
    """Return when the run's rounds came into their states, and the rounds."""
    after, events = 0, list[Event]()
    while True:
        page = await operator.call("GET", f"/v1/runs/{RUN_ID}/events", EventList, params={"after": after})
        events += [event for event in page.events if event.kind.startswith("round.")]
        if not page.events:
            break
        after = page.last
    rounds = await operator.call("GET", f"/v1/runs/{RUN_ID}/rounds", RoundList)
    return tuple(events), rounds.rounds


def _metrics(federation: LocalFederation) -> tuple[dict[float, float], float, float]:
    """Return what the coordinator has counted: control requests by seconds, bytes of bodies in and out."""
    request = urllib.request.Request(  # noqa: S310 - an address of this machine
        f"{federation.public.url}/metrics", headers={"Authorization": f"Bearer {federation.tokens['operator']}"}
    )
    trusted = ssl.create_default_context(cafile=federation.ca_file)
    with urllib.request.urlopen(request, context=trusted) as response:  # noqa: S310
        families = {family.name: family for family in text_string_to_metric_families(response.read().decode())}
    buckets: dict[float, float] = {}
    for sample in families["fedcollm_http_request_seconds"].samples:
        if sample.name.endswith("_bucket") and "/runs/{run_id}/rounds" in sample.labels["route"]:
            seconds = float(sample.labels["le"])
            buckets[seconds] = buckets.get(seconds, 0.0) + sample.value
    received, sent = (
        sum(sample.value for sample in families[f"fedcollm_http_{way}_bytes"].samples if sample.name.endswith("_total"))
        for way in ("received", "sent")
    )
    return buckets, received, sent


async def _end_agents(federation: LocalFederation, plans: Sequence[Plan]) -> list[Seen]:
    """Have the agents end, and return what they have seen."""
    running = federation.processes.running
    names = [name for name in running if name.startswith("agents-")]
    for name in names:
        running[name].send_signal(signal.SIGTERM)
    async with asyncio.timeout(120):
        await asyncio.gather(*(running[name].wait() for name in names))
    return [Seen.model_validate_json(plan.into.read_bytes()) for plan in plans]
