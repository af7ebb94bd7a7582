"""The composition root: everything a coordinator is made of, built once, by plain constructors.

Handlers ask for one ``Context`` and for a ``principal``; nothing else is injected.
"""

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request

from services.coordinator.admission import Admission, Arrival
from services.coordinator.aggregating import PlaintextAggregation
from services.coordinator.assets import Asset, dashboard_assets
from services.coordinator.attempts import AttemptDesk
from services.coordinator.audit_log import AuditLog, coordinator_key
from services.coordinator.blobs import FileBlobs
from services.coordinator.cards import Cards
from services.coordinator.changes import Changes
from services.coordinator.instances import Instances
from services.coordinator.lifecycle import RunLifecycle
from services.coordinator.masked_sums import MaskedSums
from services.coordinator.membership import Membership
from services.coordinator.metrics import Metrics
from services.coordinator.nonces import Nonces
from services.coordinator.overview import Overview
from services.coordinator.partial_uploads import KEPT_SECONDS
from services.coordinator.ports import Blobs, Clock, Store
from services.coordinator.presence import Presence
from services.coordinator.principals import Principal, Role
from services.coordinator.progress import SYSTEM, restart_clock
from services.coordinator.promotion import PromotionDesk
from services.coordinator.questions import Questions
from services.coordinator.records import Detail, JobState
from services.coordinator.refusals import Refusals
from services.coordinator.retention import Retention
from services.coordinator.rounds import RoundEngine
from services.coordinator.settings import Settings
from services.coordinator.store import open_store
from services.coordinator.store_metrics import StoreMetrics
from services.coordinator.token_log import TokenLog, told
from services.coordinator.tokens import Tokens
from services.coordinator.unmasking import Unmasking, processes
from services.coordinator.updates import UpdateDesk
from services.coordinator.uploads import Uploads
from services.coordinator.work import WorkDesk
from shared.access import require_writable
from shared.errors import DigestMismatch, ProtocolVersionMismatch, about
from shared.folders import owned
from shared.metrics import process_registry
from shared.protocol.digests import digest_of
from shared.protocol.messages import PROTOCOL_FIELD, PROTOCOL_VERSION
from shared.protocol.rounds import RunState
from shared.release import release_told


@dataclass(frozen=True)
class Context:
    """One coordinator."""

    settings: Settings
    admission: Admission
    changes: Changes
    store: Store
    blobs: Blobs
    rounds: RoundEngine
    retention: Retention
    uploads: Uploads
    updates: UpdateDesk
    attempts: AttemptDesk
    work: WorkDesk
    lifecycle: RunLifecycle
    membership: Membership
    presence: Presence
    instances: Instances
    promotion: PromotionDesk
    questions: Questions
    overview: Overview
    dashboard: dict[str, Asset]
    audit: AuditLog
    cards: Cards
    token_log: TokenLog
    metrics: Metrics

    def forget_partial_uploads(self) -> None:
        """Remove the uploads that nobody has gone on with for long; in a thread."""
        self.blobs.partial.forget(before=self.admission.clock() - KEPT_SECONDS)


