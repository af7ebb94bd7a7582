"""Blobs in a folder, named by their SHA-256: written once, whole or not at all, and never changed.

    <root>/incoming/<random>          being written
    <root>/partial/<sender>.<digest>  coming in by a request, or broken off (``partial_uploads.py``)
    <root>/sha256/ab/<the other 62>   complete, synced, and only then named by a row

The order is: temporary file, fsync, rename, fsync of the folder, and the row after that. A crash in between
leaves a file that no row names; ``sweep`` removes it at the next start.
"""

import hashlib
import math
import os
import secrets
import threading
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import xxhash

from services.coordinator.partial_uploads import PartialUploads
from services.coordinator.records import Blob
from shared.errors import (
    BlobCorrupt,
    BlobMissing,
    BlobTooLarge,
    BlobTruncated,
    DigestMismatch,
    UploadOffsetMismatch,
)
from shared.folders import sync
from shared.protocol.tensors import Array
from shared.storing import storing

PIECE_BYTES = 1 << 20

# What operators call the place where blobs and database are.
PLACE = "the coordinator's data_dir"


class FileBlobs:
    """The blob folder of one coordinator."""

    def __init__(self, root: Path) -> None:
        """Use (and make) the folder ``root``, which nothing else writes to."""
        self._incoming = root / "incoming"
        self._complete = root / "sha256"
        self._incoming.mkdir(parents=True, exist_ok=True)
        self._complete.mkdir(exist_ok=True)
        self.partial = PartialUploads(root / "partial")
        self._naming = threading.Lock()  # of a blob that is stored again while it is deleted, one or the other is first

    def path(self, digest: str) -> Path:
        """Return where the blob named ``digest`` lies, or raise BlobMissing."""
        path = self._place(digest)
        if not path.is_file():
            raise BlobMissing(f"blob {digest} is not in the coordinator's folder: restore it from a backup")
        return path

    def receive(self, *, size: int) -> "IncomingBlob":
        """Begin a blob of exactly ``size`` bytes; a context manager that leaves nothing behind unless it is kept."""
        return IncomingBlob(self._incoming / secrets.token_hex(16), self._place, size, self._naming)

    def upload(self, *, size: int, sender: str, digest: str, offset: int, carried: str) -> "IncomingBlob":
        """Begin, or go on with, the blob of ``size`` bytes that ``sender`` sends; what breaks off may be left to lie.

        ``carried`` is the digest of the bytes from ``offset`` on, ``digest`` that of the whole.
        """
        return IncomingBlob(
            self.partial.file(sender, digest), self._place, size, self._naming, offset=offset, carried=carried
        )

    def put(self, chunks: Iterable[bytes], *, size: int) -> Blob:
        """Store the blob that ``chunks`` add up to."""
        with self.receive(size=size) as incoming:
            for chunk in chunks:
                incoming.write(chunk)
            return incoming.keep()

    def flat(self, blob: Blob, *, skip: int, into: Array) -> Array:
        """Return the float32 numbers of a blob after its first ``skip`` bytes, checked against its checksum.

        ``into`` is a buffer of the right length that is filled and returned, so that adding up many blobs takes
        the memory of one.

        Raises:
            BlobCorrupt: the file no longer has the bytes that were stored.
        """
        checksum = xxhash.xxh3_128()
        with self.path(blob.digest).open("rb", buffering=0) as file:
            checksum.update(file.read(skip))
            view = into.data.cast("B")
            filled = 0
            while count := file.readinto(view[filled:]):
                checksum.update(view[filled : filled + count])
                filled += count
            checksum.update(file.read())
        _require_same(blob, checksum.hexdigest())
        return into

    def require_intact(self, blob: Blob) -> None:
        """Raise BlobMissing or BlobCorrupt unless a blob still has the bytes that were stored."""
        checksum = xxhash.xxh3_128()
        with self.path(blob.digest).open("rb", buffering=0) as file:
            while piece := file.read(PIECE_BYTES):
                checksum.update(piece)
        _require_same(blob, checksum.hexdigest())

    def written(self, beginning: str) -> dict[str, float]:
        """Return when each blob whose digest begins so, with two letters, was written last: seconds since 1970."""
        folder = self._complete / beginning.removeprefix("sha256:")
        if not folder.is_dir():
            return {}
        with os.scandir(folder) as files:
            return {f"{beginning}{file.name}": file.stat().st_mtime for file in files}

    def remove(self, digest: str, *, written_before: float = math.inf) -> None:
        """Delete a blob that no row names any more, unless it was written again; one that is gone stays gone."""
        place = self._place(digest)
        with self._naming:
            if place.exists() and place.stat().st_mtime < written_before:
                place.unlink()

    def sweep(self, named: Container[str]) -> int:
        """Remove what a crash left: files half written, and blobs that no row names; return how many files that were.

        Only for the start, when nothing is on its way to a row.
        """
        complete = (path for folder in self._complete.iterdir() for path in folder.iterdir())
        nameless = (path for path in complete if f"sha256:{path.parent.name}{path.name}" not in named)
        leftovers = [*self._incoming.iterdir(), *nameless]
        for path in leftovers:
            path.unlink()
        return len(leftovers)

    def _place(self, digest: str) -> Path:
        name = digest.removeprefix("sha256:")
        return self._complete / name[:2] / name[2:]


