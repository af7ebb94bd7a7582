"""Metrics as Prometheus reads them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

# Labels that the format itself has, in the buckets of histograms.
OF_THE_FORMAT = {"le"}


@dataclass(frozen=True)
class Described:
    """A metric as it is documented."""

    name: str
    kind: str
    labels: frozenset[str]
    meaning: str


def families(text: str) -> list[Metric]:
    """Return the metrics of an exposition."""
    return list(text_string_to_metric_families(text))


def described(text: str) -> Iterator[Described]:
    """Yield the metrics of an exposition as they would be documented."""
    for family in families(text):
        labels = {label for sample in family.samples for label in sample.labels} - OF_THE_FORMAT
        name = f"{family.name}_total" if family.type == "counter" else family.name
        yield Described(name, family.type, frozenset(labels), family.documentation)


def values(text: str, name: str) -> Mapping[tuple[str, ...], float]:
    """Return the values of a sample by its labels' values, in the order of the labels' names."""
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in families(text)
        for sample in family.samples
        if sample.name == name
    }


def value(text: str, name: str, *labels: str) -> float:
    """Return one value."""
    return values(text, name)[labels]
