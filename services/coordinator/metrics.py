"""What a coordinator counts of itself while it runs, and the text that Prometheus fetches (docs/monitoring.md).

What the store knows is read from it at that moment (``store_metrics``): it outlives the process, and is counted once.
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from shared.metrics import exposition

METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
# Of what a request takes; those that wait for something to happen are answered after up to 25 seconds.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)


class Metrics:
    """The metrics of one coordinator."""

    def __init__(self, registry: CollectorRegistry, *, waiting: Callable[[], int]) -> None:
        """``waiting`` gives how many long polls wait now."""
        self._registry = registry
        self._requests = Counter(
            "fedcollm_http_requests_total",
            "Requests that were answered.",
            ["route", "method", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "fedcollm_http_request_seconds",
            "How long a request took, until the last byte of its answer; of long polls, their waiting too.",
            ["route", "method"],
            buckets=SECONDS,
            registry=registry,
        )
        self._received = Counter(
            "fedcollm_http_received_bytes_total", "Bodies of requests.", ["route"], registry=registry
        )
        self._sent = Counter("fedcollm_http_sent_bytes_total", "Bodies of answers.", ["route"], registry=registry)
        self._refusals = Counter(
            "fedcollm_http_refusals_total", "Requests that were answered with a problem.", ["code"], registry=registry
        )
        self._passes = Histogram(
            "fedcollm_reconcile_seconds", "Passes of the reconciler.", buckets=SECONDS, registry=registry
        )
        self._failures = Counter(
            "fedcollm_reconcile_failures_total",
            "Passes of the reconciler that failed, as a whole or for a run.",
            registry=registry,
        )
        Gauge("fedcollm_http_polls_waiting", "Long polls that wait now.", registry=registry).set_function(waiting)

    def answered(self, *, route: str, method: str, status: int, seconds: float, received: int, sent: int) -> None:
        """Count a request; ``route`` is the path with its parameters' names, so that there are not many."""
        method = method if method in METHODS else "other"
        self._requests.labels(route, method, f"{status // 100}xx").inc()
        self._seconds.labels(route, method).observe(seconds)
        self._received.labels(route).inc(received)
        self._sent.labels(route).inc(sent)

    def refused(self, code: str) -> None:
        """Count a problem."""
        self._refusals.labels(code).inc()

    def reconciled(self, seconds: float, *, well: bool) -> None:
        """Count a pass of the reconciler."""
        self._passes.observe(seconds)
        if not well:
            self._failures.inc()

    def text(self) -> bytes:
        """Return all metrics as Prometheus reads them."""
        return exposition(self._registry)
