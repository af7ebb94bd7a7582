import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.coordinator.blobs import FileBlobs, IncomingBlob, adapter_chunks
from services.coordinator.records import Blob
from shared.errors import BlobCorrupt, BlobMissing, BlobTooLarge, BlobTruncated, DigestMismatch, StorageFull
from shared.protocol.codec import canonical_header
from shared.protocol.digests import digest_of
from tests.support.federations import SLM_LAYOUT, adapter

CONTENT = bytes(range(256)) * 64


class Disk:
    """Records what is asked of the disk, and fails at the call that a test chooses."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self._fail_at: int | None = None
        self._error: BaseException = OSError()
        real_fsync, real_replace, real_mkdir = os.fsync, Path.replace, Path.mkdir

        def fsync(descriptor: int) -> None:
            target = Path(f"/proc/self/fd/{descriptor}").readlink()
            self._meet(f"fsync {'folder' if target.is_dir() else 'file'}")
            real_fsync(descriptor)

        def replace(path: Path, target: Path) -> Path:
            self._meet("rename")
            return real_replace(path, target)

        def mkdir(path: Path, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - passed on
            self._meet("mkdir")
            real_mkdir(path, *args, **kwargs)

        patch.setattr(os, "fsync", fsync)
        patch.setattr(Path, "replace", replace)
        patch.setattr(Path, "mkdir", mkdir)

    def fail_at(self, call: int, error: BaseException) -> None:
        """Raise ``error`` instead of the call with this index."""
        self.calls.clear()
        self._fail_at, self._error = call, error

    def _meet(self, call: str) -> None:
        self.calls.append(call)
        if len(self.calls) - 1 == self._fail_at:
            raise self._error


class PowerCut(BaseException):
    """The process ends here: nobody catches this."""


@pytest.fixture
def blobs(tmp_path: Path) -> FileBlobs:
    return FileBlobs(tmp_path / "blobs")


@pytest.fixture
def disk(blobs: FileBlobs, monkeypatch: pytest.MonkeyPatch) -> Disk:  # noqa: ARG001 - made before the disk is watched
    return Disk(monkeypatch)


def files(tmp_path: Path) -> list[Path]:
    """Return all files of the blob folder."""
    return [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]


def put(blobs: FileBlobs, content: bytes = CONTENT) -> Blob:
    """Store a blob in three pieces."""
    return blobs.put([content[:100], content[100:5000], content[5000:]], size=len(content))


def test_a_blob_is_stored_under_its_digest(blobs: FileBlobs) -> None:
    """The name of a blob is what its bytes say."""
    blob = put(blobs)
    assert blob.digest == digest_of(CONTENT)
    assert blob.bytes == len(CONTENT)
    assert blobs.path(blob.digest).read_bytes() == CONTENT


def test_the_same_blob_again_changes_nothing(blobs: FileBlobs, tmp_path: Path) -> None:
    """Two agents may send equal bytes, and a retry may come late."""
    assert put(blobs) == put(blobs)
    assert len(files(tmp_path)) == 1


def test_a_blob_is_durable_before_it_is_named(blobs: FileBlobs, disk: Disk) -> None:
    """The file is synced, then renamed, then its folder is synced; no other order survives a power cut."""
    put(blobs)
    assert disk.calls == ["fsync file", "mkdir", "fsync folder", "rename", "fsync folder"]
    disk.calls.clear()
    put(blobs)
    assert disk.calls == ["fsync file", "rename", "fsync folder"]


@pytest.mark.parametrize("step", range(5))
def test_a_power_cut_at_any_step_leaves_nothing_or_the_whole_blob(
    step: int, blobs: FileBlobs, disk: Disk, tmp_path: Path
) -> None:
    """Whatever moment the machine dies in, no reader ever finds half a blob under a digest."""
    disk.fail_at(step, PowerCut())
    with suppress(PowerCut):
        put(blobs)
    assert len(disk.calls) == step + 1
    again = FileBlobs(tmp_path / "blobs")
    try:
        assert again.path(digest_of(CONTENT)).read_bytes() == CONTENT
    except BlobMissing:
        assert step < 4
    else:
        assert step == 4
    again.sweep(named=[])
    assert blobs.path(put(again).digest).read_bytes() == CONTENT  # and storing it again works


def test_what_a_crash_left_is_swept(blobs: FileBlobs, tmp_path: Path) -> None:
    """A start removes what was half written and what no row names, and nothing else."""
    kept = put(blobs)
    blobs.put([b"renamed, and then the power went"], size=32)
    (tmp_path / "blobs" / "incoming" / "half").write_bytes(b"half")
    assert blobs.sweep({kept.digest}) == 2
    assert blobs.sweep({kept.digest}) == 0
    assert files(tmp_path) == [blobs.path(kept.digest)]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("step", range(5))
def test_a_full_disk_keeps_nothing(step: int, number: int, blobs: FileBlobs, disk: Disk, tmp_path: Path) -> None:
    """Whichever step finds no room, the sender is told so and no part of the blob stays behind."""
    disk.fail_at(step, OSError(number, "no room"))
    with pytest.raises(StorageFull, match="make room"):
        put(blobs)
    assert not list((tmp_path / "blobs" / "incoming").iterdir())


def test_a_disk_that_is_full_while_writing_keeps_nothing(tmp_path: Path) -> None:
    """A real device without room answers StorageFull, and the folder stays empty."""
    part = tmp_path / "part"
    part.symlink_to("/dev/full")
    with pytest.raises(StorageFull), IncomingBlob(part, tmp_path.joinpath, len(CONTENT), threading.Lock()) as incoming:
        incoming.write(CONTENT)
    assert not list(tmp_path.iterdir())


def test_another_fault_of_the_disk_is_not_called_full(blobs: FileBlobs, disk: Disk) -> None:
    """An input or output error is a fault of the machine, and stays visible as one."""
    disk.fail_at(0, OSError(errno.EIO, "the disk is dying"))
    with pytest.raises(OSError, match="dying"):
        put(blobs)


def misuse_truncated(blobs: FileBlobs) -> None:
    """Send less than announced."""
    with blobs.receive(size=10) as incoming:
        incoming.write(b"123456789")
        incoming.require(digest_of(b"1234567890"))


def misuse_oversize(blobs: FileBlobs) -> None:
    """Send more than announced."""
    with blobs.receive(size=10) as incoming:
        incoming.write(b"123456789")
        incoming.write(b"ab")


def misuse_digest(blobs: FileBlobs) -> None:
    """Send other bytes than announced."""
    with blobs.receive(size=3) as incoming:
        incoming.write(b"abc")
        incoming.require(digest_of(b"abd"))


@pytest.mark.parametrize(
    ("misuse", "error"),
    [(misuse_truncated, BlobTruncated), (misuse_oversize, BlobTooLarge), (misuse_digest, DigestMismatch)],
)
def test_a_body_that_is_not_what_was_announced_leaves_nothing(
    misuse: Callable[[FileBlobs], None], error: type[Exception], blobs: FileBlobs, tmp_path: Path
) -> None:
    """Too short, too long or other bytes: refused, and no file stays."""
    with pytest.raises(error):
        misuse(blobs)
    assert not files(tmp_path)


def test_a_body_that_goes_on_is_cut_off_at_once(blobs: FileBlobs) -> None:
    """Nothing beyond the announced length is ever written to the disk."""
    with blobs.receive(size=10) as incoming:
        incoming.write(b"0123456789")
        with pytest.raises(BlobTooLarge):
            incoming.write(b"!" * 1000)
        assert incoming.part.stat().st_size == 10


def test_the_numbers_of_a_blob_are_read_past_its_header(blobs: FileBlobs) -> None:
    """What aggregation reads is the payload, bit for bit."""
    header, flat = canonical_header(SLM_LAYOUT), np.arange(14, dtype=np.float32)
    blob = blobs.put(adapter_chunks(header, flat), size=len(header) + 56)
    read = blobs.flat(blob, skip=len(header), into=np.empty(14, dtype=np.float32))
    assert read.tobytes() == flat.tobytes()


@pytest.mark.parametrize("where", [0, 50, -1])
def test_a_bit_that_rots_on_disk_is_noticed(where: int, blobs: FileBlobs) -> None:
    """A flipped bit in header or payload is BlobCorrupt, not a slightly different mean."""
    content = adapter(1.0)
    blob = blobs.put([content], size=len(content))
    rotten = bytearray(content)
    rotten[where] ^= 1
    blobs.path(blob.digest).write_bytes(rotten)
    skip = len(canonical_header(SLM_LAYOUT))
    with pytest.raises(BlobCorrupt, match="check the disk"):
        blobs.flat(blob, skip=skip, into=np.empty(14, dtype=np.float32))


@pytest.mark.parametrize("change", [lambda content: content[:-4], lambda content: content + b"more"])
def test_a_blob_that_changed_its_length_is_noticed(change: Callable[[bytes], bytes], blobs: FileBlobs) -> None:
    """A file that was cut or grew on disk is BlobCorrupt."""
    content = adapter(1.0)
    blob = blobs.put([content], size=len(content))
    blobs.path(blob.digest).write_bytes(change(content))
    with pytest.raises(BlobCorrupt):
        blobs.flat(blob, skip=len(canonical_header(SLM_LAYOUT)), into=np.zeros(14, dtype=np.float32))


def test_a_blob_that_is_gone_is_named(blobs: FileBlobs) -> None:
    """Whoever asks for a blob that was deleted behind our back is told which."""
    blob = put(blobs)
    blobs.path(blob.digest).unlink()
    with pytest.raises(BlobMissing, match=blob.digest):
        blobs.path(blob.digest)


def test_a_large_adapter_is_written_in_pieces() -> None:
    """No piece is larger than a megabyte, and together they are the blob."""

    def pieces() -> Iterator[bytes]:
        yield from adapter_chunks(b"header", np.arange(1 << 19, dtype=np.float32))

    assert max(len(piece) for piece in pieces()) == 1 << 20
    assert b"".join(pieces()) == b"header" + np.arange(1 << 19, dtype="<f4").tobytes()
