"""What the store knows, as metrics: read when they are fetched, so that no restart loses anything.

However many agents, rounds and runs there are, there are not many series: agents are counted, never named, and runs
are named while they go on, the newest of them.
"""

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from services.coordinator.count_rows import CountRows
from services.coordinator.ports import Clock, Store
from services.coordinator.presence import Presence
from services.coordinator.records import JobState, Round, Run, seconds_by_state
from services.coordinator.transaction import Transaction
from shared.protocol.federation import HEARD_WITHIN_SECONDS
from shared.protocol.membership import MemberState
from shared.protocol.messages import Score
from shared.protocol.rounds import ENDED_ROUNDS, STAGES, RoundState, RunState

MOST_RUNS = 20
LIVE_ROUNDS = [state for state in RoundState if state not in ENDED_ROUNDS]

Family = CounterMetricFamily | GaugeMetricFamily


class StoreMetrics(Collector):
    """Counts the rows of one store, who of those in them is there, and the bytes of its folder."""

    def __init__(self, store: Store, presence: Presence, data_dir: Path, clock: Clock) -> None:
        """``clock`` gives the seconds since 1970."""
        self._store = store
        self._presence = presence
        self._data_dir = data_dir
        self._clock = clock
        self._began = clock()

    def collect(self) -> Iterator[Family]:
        """Yield what there is, of one moment."""
        now = self._clock()
        with self._store.read() as tx:
            yield from _counted(tx.counts, now)
            yield from _live(tx, now)
            yield from self._there(tx, now)
        yield from _on_disk(self._data_dir)

    def _there(self, tx: Transaction, now: float) -> Iterator[Family]:
        """Yield who was heard of; nobody can have been before this coordinator began."""
        names = tx.members.names_by_state()[MemberState.APPROVED]
        yield GaugeMetricFamily(
            "fedcollm_agents_heard",
            "Approved agents that were heard of within a minute; one that trains is not.",
            self._presence.heard(names).total(),
        )
        heard = [one.at if (one := self._presence.agent(name)) is not None else self._began for name in names]
        yield GaugeMetricFamily(
            "fedcollm_agents_silent_seconds",
            "How long the approved agent that has been silent longest has been so; 0 without agents.",
            now - min(heard, default=now),
        )
        asking = {(one.principal, one.name) for one in self._presence.workers() if one.at >= now - HEARD_WITHIN_SECONDS}
        working = {(job.principal, job.worker) for job in tx.leased_jobs()}
        yield GaugeMetricFamily(
            "fedcollm_workers_heard",
            "Workers that have asked for work within a minute, or have some.",
            len(asking | working),
        )


def _counted(counts: CountRows, now: float) -> Iterator[Family]:
    yield _by("fedcollm_runs", "Runs.", "state", _all(counts.runs(), RunState))
    rounds = counts.rounds()
    yield _by("fedcollm_rounds", "Rounds that have not ended.", "state", _all(rounds, LIVE_ROUNDS))
    ended = _all(rounds, ENDED_ROUNDS)
    yield _by("fedcollm_rounds_ended_total", "Rounds that have ended, and how.", "outcome", ended)
    seconds: Counter[str] = Counter()
    for entered in counts.moments_of_ended_rounds():
        seconds.update(seconds_by_state(entered))
    yield _by(
        "fedcollm_round_state_seconds_total", "Time that rounds which have ended were in a state.", "state", seconds
    )
    sent = counts.sent()
    results = {"accepted": sent.accepted, "refused": sent.refused, "late": sent.late}
    yield _by("fedcollm_updates_total", "What agents have sent to rounds, and what became of it.", "result", results)
    yield _by("fedcollm_agents", "Agents that the coordinator knows.", "state", _all(counts.members(), MemberState))
    yield _by("fedcollm_jobs", "Pieces of work for workers.", "state", _all(counts.jobs(), JobState))
    since, leases = counts.waiting_since(), counts.leases()
    yield GaugeMetricFamily(
        "fedcollm_job_waiting_seconds",
        "How long the oldest work that is wanted has had no worker; 0 if there is none.",
        0.0 if since is None else now - since,
    )
    yield CounterMetricFamily("fedcollm_leases_total", "Leases that workers were given.", leases.given)
    yield CounterMetricFamily(
        "fedcollm_leases_lost_total",
        "Leases that ended without a result: the worker fell silent or gave up.",
        leases.lost,
    )
    stored = counts.stored()
    yield GaugeMetricFamily("fedcollm_blobs", "Adapters that are stored.", stored.blobs)
    yield GaugeMetricFamily("fedcollm_blob_bytes", "Bytes of the adapters that are stored.", stored.bytes)
    yield CounterMetricFamily("fedcollm_audit_entries_total", "Entries of the audit log.", counts.audit_entries())