class IncomingBlob:
    """A blob while it is written; ``keep`` makes it durable under its digest."""

    def __init__(
        self,
        path: Path,
        place: Callable[[str], Path],
        size: int,
        naming: threading.Lock,
        *,
        offset: int = 0,
        carried: str | None = None,
    ) -> None:
        self._part = path
        self._place = place
        self._naming = naming
        self._size = size
        self._offset = offset
        self._carried = carried
        self._written = 0
        self._digest = hashlib.sha256()
        self._digest_carried = hashlib.sha256()
        self._checksum = xxhash.xxh3_128()
        self._left = False

    def __enter__(self) -> Self:
        how = os.O_RDWR | os.O_CREAT | (0 if self._offset else os.O_TRUNC)
        with storing(PLACE):
            self._file = os.fdopen(os.open(self._part, how, 0o666), "r+b", buffering=0)
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._file.close()
        if not self._left:
            self._part.unlink(missing_ok=True)

    @property
    def part(self) -> Path:
        """Where the bytes lie until they are kept."""
        return self._part

    @property
    def digest(self) -> str:
        """The digest of what was written so far."""
        return f"sha256:{self._digest.hexdigest()}"

    def catch_up(self) -> None:
        """Read what is there already of a blob that goes on; to be called before anything is written.

        Raises:
            UploadOffsetMismatch: it ends elsewhere, and is left as it is.
        """
        if (there := os.fstat(self._file.fileno()).st_size) != self._offset:
            self._left = there > 0
            raise UploadOffsetMismatch(
                f"the upload was to go on after {self._offset} bytes, and {there} are here: ask for the offset again, "
                "or begin anew"
            )
        while self._written < self._offset:
            self._count(self._file.read(min(PIECE_BYTES, self._offset - self._written)))

    def write(self, chunk: bytes | bytearray) -> None:
        """Append ``chunk``.

        Raises:
            BlobTooLarge: more came than was announced.
            StorageFull: the disk has no room.
        """
        self._count(chunk)
        if self._offset:
            self._digest_carried.update(chunk)
        with storing(PLACE):
            remaining = memoryview(chunk)
            while remaining:
                remaining = remaining[self._file.write(remaining) :]

    def leave(self) -> None:
        """Let what was written lie, so that its sender can go on with it."""
        self._left = True

    def require(self, digest: str) -> None:
        """Raise unless all announced bytes are there and have this digest, and those of this request theirs."""
        if self._written < self._size:
            raise BlobTruncated(f"the body ended after {self._written} of the {self._size} bytes that it announced")
        if self.digest != digest:
            raise DigestMismatch(f"the body has digest {self.digest} and announced {digest}: send it again")
        if self._offset and (carried := f"sha256:{self._digest_carried.hexdigest()}") != self._carried:
            raise DigestMismatch(f"the rest of the blob has digest {carried} and announced {self._carried}")

    def keep(self) -> Blob:
        """Make the blob durable under its digest, and return what its row must say."""
        with storing(PLACE):
            os.fsync(self._file.fileno())
            place = self._place(self.digest)
            if not place.parent.is_dir():
                place.parent.mkdir(exist_ok=True)
                sync(place.parent.parent)
            with self._naming:
                self._part.touch()  # since when it is there
                self._part.replace(place)
            sync(place.parent)
        return Blob(self.digest, self._written, self._checksum.hexdigest())

    def _count(self, piece: bytes | bytearray) -> None:
        self._written += len(piece)
        if self._written > self._size:
            raise BlobTooLarge(f"the body goes on after the {self._size} bytes that it announced")
        self._digest.update(piece)
        self._checksum.update(piece)


def adapter_chunks(header: bytes, flat: Array) -> Iterator[bytes]:
    """Yield the bytes of an adapter blob: its header, then its numbers, a megabyte at a time."""
    yield header
    payload = np.ascontiguousarray(flat, dtype="<f4").data.cast("B")
    for start in range(0, len(payload), PIECE_BYTES):
        yield bytes(payload[start : start + PIECE_BYTES])


def _require_same(blob: Blob, checksum: str) -> None:
    if checksum != blob.checksum:
        raise BlobCorrupt(f"blob {blob.digest} has changed on disk since it was stored: check the disk")
