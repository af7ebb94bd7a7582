"""Folders that one process owns, folders that appear whole, and files that a power cut may have left short."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.errors import OutputExists, OutputUnwritable, StoreBusy
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
    return file.exists() and digest_of(file.read_bytes()) == digest


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
        part.mkdir(parents=True)
        yield part
        if folder.exists():
            folder.rename(old)
        part.rename(folder)
    except OSError as error:
        raise OutputUnwritable(f"{folder} cannot be written: {error.strerror or error}") from None
    finally:
        for rest in (part, old):
            shutil.rmtree(rest, ignore_errors=True)
