"""Files that `init` writes: never over others unasked, and secrets for their owner alone."""

import os
from collections.abc import Iterable
from pathlib import Path

from shared.errors import OutputExists, OutputUnwritable


def require_free(files: Iterable[Path], *, force: bool) -> None:
    """Check that nothing would be overwritten, before anything is asked.

    Raises:
        OutputExists: something would, and nobody said that it may.
    """
    for file in files:
        if file.exists() and not force:
            raise OutputExists(f"{file} is there already: choose another place, or replace it with --force")


def write_text(file: Path, content: str, *, mode: int = 0o644) -> None:
    """Write a file that appears whole; errors are those of ``write_pieces``."""
    write_pieces(file, [content], mode=mode)


def write_pieces(file: Path, pieces: Iterable[str], *, mode: int = 0o644) -> None:
    """Write a file that appears whole, piece by piece.

    Raises:
        OutputUnwritable: the disk says no.
    """
    part = file.with_name(f".{file.name}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as opened:
            opened.writelines(pieces)
        part.replace(file)
    except OSError as error:
        raise OutputUnwritable(f"{file} cannot be written ({error.strerror}): choose another folder") from None


def write_private(file: Path, content: str) -> None:
    """Write a file that only its owner reads; errors are those of ``write_text``."""
    write_text(file, f"{content}\n", mode=0o600)


def as_written(path: Path, folder: Path) -> Path:
    """Return ``path``, which starts at the present folder, as a file in ``folder`` names it."""
    whole, base = path.absolute(), folder.absolute()
    return whole.relative_to(base) if whole.is_relative_to(base) else whole
