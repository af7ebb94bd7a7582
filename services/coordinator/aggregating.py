"""From a closed round's accepted updates to one aggregate blob (docs/protocol.md step 6)."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from services.coordinator.blobs import adapter_chunks
from services.coordinator.ports import Blobs
from services.coordinator.records import Blob
from shared.protocol.aggregation import RunningMean
from shared.protocol.codec import canonical_header
from shared.protocol.tensors import Layout, parameter_count


class Aggregation(Protocol):
    """How a round's updates become one."""

    def aggregate(self, updates: Sequence[tuple[Blob, int]], layout: Layout) -> Blob:
        """Store and return the mean of ``updates``, each a blob and its weight, in the order given.

        Raises:
            BlobMissing, BlobCorrupt: an update is no longer what was stored.
            ValuesNotFinite: the sum overflowed.
        """
        ...


class PlaintextAggregation:
    """The mean of updates that the coordinator can read, one by one: for tests and teaching, not for secrets.

    Memory is that of three adapters however many there are: the sum, the one that is added, and at the end the mean.
    """

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    def aggregate(self, updates: Sequence[tuple[Blob, int]], layout: Layout) -> Blob:
        """Add up the numbers of each update after the other."""
        header, parameters = canonical_header(layout), parameter_count(layout)
        mean = RunningMean(parameters)
        buffer = np.empty(parameters, dtype=np.float32)
        for blob, weight in updates:
            # One after the other: adding takes a third of reading, and a thread that read ahead cost more than that.
            mean.add(self._blobs.flat(blob, skip=len(header), into=buffer), weight)
        return self._blobs.put(adapter_chunks(header, mean.result()), size=len(header) + 4 * parameters)
