"""What a disk says that takes nothing more, in words: it has no room, or may only be read."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.errors import StorageError, StorageFull, StorageReadOnly

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})

# With less than this a database's next change, or a log's next hour, may find no room.
LEAST_FREE_BYTES = 16 << 20


@contextmanager
def storing(where: str) -> Iterator[None]:
    """Tell of a disk that takes nothing more what it is; ``where`` is what its owner calls the place.

    Raises:
        StorageFull, StorageReadOnly: nothing was kept of what was being written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            raise full(where) from error
        if error.errno == errno.EROFS:
            raise read_only(where) from error
        raise


def full(where: str) -> StorageError:
    """Return the error of a disk that has no room."""
    return StorageFull(
        f"there is no room on the disk of {where}: nothing was kept of what was being written; make room, and it is "
        "tried again"
    )


def read_only(where: str) -> StorageError:
    """Return the error of a disk that may only be read."""
    return StorageReadOnly(
        f"{where} may only be read: nothing was kept of what was being written; mount it so that it can be written to "
        "(a disk that fails is often made so by the system, and its log says why), and it is tried again"
    )


def require_room(folder: Path) -> None:
    """Raise StorageFull or StorageReadOnly unless the disk of a folder takes a little more; nothing is written."""
    state = os.statvfs(folder)
    if state.f_flag & os.ST_RDONLY:
        raise read_only(str(folder))
    if state.f_bavail * state.f_frsize < LEAST_FREE_BYTES:
        raise full(str(folder))
