"""The composition root: everything a coordinator is made of, built once, by plain constructors.

Handlers ask for one ``Context`` and for a ``principal``; nothing else is injected.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Annotated

import structlog
from fastapi import Depends, Header, Request

from services.coordinator.aggregating import PlaintextAggregation
from services.coordinator.attempts import AttemptDesk
from services.coordinator.audit_log import AuditLog, coordinator_key
from services.coordinator.blobs import FileBlobs
from services.coordinator.changes import Changes
from services.coordinator.lifecycle import RunLifecycle
from services.coordinator.masked_sums import MaskedSums
from services.coordinator.membership import Membership
from services.coordinator.ports import Blobs, Clock, Store
from services.coordinator.principals import Principal, Principals, Role
from services.coordinator.progress import SYSTEM, restart_clock
from services.coordinator.records import JobState
from services.coordinator.rounds import RoundEngine
from services.coordinator.settings import Settings
from services.coordinator.store import open_store
from services.coordinator.unmasking import Unmasking, processes
from services.coordinator.updates import UpdateDesk
from services.coordinator.work import WorkDesk
from shared.access import require_writable
from shared.errors import ProtocolVersionMismatch, about
from shared.folders import owned
from shared.protocol.messages import PROTOCOL_FIELD, PROTOCOL_VERSION
from shared.protocol.rounds import RunState

RECONCILE_SECONDS = 1.0

log = structlog.get_logger()


@dataclass(frozen=True)
class Context:
    """One coordinator."""

    settings: Settings
    principals: Principals
    changes: Changes
    store: Store
    blobs: Blobs
    rounds: RoundEngine
    updates: UpdateDesk
    attempts: AttemptDesk
    work: WorkDesk
    lifecycle: RunLifecycle
    membership: Membership
    audit: AuditLog


@contextmanager
def open_context(settings: Settings, principals: Principals, clock: Clock) -> Iterator[Context]:
    """Build a coordinator on its data folder, which it owns until it is closed.

    Raises:
        ConfigurationError: the folder cannot be written to.
        StoreBusy: another coordinator owns the folder.
    """
    with about("data_dir"):
        require_writable(settings.data_dir)
    with owned(settings.data_dir, "coordinator"):
        key = coordinator_key(settings.data_dir)
        changes = Changes()
        store = open_store(settings.data_dir / "coordinator.db", clock, changes.ring)
        blobs = FileBlobs(settings.data_dir / "blobs")
        unmasking = Unmasking(processes)
        with store.read() as tx:
            blobs.sweep(tx.blob_digests())
        _resume(store, clock(), settings)
        try:
            yield Context(
                settings=settings,
                principals=principals,
                changes=changes,
                store=store,
                blobs=blobs,
                rounds=RoundEngine(
                    store,
                    blobs,
                    PlaintextAggregation(blobs),
                    MaskedSums(blobs, unmasking),
                    clock,
                    federation=settings.federation,
                ),
                updates=UpdateDesk(store, clock),
                attempts=AttemptDesk(store, clock, federation=settings.federation),
                work=WorkDesk(
                    store,
                    blobs,
                    clock,
                    lease_seconds=settings.lease_seconds,
                    max_blob_bytes=settings.max_adapter_bytes,
                ),
                lifecycle=RunLifecycle(store, blobs, clock),
                membership=Membership(store, clock, federation=settings.federation, operator_key=settings.operator_key),
                audit=AuditLog(store, key, federation=settings.federation),
            )
        finally:
            unmasking.close()
            store.close()


def _resume(store: Store, now: float, settings: Settings) -> None:
    """Give agents and workers their time again: they could reach nobody while no coordinator ran."""
    with store.write() as tx:
        tx.audit.append(SYSTEM, "coordinator.started", "coordinator", {"operator_key": settings.operator_key})
        for run in tx.runs(states=(RunState.RUNNING, RunState.PAUSED)):
            restart_clock(tx, run, now, actor=SYSTEM)
            for job in tx.open_jobs(run.id):
                # A lease that was over would have been taken back by the reconciler: what is leased here was live.
                if job.state is JobState.LEASED:
                    tx.renew_job(job, expires_at=now + settings.lease_seconds, renewed_at=job.renewed_at)


@asynccontextmanager
async def reconciling(context: Context) -> AsyncIterator[None]:
    """Reconcile at start, after every change and every second, until the block ends, and with it the last pass."""
    # A thread goes on when its task is cancelled. This one is waited for where nothing can be cancelled, because a
    # pass that outlived its coordinator would write into a folder that the next one owns.
    with ThreadPoolExecutor(max_workers=1) as thread:
        task = asyncio.create_task(_reconcile_forever(context, thread))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _reconcile_forever(context: Context, thread: Executor) -> None:
    while True:
        waiting = asyncio.create_task(context.changes.wait(RECONCILE_SECONDS))
        await asyncio.sleep(0)  # the waiter takes its bell before the work begins, so that no ring is missed
        try:
            await asyncio.get_running_loop().run_in_executor(thread, context.rounds.reconcile)
        except Exception:
            # One bad pass (a full disk, a locked database) must not end all passes; the next one is a second away.
            log.exception("reconcile.crashed")
        await waiting


async def get_context(request: Request) -> Context:
    """Return the coordinator that this app belongs to."""
    context: Context = request.app.state.context
    return context


AnyContext = Annotated[Context, Depends(get_context)]


def principal(*roles: Role) -> Callable[..., Awaitable[Principal]]:
    """Return the dependency that every route has: who asks, if one of ``roles`` may.

    Dependencies are coroutines, because FastAPI gives each plain function a thread of its own.
    """

    async def identify(
        context: AnyContext,
        request: Request,
        authorization: Annotated[str | None, Header(include_in_schema=False)] = None,
    ) -> Principal:
        found = context.principals.identify(authorization, roles)
        request.state.who = found.name  # for the log, if the request comes to nothing
        return found

    identify.roles = roles  # type: ignore[attr-defined]  # the matrix test reads it
    return identify


async def require_protocol(
    version: Annotated[
        str | None, Header(alias=PROTOCOL_FIELD, description="Version of the protocol that the sender speaks.")
    ] = None,
) -> None:
    """Raise unless the request names the protocol version that this coordinator speaks."""
    if version != str(PROTOCOL_VERSION):
        raise ProtocolVersionMismatch(
            f"the request says {PROTOCOL_FIELD}: {version or 'nothing'}, and this coordinator speaks "
            f"{PROTOCOL_VERSION}: install the same release on both sides"
        )
