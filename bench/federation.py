"""A whole federation in memory: one coordinator, its worker and its agents, joined without sockets.

The real apps, the real store and the real loops; only the wire is missing. Time is a number that the caller moves,
and nothing happens except in ``step``, so the same calls give the same bytes.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from services.client_agent.agent import AFTER_FAILURE, Agent
from services.client_agent.attempts import AttemptMember, Standing
from services.client_agent.coordinator_client import CoordinatorClient
from services.client_agent.holdout import HoldOut
from services.client_agent.holdout_folder import HoldOutFolder
from services.client_agent.instance import Instance
from services.client_agent.policy import Policy
from services.client_agent.state import StateFolder
from services.client_agent.status import Status
from services.client_agent.trainer import SpareTimeTrainer, Trainer
from services.coordinator.app import create_app, create_work_app
from services.coordinator.cli.following import waits_for_signature
from services.coordinator.context import Context, open_context
from services.coordinator.records import Member
from services.coordinator.settings import Settings
from services.coordinator.tokens import TOKEN_ROLES, KnownTokens, TokenEntry
from services.coordinator.worker.cotuner import CoTuner
from services.coordinator.worker.loop import Worker
from shared.backoff import Backoff
from shared.credentials import Authenticator, BearerToken, SignedRequests
from shared.egress import TrafficCount
from shared.protocol.identity import IdentityKey, to_text
from shared.protocol.manifest import MANIFEST
from shared.protocol.membership import CERTIFICATE, MembershipCertificate, MemberState
from shared.protocol.messages import RoundList, RunView
from shared.protocol.rounds import ENDED_RUNS, RunState
from shared.protocol.terms import RunTerms
from shared.transport import Transport, open_in_process

FEDERATION = "in-memory"
NOT_AFTER = 4_000_000_000

NOBODY: Mapping[str, SpareTimeTrainer] = {}

# What tests and measurements ask for, an agent of theirs does.
EVERYTHING = Policy(allow_plaintext=True, allow_shared_aggregate=True)


@dataclass
class ManualClock:
    """Seconds since 1970 that pass when they are told to."""

    seconds: float = 1_700_000_000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.seconds

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.seconds += seconds


@dataclass
class Federation:
    """A federation that is open; agents that are taken out of ``agents`` have disappeared."""

    context: Context
    clock: ManualClock
    operator: Transport
    worker: Worker
    agents: dict[str, Agent]
    statuses: dict[str, Status]
    transports: dict[str, Transport] = field(default_factory=dict)
    holdouts: dict[str, HoldOut] = field(default_factory=dict)

    async def work(self) -> None:
        """Let the worker act once, and the operator, who signs every run that has been prepared."""
        await self.worker.step(wait_seconds=0)
        for run in self.context.lifecycle.runs().runs:
            if waits_for_signature(run):
                sign(self.context, run.id)

    async def start(self, run_id: str, terms: RunTerms) -> None:
        """Make and start a run, as an operator; one that was started before a restart goes on."""
        view = await self.operator.call("PUT", f"/v1/runs/{run_id}", RunView, body=terms)
        if view.state is RunState.DRAFT:
            await self.operator.call("POST", f"/v1/runs/{run_id}/start", RunView)

    async def step(self) -> None:
        """Let everybody act once: reconciler, worker, operator, agents in the order of their names, reconciler."""
        self.context.rounds.reconcile()
        await self.work()
        for name in sorted(self.agents):
            await self.agents[name].step(wait_seconds=0)
        for name in sorted(self.agents.keys() & self.holdouts.keys()):
            while await self.holdouts[name].step():
                pass
        self.context.rounds.reconcile()

    async def finish(
        self, run_id: str, *, most_steps: int = 100, on_step: Callable[[RunView], None] = lambda _: None
    ) -> RunView:
        """Step until the run has ended, and once more, so that every agent holds what it published last.

        ``on_step`` is told after every step but that one how the run is.
        """
        for _ in range(most_steps):
            await self.step()
            view = await self.run(run_id)
            on_step(view)
            if view.state in ENDED_RUNS:
                await self.step()
                return await self.run(run_id)
        raise TimeoutError(f"run {run_id} has not ended after {most_steps} steps: {await self.run(run_id)}")

    async def run(self, run_id: str) -> RunView:
        """Look at a run."""
        return await self.operator.call("GET", f"/v1/runs/{run_id}", RunView)

    async def rounds(self, run_id: str) -> RoundList:
        """Look at the rounds of a run."""
        return await self.operator.call("GET", f"/v1/runs/{run_id}/rounds", RoundList)


def key_of(name: str) -> IdentityKey:
    """Return the key of an agent, or the operator's, of a federation in memory."""
    return IdentityKey(hashlib.sha256(f"key of {name} in memory".encode()).digest())


def sign(context: Context, run_id: str) -> None:
    """Sign what a run is, as the operator of a federation in memory."""
    manifest = context.lifecycle.manifest(run_id).manifest
    context.lifecycle.sign(run_id, key_of("operator").sign(MANIFEST, manifest), actor="operator")


def token_of(name: str) -> str:
    """Return the token of a principal of a federation in memory."""
    return f"token-of-{name}-in-memory"