@contextmanager
def open_context(settings: Settings, tokens: Tokens, clock: Clock) -> Iterator[Context]:
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
        nonces = Nonces(settings.data_dir / "nonces.db")
        blobs = FileBlobs(settings.data_dir / "blobs")
        refusals = Refusals(passing=time.monotonic)
        unmasking = Unmasking(processes)
        presence = Presence(clock)
        sums = MaskedSums(store, blobs, unmasking)
        rounds = RoundEngine(store, blobs, PlaintextAggregation(blobs), sums, clock, federation=settings.federation)
        registry = process_registry()
        registry.register(StoreMetrics(store, presence, settings.data_dir, clock))
        with store.read() as tx:
            blobs.sweep(tx.blobs.named())
        _resume(store, clock(), settings, tokens)
        try:
            yield Context(
                settings=settings,
                admission=Admission(settings, tokens, store, nonces, clock, passing=time.monotonic),
                changes=changes,
                store=store,
                blobs=blobs,
                rounds=rounds,
                retention=Retention(store, blobs, clock, keep_rounds=settings.keep_rounds),
                uploads=Uploads(),
                updates=UpdateDesk(store, refusals, clock),
                attempts=AttemptDesk(store, blobs, refusals, clock, federation=settings.federation),
                work=WorkDesk(
                    store,
                    blobs,
                    clock,
                    lease_seconds=settings.lease_seconds,
                    max_blob_bytes=settings.max_adapter_bytes,
                ),
                lifecycle=RunLifecycle(
                    store, blobs, clock, federation=settings.federation, operator_key=settings.operator_key
                ),
                membership=Membership(
                    store, tokens, presence, clock, federation=settings.federation, operator_key=settings.operator_key
                ),
                presence=presence,
                instances=Instances(presence, rounds, store, clock),
                promotion=PromotionDesk(store),
                questions=Questions(store, clock, changes.ring),
                overview=Overview(
                    store, presence, clock, federation=settings.federation, operator_key=settings.operator_key
                ),
                dashboard=dashboard_assets(),
                audit=AuditLog(store, key, federation=settings.federation),
                cards=Cards(store, key, federation=settings.federation),
                token_log=TokenLog(store, tokens),
                metrics=Metrics(registry, waiting=lambda: changes.waiting),
            )
        finally:
            unmasking.close()
            nonces.close()
            store.close()


def _resume(store: Store, now: float, settings: Settings, tokens: Tokens) -> None:
    """Give agents and workers their time again: they could reach nobody while no coordinator ran."""
    with store.write() as tx:
        trusted: Detail = {"operator_key": settings.operator_key, "tokens": told(tokens.entries())}
        tx.audit.append(SYSTEM, "coordinator.started", "coordinator", trusted)
        for run in tx.runs(states=(RunState.RUNNING, RunState.PAUSED)):
            restart_clock(tx, run, now, actor=SYSTEM)
            for job in tx.open_jobs(run.id):
                # A lease that was over would have been taken back by the reconciler: what is leased here was live.
                if job.state is JobState.LEASED:
                    tx.renew_job(job, expires_at=now + settings.lease_seconds, renewed_at=job.renewed_at)


async def get_context(request: Request) -> Context:
    """Return the coordinator that this app belongs to."""
    context: Context = request.app.state.context
    return context


AnyContext = Annotated[Context, Depends(get_context)]


async def address_of(request: Request) -> str:
    """Return the address that a request came from; a proxy on this machine says whose it is (X-Forwarded-For)."""
    return request.client.host if request.client else "an unknown address"


Address = Annotated[str, Depends(address_of)]


def version_of(request: Request) -> str | None:
    """Return the version of the release that a request comes from, if it says one."""
    return release_told(request.headers.get("User-Agent", ""))


def principal(*roles: Role, streamed: bool = False) -> Callable[..., Awaitable[Principal]]:
    """Return the dependency that every route has: who asks, if one of ``roles`` may.

    A body that was signed is compared with its signature here, or, where it is ``streamed``, by the route, which has
    its digest from ``bodies.announced_digest``. Dependencies are coroutines, because FastAPI gives each plain function
    a thread of its own.
    """

    async def identify(context: AnyContext, request: Request, address: Address) -> Principal:
        admitted = context.admission.admit(_arrival(request, address), roles)
        request.state.who = admitted.principal  # for the log, if the request comes to nothing
        if admitted.digest is not None and not streamed and digest_of(await request.body()) != admitted.digest:
            raise DigestMismatch("the body is not the one that was signed: send it again, signed anew")
        return admitted.principal

    identify.roles, identify.streamed = roles, streamed  # type: ignore[attr-defined]  # the matrix test reads them
    return identify


def _arrival(request: Request, address: str) -> Arrival:
    scope = request.scope
    query = scope["query_string"]
    return Arrival(
        method=request.method,
        target=(scope["raw_path"] + (b"?" + query if query else b"")).decode("latin-1"),
        fields=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]],
        address=address,
    )


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
