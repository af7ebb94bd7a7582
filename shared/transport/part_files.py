"""Files on their way: what comes lies beside where it will be until it is whole, and is gone on with after a break.

    <into>.<16 hex digits>.part    bytes from the first one on, of the file that will have this SHA-256

It is found again by its name, by another process too. What a power cut has made of the bytes shows in their digest.
"""

import hashlib
from pathlib import Path

from shared.errors import DigestMismatch


class PartFile:
    """What has come of the file ``into``, whose digest is known beforehand."""

    def __init__(self, into: Path, digest: str) -> None:
        self._into = into
        self._digest = digest
        self.path = into.with_name(f"{into.name}.{digest.removeprefix('sha256:')[:16]}.part")
        self._received = hashlib.sha256()
        self.length = 0

    def catch_up(self) -> int:
        """Read what is there from an earlier attempt, and return how long it is."""
        self._received, self.length = hashlib.sha256(), 0
        if self.path.exists():
            with self.path.open("rb") as file:
                self._received = hashlib.file_digest(file, "sha256")
                self.length = file.tell()
        return self.length

    @property
    def is_whole(self) -> bool:
        """Whether all of it has come."""
        return f"sha256:{self._received.hexdigest()}" == self._digest

    def drop(self) -> None:
        """Forget what has come."""
        self.path.unlink(missing_ok=True)
        self._received, self.length = hashlib.sha256(), 0

    def append(self, piece: bytes) -> None:
        """Keep what has come next."""
        with self.path.open("ab") as file:
            file.write(piece)
        self._received.update(piece)
        self.length += len(piece)

    def finish(self, what: str) -> None:
        """Let the file appear.

        Raises:
            DigestMismatch: it has other bytes than its digest names, and is dropped.
        """
        if not self.is_whole:
            self.drop()
            raise DigestMismatch(f"what came for {what} does not have digest {self._digest}: nothing was kept of it")
        self.path.touch()  # if nothing is all of it
        self.path.replace(self._into)
