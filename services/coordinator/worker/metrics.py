"""A worker's metrics, served on a port of their own where that is wanted (docs/monitoring.md)."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.registry import Collector

from services.coordinator.worker.tally import Tally
from shared.errors import ConfigurationError
from shared.metrics import process_registry

Family = CounterMetricFamily | GaugeMetricFamily | SummaryMetricFamily

KINDS = ("prepare", "cotune", "evaluate")
OUTCOMES = ("answered", "failed")


def worker_registry(tally: Tally) -> CollectorRegistry:
    """Return a registry that tells what a worker has done."""
    registry = process_registry()
    registry.register(WorkMetrics(tally))
    return registry


@contextmanager
def serving(registry: CollectorRegistry, *, host: str, port: int | None) -> Iterator[str | None]:
    """Serve metrics from a thread while the block runs, and say where; nowhere without a port.

    Raises:
        ConfigurationError: somebody else has the port, or there is no such address here.
    """
    if port is None:
        yield None
        return
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {host}:{port}: {error.strerror}; stop what uses the port, or set metrics_host and "
            "metrics_port to others"
        ) from None
    try:
        yield f"http://{host}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class WorkMetrics(Collector):
    """Tells what a tally says."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def collect(self) -> Iterator[Family]:
        """Yield what there is."""
        tally = self._tally
        working = GaugeMetricFamily(
            "fedcollm_worker_working", "1 while work of this kind is computed, else 0.", labels=["kind"]
        )
        done = SummaryMetricFamily(
            "fedcollm_worker_job_seconds", "Work that was done, and how long it took.", labels=["kind"]
        )
        for kind in KINDS:
            working.add_metric([kind], float(tally.working == kind))
            done.add_metric([kind], tally.done[kind], tally.seconds[kind])
        yield from (working, done)
        failed = CounterMetricFamily(
            "fedcollm_worker_jobs_failed_total", "Work that could not be done here.", labels=["kind", "code"]
        )
        for (kind, code), count in list(tally.failed.items()):
            failed.add_metric([kind, code], count)
        yield failed
        yield CounterMetricFamily(
            "fedcollm_worker_leases_lost_total",
            "Work that was given to somebody else, or to nobody, while it was computed.",
            tally.leases_lost,
        )
        yield CounterMetricFamily(
            "fedcollm_worker_heartbeats_failed_total",
            "Heartbeats that the coordinator refused.",
            tally.heartbeats_failed,
        )
        questions = CounterMetricFamily(
            "fedcollm_worker_questions_total", "Questions to the models, and what became of them.", labels=["outcome"]
        )
        for outcome in OUTCOMES:
            questions.add_metric([outcome], tally.questions[outcome])
        yield questions
        yield GaugeMetricFamily("fedcollm_worker_cotuning_steps", "Steps of the last co-tuning.", tally.steps)
        losses = GaugeMetricFamily(
            "fedcollm_worker_cotuning_loss_nats", "Mean losses of the last co-tuning, by part.", labels=["loss"]
        )
        for loss, nats in dict(tally.losses).items():
            losses.add_metric([loss], nats)
        yield losses
