"""The coordinator's outside world as Protocols: another store or blob folder must do this much.

A store's transaction is the one of ``store.py``, which speaks SQL: another store is another SQL database.
"""

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, TypeAlias

from services.coordinator.blobs import IncomingBlob
from services.coordinator.partial_uploads import PartialUploads
from services.coordinator.records import Blob
from services.coordinator.transaction import Transaction
from shared.protocol.tensors import Array

Clock: TypeAlias = Callable[[], float]


class Store(Protocol):
    """Transactions; PostgreSQL is the second implementation that the schema leaves room for."""

    def read(self) -> AbstractContextManager[Transaction]:
        """One consistent view of the store."""
        ...

    def write(self) -> AbstractContextManager[Transaction]:
        """One change of the store: all of it, durably, or nothing."""
        ...


class Blobs(Protocol):
    """Immutable blobs by digest; an S3-compatible store is the second implementation to leave room for."""

    def path(self, digest: str) -> Path:
        """Return where a blob can be read, or raise BlobMissing."""
        ...

    def receive(self, *, size: int) -> IncomingBlob:
        """Begin a blob of exactly ``size`` bytes."""
        ...

    @property
    def partial(self) -> PartialUploads:
        """Uploads that broke off."""
        ...

    def upload(self, *, size: int, sender: str, digest: str, offset: int, carried: str) -> IncomingBlob:
        """Begin, or go on with, the blob that ``sender`` sends."""
        ...

    def put(self, chunks: Iterable[bytes], *, size: int) -> Blob:
        """Store the blob that ``chunks`` add up to."""
        ...

    def require_intact(self, blob: Blob) -> None:
        """Raise BlobMissing or BlobCorrupt unless a blob still has the bytes that were stored."""
        ...

    def written(self, beginning: str) -> dict[str, float]:
        """Return when each blob whose digest begins so, with two letters, was written last: seconds since 1970."""
        ...

    def remove(self, digest: str, *, written_before: float = math.inf) -> None:
        """Delete a blob that no row names any more, unless it was written again; one that is gone stays gone."""
        ...

    def flat(self, blob: Blob, *, skip: int, into: Array) -> Array:
        """Return a blob's float32 numbers after ``skip`` bytes, or raise BlobCorrupt."""
        ...
