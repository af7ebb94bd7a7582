"""From a closed round's accepted updates to one aggregate blob (docs/protocol.md step 6)."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from services.coordinator.blobs import adapter_chunks
from services.coordinator.ports import Blobs
from services.coordinator.records import Blob
from shared.protocol.aggregation import RunningMean
from shared.protocol.codec import canonical_header
from shared.protocol.tensors import Array, Layout, parameter_count


class PlaintextAggregation:
    """The mean of updates that the coordinator can read, one by one: for tests and teaching, not for secrets.

    Memory is that of three adapters however many there are: one is read and checked while the other is added.
    """

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    def aggregate(self, updates: Sequence[tuple[Blob, int]], layout: Layout) -> Blob:
        """Store and return the mean of ``updates``, each a blob and its weight, in the order given.

        Raises:
            BlobMissing, BlobCorrupt: an update is no longer what was stored.
            ValuesNotFinite: the sum overflowed.
        """
        header = canonical_header(layout)
        mean = RunningMean(parameter_count(layout))
        for numbers, weight in self._read_ahead(updates, skip=len(header), parameters=parameter_count(layout)):
            mean.add(numbers, weight)
        return self._blobs.put(adapter_chunks(header, mean.result()), size=len(header) + 4 * parameter_count(layout))

    def _read_ahead(
        self, updates: Sequence[tuple[Blob, int]], *, skip: int, parameters: int
    ) -> Iterator[tuple[Array, int]]:
        """Yield each update's numbers while a thread reads and checks the next."""
        buffers = [np.empty(parameters, dtype=np.float32) for _ in range(2)]
        with ThreadPoolExecutor(max_workers=1) as reader:
            pending = None
            for index, (blob, weight) in enumerate(updates):
                following = (reader.submit(self._blobs.flat, blob, skip=skip, into=buffers[index % 2]), weight)
                if pending is not None:
                    yield pending[0].result(), pending[1]
                pending = following
            if pending is not None:
                yield pending[0].result(), pending[1]
