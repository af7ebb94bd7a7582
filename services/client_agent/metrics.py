"""An agent's metrics, for its own organisation's Prometheus: they are on its status page (docs/monitoring.md)."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from services.client_agent.status import Phase, Status
from shared.metrics import process_registry

Family = CounterMetricFamily | GaugeMetricFamily


def agent_registry(status: Status) -> CollectorRegistry:
    """Return a registry that tells what an agent is doing."""
    registry = process_registry()
    registry.register(AgentMetrics(status))
    return registry


class AgentMetrics(Collector):
    """Tells what a status says, but for losses."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def collect(self) -> Iterator[Family]:
        """Yield what there is."""
        status = self._status
        phase = GaugeMetricFamily("fedcollm_agent_phase", "1 for what this agent does now, else 0.", labels=["phase"])
        for each in Phase:
            phase.add_metric([each.value], float(status.phase is each))
        yield phase
        failures = CounterMetricFamily(
            "fedcollm_agent_failures_total",
            "Steps that came to nothing: what this agent refused or could not do, and what it was refused.",
            labels=["code"],
        )
        for code, count in list(status.failures.items()):
            failures.add_metric([code], count)
        yield failures
        answered = GaugeMetricFamily(
            "fedcollm_agent_answered_timestamp_seconds", "When the coordinator has answered last; 0 if never."
        )
        answered.add_metric([], status.answered_at or 0.0)
        yield answered
        for name, meaning, value in (
            (
                "fedcollm_agent_trouble",
                "1 while a request is sent again and again, else 0.",
                status.trouble is not None,
            ),
            (
                "fedcollm_agent_audit_broken",
                "1 if the coordinator's audit log is not to be trusted, else 0.",
                status.audit_broken is not None,
            ),
            ("fedcollm_agent_training_steps", "Steps of the last training.", status.trained_steps),
            ("fedcollm_agent_training_seconds", "How long the last training took.", status.trained_seconds),
        ):
            yield GaugeMetricFamily(name, meaning, float(value))
        for name, meaning, count in (
            ("fedcollm_agent_rounds_total", "Rounds that it has taken part in.", status.rounds_taken_part),
            ("fedcollm_agent_sent_requests_total", "Requests that have left this machine.", status.sent.requests),
            ("fedcollm_agent_sent_bytes_total", "Bytes of those requests, heads and bodies.", status.sent.bytes),
            ("fedcollm_agent_received_bytes_total", "Bytes of the adapters that were fetched.", status.received_bytes),
        ):
            yield CounterMetricFamily(name, meaning, count)
