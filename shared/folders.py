"""Folders that one process owns, folders and lines that appear whole, files that a power cut may have left short."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shared.errors import OutputExists, OutputUnwritable, StoreBusy
from shared.storing import NO_ROOM

BLOCK_BYTES = 1 << 16


@contextmanager
def owned(folder: Path, owner: str) -> Iterator[None]:
    """Own ``folder`` while the block runs, as ``owner``: an agent, a worker or a coordinator.

    Raises:
        StoreBusy: another one owns it.
    """
    with (folder / "owner.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreBusy(f"another {owner} uses {folder}: stop it, or give this one a folder of its own") from None
        yield


def is_owned(folder: Path) -> bool:
    """Return whether a process owns ``folder`` at this moment."""
    if not (folder / "owner.lock").exists():
        return False
    try:
        with owned(folder, "process"):
            return False
    except StoreBusy:
        return True


def is_whole(file: Path, digest: str) -> bool:
    """Return whether the file is there with all its bytes; one that a power cut left short is not."""
    return file.exists() and file_digest(file) == digest


def file_digest(file: Path, *, offset: int = 0) -> str:
    """Return the digest of a file from ``offset`` on; it may be large, and is not read into memory at once."""
    with file.open("rb") as opened:
        opened.seek(offset)
        return f"sha256:{hashlib.file_digest(opened, 'sha256').hexdigest()}"


def write_whole(path: Path, content: bytes, *, mode: int = 0o666) -> None:
    """Put ``content`` at ``path`` so that a reader, or a power cut, sees all of it or what was there before.

    ``mode`` is the file's, less what the process's umask takes.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:  # of a full disk it takes no more room
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Return once a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def appending(file: Path) -> Iterator[tuple[bytes, Callable[[bytes], None]]]:
    """Give a file's last whole line, and what appends one and waits until the disk has it.

    The file is made if there is none, and what a power cut has left of a line at its end is taken away; so is what was
    appended where that fails. No two at once.
    """
    is_new = not file.exists()
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)

    def append(line: bytes) -> None:
        left = line + b"\n"
        while left:
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)

    try:
        last, end = last_line(descriptor)
        os.ftruncate(descriptor, end)
        try:
            yield last, append
        except OSError:
            os.ftruncate(descriptor, end)
            raise
    finally:
        os.close(descriptor)
    if is_new:
        sync(file.parent)


def last_line(descriptor: int) -> tuple[bytes, int]:
    """Return the last whole line of an open file, and the offset of its end."""
    start = os.fstat(descriptor).st_size
    tail = b""
    while start > 0 and tail.rfind(b"\n", 0, tail.rfind(b"\n")) < 0:
        size = min(BLOCK_BYTES, start)
        start -= size
        tail = os.pread(descriptor, size, start) + tail
    end = tail.rfind(b"\n") + 1
    begin = tail.rfind(b"\n", 0, end - 1) + 1
    return tail[begin:end], start + end


@contextmanager
def appearing(folder: Path, *, marker: str, force: bool) -> Iterator[Path]:
    """Give an empty folder that is called ``folder`` once the block has ended well; nothing half-written is ever there.

    With ``force`` an older folder is replaced, if the file ``marker`` shows that it is of the same kind.

    Raises:
        OutputExists: there is something by this name that is not to be replaced.
        OutputUnwritable: the disk says no.
    """
    if folder.exists() and not force:
        raise OutputExists(f"{folder} is there already: choose another folder, or replace it with --force")
    if folder.exists() and not (folder / marker).is_file():
        raise OutputExists(
            f"{folder} is there already and has no {marker}, so it is something else and is not replaced: "
            "choose another folder"
        )
    part, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{what}") for what in ("part", "old"))
    try:
        with _writing(folder):
            part.mkdir(parents=True)
        try:
            yield part
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            raise _unwritable(folder, error) from None
        with _writing(folder):
            _replace(folder, part, aside=old)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _replace(folder: Path, new: Path, *, aside: Path) -> None:
    """Rename ``new`` to ``folder``; what was there is deleted only when that has happened, and else put back."""
    try:
        if folder.exists():
            folder.rename(aside)
        new.rename(folder)
    finally:
        if aside.exists() and not folder.exists():
            aside.rename(folder)
    shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unwritable(folder, error) from None


def _unwritable(folder: Path, error: OSError) -> OutputUnwritable:
    return OutputUnwritable(f"{folder} cannot be written ({error.strerror}): choose another folder, or make room")
