"""Folders that one process owns, and files in them that a power cut may have left short."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.errors import StoreBusy
from shared.protocol.digests import digest_of


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


def is_whole(file: Path, digest: str) -> bool:
    """Return whether the file is there with all its bytes; one that a power cut left short is not."""
    return file.exists() and digest_of(file.read_bytes()) == digest
