"""Uploads that broke off, kept so that their senders go on with them: one of each sender, for a day.

    <folder>/<sender>.<64 hex digits>    bytes from the first one on, of the blob that will have this SHA-256

A file's name says whose it is and of what, and its length how far it has come, so a crash has nothing to repair. What a
power cut makes of the bytes themselves is found out at the end, by the digest of the whole.
"""

from contextlib import suppress
from pathlib import Path

from shared.folders import sync

KEPT_SECONDS = 86_400.0

_ANY_DIGEST = "?" * 64  # names have dots too, so their lengths tell a's files from those of a.b


class PartialUploads:
    """The uploads under ``folder``; of one sender there is one request at a time (``uploads.py``)."""

    def __init__(self, folder: Path) -> None:
        """Use (and make) the folder."""
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def file(self, sender: str, digest: str) -> Path:
        """Return where an upload lies, or will lie, and forget what else its sender has begun."""
        file = self._file(sender, digest)
        for other in self._folder.glob(f"{sender}.{_ANY_DIGEST}"):
            if other != file:
                other.unlink(missing_ok=True)
        return file

    def durable(self, sender: str, digest: str) -> int:
        """Return how many bytes of an upload are here, once they are on the disk."""
        file = self._file(sender, digest)
        if not file.exists():
            return 0
        sync(file)
        sync(self._folder)
        return file.stat().st_size

    def forget(self, *, before: float) -> None:
        """Remove what nobody has gone on with since ``before``, seconds since 1970."""
        for file in self._folder.iterdir():
            with suppress(FileNotFoundError):  # it has come whole meanwhile
                if file.stat().st_mtime < before:
                    file.unlink()

    def _file(self, sender: str, digest: str) -> Path:
        return self._folder / f"{sender}.{digest.removeprefix('sha256:')}"
