"""How many adapters a second the coordinator aggregates from blobs on disk, each checked."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np

from services.coordinator.aggregating import PlaintextAggregation
from services.coordinator.blobs import FileBlobs, adapter_chunks
from shared.protocol.codec import blob_bytes, canonical_header
from shared.protocol.digests import digest_of
from shared.protocol.tensors import Layout, parameter_count

UPDATES = 64
REPEATS = 5


def aggregation_rate(layout: Layout) -> Iterator[str]:
    """Measure, and yield the lines of the report."""
    header, parameters = canonical_header(layout), parameter_count(layout)
    random = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        blobs = FileBlobs(Path(folder))
        stored = [
            blobs.put(adapter_chunks(header, random.normal(size=parameters).astype("<f4")), size=blob_bytes(layout))
            for _ in range(UPDATES)
        ]
        aggregation = PlaintextAggregation(blobs)
        rates = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            aggregation.aggregate([(blob, 1) for blob in stored], layout)
            rates.append(UPDATES / (time.perf_counter() - started))
        content = blobs.path(stored[0].digest).read_bytes()
        started = time.perf_counter()
        for _ in range(8):
            digest_of(content)
        sha256 = 8 / (time.perf_counter() - started)
    yield f"adapters aggregated a second from disk, checksum checked: median {median(rates):,.0f}"
    yield f"  ({UPDATES} a time, best {max(rates):,.0f}, worst {min(rates):,.0f}; the aggregate stored and synced)"
    yield f"  (SHA-256 alone would allow {sha256:,.0f} a core)"
