"""The federation at a glance: who there is, who was heard of, and what is under way."""

from collections.abc import Iterator

from services.coordinator.ports import Clock, Store
from services.coordinator.presence import HeardWorker, Presence
from services.coordinator.principals import Principal
from services.coordinator.records import Job
from shared.protocol.federation import AgentCounts, FederationView, Reader, WorkerView, WorkUnderWay
from shared.protocol.identity import fingerprint
from shared.protocol.membership import MemberState
from shared.protocol.messages import PROTOCOL_VERSION
from shared.release import release


class Overview:
    """One coordinator, as operators and viewers see it."""

    def __init__(self, store: Store, presence: Presence, clock: Clock, *, federation: str, operator_key: str) -> None:
        self._store = store
        self._presence = presence
        self._clock = clock
        self._federation = federation
        self._operator_key = operator_key
        self._started_at = clock()

    def view(self, reader: Principal) -> FederationView:
        """Return the federation as ``reader`` may see it."""
        with self._store.read() as tx:
            states = tx.members.names_by_state()
            leased = tx.leased_jobs()
        versions = self._presence.heard(states[MemberState.APPROVED])
        return FederationView(
            federation=self._federation,
            operator_key=self._operator_key,
            fingerprint=fingerprint(self._operator_key),
            version=release(),
            protocol=PROTOCOL_VERSION,
            started_at=self._started_at,
            now=self._clock(),
            you=Reader.model_validate({"name": reader.name, "role": reader.role}),
            agents=AgentCounts(
                states={state: len(names) for state, names in states.items()},
                heard=versions.total(),
                versions=dict(versions),
            ),
            workers=tuple(_workers(self._presence.workers(), leased)),
        )


def _workers(heard: list[HeardWorker], leased: list[Job]) -> Iterator[WorkerView]:
    """Put together who asks for work and who has some; one that works is heard of by its heartbeats."""
    jobs = {(job.principal, job.worker): job for job in leased}
    for one in heard:
        job = jobs.pop((one.principal, one.name), None)
        yield _worker(one, job)
    for job in jobs.values():  # leased before this coordinator started
        yield _worker(HeardWorker(job.principal or "", job.worker or "", None, job.renewed_at or job.created_at), job)


def _worker(heard: HeardWorker, job: Job | None) -> WorkerView:
    return WorkerView(
        name=heard.name,
        principal=heard.principal,
        version=heard.version,
        heard_at=heard.at if job is None else max(heard.at, job.renewed_at or 0),
        work=None if job is None else WorkUnderWay(kind=job.task.kind, run_id=job.run_id, round=job.round),
    )