def settings_of(folder: Path, **changes: Any) -> Settings:  # noqa: ANN401 - settings differ in type
    """Return the settings of a coordinator in memory whose state lies in ``folder``."""
    return Settings(
        data_dir=folder,
        principals_file=folder / "unused",
        federation=FEDERATION,
        operator_key=key_of("operator").public,
        **{"requests_per_minute": 1_000_000, "failures_per_minute": 1_000_000} | changes,  # nobody waits here
    )


def known_tokens() -> KnownTokens:
    """Return what a coordinator in memory keeps of everybody's token."""
    ends = datetime(9999, 1, 1, tzinfo=UTC)
    return KnownTokens({role: TokenEntry.of(token_of(role), role, not_after=ends) for role in TOKEN_ROLES})


def admit(
    context: Context,
    agents: Iterable[str],
    clock: Callable[[], float],
    *,
    federation: str = FEDERATION,
    operator_key: IdentityKey | None = None,
) -> None:
    """Make agents members, as if they had enrolled and the operator had approved them."""
    operator_key = operator_key or key_of("operator")
    with context.store.write() as tx:
        known = {member.name for member in tx.members.all()}
        for name in sorted(set(agents) - known):
            certificate = MembershipCertificate(
                federation=federation, name=name, key=key_of(name).public, not_after=NOT_AFTER
            )
            member = Member(
                name,
                created_at=clock(),
                changed_at=clock(),
                state=MemberState.APPROVED,
                key=certificate.key,
                not_after=certificate.not_after,
                signature=operator_key.sign(CERTIFICATE, certificate),
            )
            tx.members.insert(member, actor="operator")


def believed() -> dict[str, str]:
    """Return what agents of a federation in memory believe: of which one they are, and who operates it."""
    return {"federation": FEDERATION, "operator_key": key_of("operator").public}


def client_of(transport: Transport, instance: Instance | None = None) -> CoordinatorClient:
    """Return what an agent of a federation in memory asks of its coordinator."""
    return CoordinatorClient(
        transport, federation=FEDERATION, operator_key=key_of("operator").public, instance=instance
    )


def make_agent(
    name: str,
    coordinator: CoordinatorClient,
    trainer: Trainer,
    state: StateFolder,
    status: Status,
    *,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    policy: Policy = EVERYTHING,
    slm: str = "slm",
    clock: Callable[[], float] = time.time,
    holdout: HoldOut | None = None,
    backoff: Backoff = AFTER_FAILURE,
) -> Agent:
    """Return the agent of this name, with the key that it has in a federation in memory."""
    standing = Standing(name, key_of(name), FEDERATION, key_of("operator").public)
    member = AttemptMember(coordinator, state, policy, standing, clock=clock)
    return Agent(
        *(coordinator, trainer, state, status, pause),
        name=name,
        member=member,
        policy=policy,
        slm=slm,
        clock=clock,
        holdout=holdout,
        backoff=backoff,
    )


def _instance(folder: Path) -> Instance:
    """Return the next process of the agent whose state folder this is; the same one for the same history."""
    known = folder / "instances.json"
    history = folder.name.encode() + (known.read_bytes() if known.exists() else b"")
    return Instance(folder, lambda: to_text(hashlib.sha256(history).digest()[:16]))


@asynccontextmanager
async def open_federation(
    folder: Path,
    trainers: Mapping[str, Trainer],
    cotuner: CoTuner,
    clock: ManualClock,
    policy: Policy = EVERYTHING,
    *,
    spare_time: Mapping[str, SpareTimeTrainer] = NOBODY,
) -> AsyncIterator[Federation]:
    """Open a federation whose state lies in ``folder``; opened again on the same folder, it has restarted.

    Agents in ``spare_time`` have a hold-out, and a trainer that measures on it.
    """
    async with AsyncExitStack() as stack:
        context = stack.enter_context(open_context(settings_of(folder / "coordinator"), known_tokens(), clock))
        admit(context, trainers, clock)
        app = create_app(context)

        async def connect(authenticator: Authenticator, ledger: TrafficCount) -> Transport:
            return await stack.enter_async_context(open_in_process(app, authenticator, ledger))

        statuses = {name: Status() for name in trainers}
        transports = {
            name: await connect(SignedRequests(name, key_of(name), FEDERATION, clock), statuses[name].sent)
            for name in trainers
        }
        work = await stack.enter_async_context(
            open_in_process(create_work_app(context), BearerToken(token_of("worker")), TrafficCount())
        )
        states = {name: StateFolder(folder / name) for name in trainers}
        clients = {name: client_of(transport, _instance(folder / name)) for name, transport in transports.items()}
        holdouts = {
            name: HoldOut(clients[name], trainer, states[name], HoldOutFolder(folder / name), name=name, clock=clock)
            for name, trainer in spare_time.items()
        }
        yield Federation(
            context=context,
            clock=clock,
            operator=await connect(BearerToken(token_of("operator")), TrafficCount()),
            worker=Worker(work, cotuner, folder / "worker", name="worker"),
            agents={
                name: make_agent(
                    name,
                    clients[name],
                    trainer,
                    states[name],
                    statuses[name],
                    policy=policy,
                    slm=f"the SLM of {name}",
                    clock=clock,
                    holdout=holdouts.get(name),
                )
                for name, trainer in trainers.items()
            },
            statuses=statuses,
            transports=transports,
            holdouts=holdouts,
        )
