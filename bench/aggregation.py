"""How many adapters a second the coordinator aggregates from blobs on disk, each checked."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import numpy as np

from services.coordinator.aggregating import PlaintextAggregation
from services.coordinator.blobs import FileBlobs, adapter_chunks
from services.coordinator.records import Blob
from shared.protocol.codec import blob_bytes, canonical_header
from shared.protocol.digests import digest_of
from shared.protocol.tensors import Layout, parameter_count

STORED = 64
COHORTS = (64, 256)
"""Updates in an aggregation; the larger cohort reads each stored adapter several times."""
REPEATS = 5


def aggregation_rate(layout: Layout) -> Iterator[str]:
    """Measure, and yield the lines of the report."""
    with tempfile.TemporaryDirectory() as folder:
        blobs = FileBlobs(Path(folder))
        stored = stored_adapters(blobs, layout, STORED)
        for cohort in COHORTS:
            found = rates(blobs, stored, layout, cohort)
            yield (
                f"adapters aggregated a second from disk, checksum checked, {cohort} a time: median "
                f"{median(found):,.0f}, least {min(found):,.0f}, most {max(found):,.0f}"
            )
        content = blobs.path(stored[0].digest).read_bytes()
        started = time.perf_counter()
        for _ in range(8):
            digest_of(content)
        sha256 = 8 / (time.perf_counter() - started)
    yield f"  (the aggregate stored and synced each time; SHA-256 alone would allow {sha256:,.0f} a core)"


def stored_adapters(blobs: FileBlobs, layout: Layout, count: int) -> list[Blob]:
    """Store adapters of noise."""
    header, parameters = canonical_header(layout), parameter_count(layout)
    random = np.random.default_rng(1)
    return [
        blobs.put(adapter_chunks(header, random.normal(size=parameters).astype("<f4")), size=blob_bytes(layout))
        for _ in range(count)
    ]


def rates(blobs: FileBlobs, stored: Sequence[Blob], layout: Layout, cohort: int) -> list[float]:
    """Return how many adapters a second were aggregated, each time that it was tried."""
    aggregation = PlaintextAggregation(blobs)
    updates = [(stored[number % len(stored)], 1) for number in range(cohort)]
    found = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        aggregation.aggregate(updates, layout)
        found.append(cohort / (time.perf_counter() - started))
    return found