def _live(tx: Transaction, now: float) -> Iterator[Family]:
    runs = tx.runs(states=(RunState.RUNNING, RunState.PAUSED), limit=MOST_RUNS)
    rounds = GaugeMetricFamily("fedcollm_run_rounds", "Rounds that a run is to publish.", labels=["run"])
    published = GaugeMetricFamily("fedcollm_run_rounds_published", "Rounds that a run has published.", labels=["run"])
    accuracy = GaugeMetricFamily(
        "fedcollm_run_accuracy_ratio",
        "Accuracy of a run's newest published models on the validation set, or of its base models.",
        labels=["run", "model"],
    )
    loss = GaugeMetricFamily(
        "fedcollm_run_loss_nats", "Loss of the same models, a mean for each token.", labels=["run", "model"]
    )
    age = GaugeMetricFamily(
        "fedcollm_round_age_seconds",
        "How long the open round of a run that is not paused has been in its state.",
        labels=["run", "state"],
    )
    limit = GaugeMetricFamily(
        "fedcollm_round_limit_seconds",
        "After how long the run's terms end that state; none for what a worker does.",
        labels=["run", "state"],
    )
    for run in runs:
        rounds.add_metric([run.id], run.terms.rounds)
        published.add_metric([run.id], tx.published_count(run.id))
        for model, score in _scores(tx, run).items():
            accuracy.add_metric([run.id, model], score.accuracy)
            loss.add_metric([run.id, model], score.loss)
        current = tx.live_round(run) if run.state is RunState.RUNNING else None
        if current is not None:
            place = [run.id, current.state.value]
            age.add_metric(place, now - current.since)
            seconds = _limit_seconds(run, current)
            if seconds is not None:
                limit.add_metric(place, seconds)
    yield from (rounds, published, accuracy, loss, age, limit)


def _scores(tx: Transaction, run: Run) -> Mapping[str, Score]:
    newest = tx.round(run.id, run.published_round).scores if run.published_round else None
    scores = newest or (run.prepared.scores if run.prepared else None)
    return {} if scores is None else {"slm": scores.slm, "llm": scores.llm}


def _limit_seconds(run: Run, current: Round) -> float | None:
    if current.state is RoundState.OPEN:
        return run.terms.cohort.max_seconds
    return run.terms.masking.stage_seconds if current.state in STAGES else None


def _on_disk(data_dir: Path) -> Iterator[Family]:
    database = sum(file.stat().st_size for file in data_dir.glob("coordinator.db*"))
    yield GaugeMetricFamily("fedcollm_database_bytes", "The database's files.", database)
    disk = shutil.disk_usage(data_dir)
    yield GaugeMetricFamily("fedcollm_disk_free_bytes", "Room on the disk of data_dir.", disk.free)
    yield GaugeMetricFamily("fedcollm_disk_size_bytes", "Size of the disk of data_dir.", disk.total)


def _all(counts: Mapping[str, int], states: Iterable[StrEnum]) -> Mapping[str, int]:
    """Return the counts of all these states: one that nothing is in has 0, and not nothing."""
    return {state.value: counts.get(state, 0) for state in states}


def _by(name: str, documentation: str, label: str, values: Mapping[str, float]) -> Family:
    """Return a metric with a value for each value of a label."""
    kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
    family = kind(name, documentation, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
