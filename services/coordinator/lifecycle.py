"""What an operator does with runs, and what everybody may see of them."""

from pathlib import Path

from services.coordinator.manifest import manifest_of, prepared_layout
from services.coordinator.ports import Blobs, Clock, Store
from services.coordinator.progress import fail, go_on, restart_clock, signed
from services.coordinator.records import Blob, LoggedEvent, Round, Run, seconds_by_state
from services.coordinator.rounds import published
from shared.errors import NotFound, RunConflict
from shared.protocol.codec import blob_bytes
from shared.protocol.identity import require_signature
from shared.protocol.manifest import MANIFEST, SignedManifest
from shared.protocol.messages import Artefact, ArtefactName, RoundList, RoundView, RunList, RunView
from shared.protocol.rounds import ENDED_ROUNDS, ENDED_RUNS, STOPPED, RoundState, RunEvent, RunState
from shared.protocol.terms import RunTerms
from shared.protocol.work import PreparedModel

EVENTS_A_PAGE = 500
MOST_A_PAGE = 100


class RunLifecycle:
    """Runs of one coordinator: create, start, pause, cancel, look."""

    def __init__(self, store: Store, blobs: Blobs, clock: Clock, *, federation: str, operator_key: str) -> None:
        """``operator_key`` is the public half of the key by which runs are signed."""
        self._store = store
        self._blobs = blobs
        self._clock = clock
        self._federation = federation
        self._operator_key = operator_key

    # --- operators ----------------------------------------------------------------------------------------------

    def create(self, run_id: str, terms: RunTerms, *, actor: str) -> RunView:
        """Make a draft under an id that the caller chose; the same again changes nothing.

        Raises:
            RunConflict: there is a run by this id with other terms.
        """
        with self._store.write() as tx:
            try:
                known = tx.run(run_id)
            except NotFound:
                known = Run(run_id, terms, created_at=self._clock())
                tx.insert_run(known, actor=actor)
                if terms.aggregation == "PlaintextAggregation":
                    warning = "PlaintextAggregation: the coordinator can read every agent's update"
                    tx.note(run_id, None, "run.warning", actor, {"warning": warning})
            if known.terms != terms:
                raise RunConflict(f"run {run_id!r} exists with other terms, and terms never change: choose another id")
            return _run_view(known)

    def start(self, run_id: str, *, actor: str) -> RunView:
        """Start a draft or go on with a paused run; a running one stays as it is."""
        with self._store.write() as tx:
            run = tx.run(run_id)
            if run.state is not RunState.RUNNING:
                resumed = run.state is RunState.PAUSED
                run = tx.change_run(run, RunEvent.START, actor=actor)
                if resumed:
                    restart_clock(tx, run, self._clock(), actor=actor)
                run = go_on(tx, run, self._clock())
            return _run_view(run)

    def sign(self, run_id: str, signature: str, *, actor: str) -> RunView:
        """Take the operator's signature over a run's manifest, without which no round opens; the same changes nothing.

        Raises:
            NotFound: there is no such run, or no worker has prepared it yet.
            SignatureInvalid: it is not the operator's, or over something else.
        """
        with self._store.write() as tx:
            run = tx.run(run_id)
            manifest = manifest_of(run, federation=self._federation)
            require_signature(self._operator_key, MANIFEST, manifest, signature, what=f"the manifest of run {run_id}")
            return _run_view(
                run if run.signature == signature else signed(tx, run, signature, self._clock(), actor=actor)
            )

    def pause(self, run_id: str, *, actor: str) -> RunView:
        """Hand out nothing more; what is under way may finish, and updates are still taken."""
        with self._store.write() as tx:
            run = tx.run(run_id)
            if run.state is not RunState.PAUSED:
                run = tx.change_run(run, RunEvent.PAUSE, actor=actor)
            return _run_view(run)

    def cancel(self, run_id: str, reason: str, *, actor: str) -> RunView:
        """End a run for good; one that has ended stays as it is."""
        with self._store.write() as tx:
            run = tx.run(run_id)
            if run.state not in ENDED_RUNS:
                run = fail(tx, run, f"{STOPPED}{reason}", actor=actor)
            return _run_view(run)

    # --- everybody ----------------------------------------------------------------------------------------------

    def run(self, run_id: str) -> RunView:
        """Return a run."""
        with self._store.read() as tx:
            return _run_view(tx.run(run_id))

    def runs(self, *, before: str | None = None, limit: int = MOST_A_PAGE) -> RunList:
        """Return a page of runs, newest first: older ones than the run ``before``."""
        with self._store.read() as tx:
            found = tx.runs(before=None if before is None else tx.run(before), limit=limit + 1)
        page = found[:limit]
        return RunList(runs=tuple(map(_run_view, page)), next=page[-1].id if len(found) > limit else None)

    def rounds(self, run_id: str, *, after: int = 0, limit: int = MOST_A_PAGE) -> RoundList:
        """Return a page of a run's rounds, oldest first: those whose number is above ``after``."""
        with self._store.read() as tx:
            run = tx.run(run_id)
            found = tx.rounds(run_id, after=after, limit=limit + 1)
        page = found[:limit]
        views = tuple(_round_view(run, current) for current in page)
        return RoundList(rounds=views, next=page[-1].number if len(found) > limit else None)

    def events(self, run_id: str, *, after: int) -> list[LoggedEvent]:
        """Return a page of the run's log after the event numbered ``after``."""
        with self._store.read() as tx:
            tx.run(run_id)
            return tx.events(run_id, after=after, limit=EVENTS_A_PAGE)

    def manifest(self, run_id: str) -> SignedManifest:
        """Return what agents compare with their own machine; NotFound until a worker has prepared the run."""
        with self._store.read() as tx:
            run = tx.run(run_id)
            return SignedManifest(manifest=manifest_of(run, federation=self._federation), signature=run.signature)

    def artefacts(self, run_id: str) -> list[Artefact]:
        """Return the newest published SLM adapter and the LLM adapter that was co-tuned with it."""
        with self._store.read() as tx:
            run = tx.run(run_id)
            if run.prepared is None or run.slm_adapter is None or run.llm_adapter is None or run.published_round == 0:
                return []
            return [
                _artefact("slm-adapter", run, tx.blob(run.slm_adapter), run.prepared.slm),
                _artefact("llm-adapter", run, tx.blob(run.llm_adapter), run.prepared.llm),
            ]

    def artefact_path(self, run_id: str, name: str) -> tuple[str, Path]:
        """Return the digest of an artefact and where it lies."""
        for artefact in self.artefacts(run_id):
            if artefact.name == name:
                return artefact.digest, self._blobs.path(artefact.digest)
        raise NotFound(f"run {run_id} has no artefact {name!r}")


