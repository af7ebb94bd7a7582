"""What all processes' metrics have in common: a registry each, and the text that Prometheus is given."""

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


def process_registry() -> CollectorRegistry:
    """Return a registry of its own with what is known of every process: memory, processor time, files, Python.

    The library's own registry is one for all coordinators of a process, so nothing of ours is in it.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each: when it began
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry


def exposition(registry: CollectorRegistry) -> bytes:
    """Return all metrics of a registry in Prometheus' text format."""
    return generate_latest(registry)