def _artefact(name: ArtefactName, run: Run, blob: Blob, model: PreparedModel) -> Artefact:
    return Artefact(
        name=name,
        round=run.published_round,
        digest=blob.digest,
        bytes=blob.bytes,
        adapter_config=model.adapter_config,
    )


def _run_view(run: Run) -> RunView:
    return RunView(
        id=run.id,
        state=run.state,
        reason=run.reason,
        terms=run.terms,
        created_at=run.created_at,
        round=run.round,
        published=published(run),
        base_scores=run.prepared.scores if run.prepared else None,
        signed=run.signature is not None,
    )


def _round_view(run: Run, current: Round) -> RoundView:
    ended = current.state in ENDED_ROUNDS
    return RoundView(
        run_id=current.run_id,
        number=current.number,
        state=current.state,
        reason=current.reason,
        opened_at=current.entered["open"],
        since=current.since,
        ended_at=current.entered[current.state] if ended else None,
        accepted=current.accepted,
        refused=current.refused,
        late=current.late,
        attempts=current.attempt,
        error_bound=current.error_bound,
        evaluation=current.evaluation,
        aggregate_bytes=blob_bytes(prepared_layout(run)) if current.aggregate else None,
        slm_adapter=current.slm_candidate if current.state is RoundState.PUBLISHED else None,
        llm_adapter=current.llm_candidate if current.state is RoundState.PUBLISHED else None,
        scores=current.scores,
        seconds=seconds_by_state(current.entered),
    )
