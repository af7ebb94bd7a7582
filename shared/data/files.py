"""Files and folders as this process finds them: whether it may read them, what they are, whether they hold still."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TypeAlias

from shared.data.source import Format
from shared.errors import DataChanged, DataError, DataUnreadable

_Stamp: TypeAlias = list[tuple[str, int, int, int]]

_ENDINGS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}


@contextmanager
def held_still(path: Path) -> Iterator[None]:
    """Read a file or folder inside this; what the disk refuses is told in words, and so is a change meanwhile.

    Half of an old file and half of a new one would train without a word. Compared are inode, size and time of change.

    Raises:
        DataUnreadable: it is not there, or this process may not read it.
        DataChanged: it is not what it was when reading began; a fault found meanwhile may be due to that.
    """
    try:
        before = _stamp(path)
        try:
            yield
        except DataError as error:
            _require_unchanged(path, before, error)
            raise
        _require_unchanged(path, before, None)
    except OSError as error:
        raise DataUnreadable(_refusal(Path(error.filename or path), error)) from error


def format_by_name(path: Path) -> Format:
    """Return the format that the file's ending stands for; a folder is a saved dataset.

    Raises:
        DataUnreadable: the ending stands for none.
    """
    if path.is_dir():
        return "datasets"
    if path.suffix.lower() not in _ENDINGS:
        formats = ", ".join(dict.fromkeys(_ENDINGS.values()))
        raise DataUnreadable(
            f"{path} has an ending that says nothing of its format: add `format`, one of {formats} (the endings known "
            f"are {', '.join(_ENDINGS)})"
        )
    return _ENDINGS[path.suffix.lower()]


def _stamp(path: Path) -> _Stamp:
    # Of a folder, what is in it; iterdir() rather than rglob(), which passes over folders that may not be read.
    if path.is_dir():
        return [one for inside in sorted(path.iterdir()) for one in _stamp(inside)]
    state = path.stat()
    return [(str(path), state.st_ino, state.st_size, state.st_mtime_ns)]


def _require_unchanged(path: Path, before: _Stamp, cause: DataError | None) -> None:
    try:
        changed = _stamp(path) != before
    except OSError:
        changed = True
    if changed:
        raise DataChanged(
            f"{path} changed while it was read: wait until whatever writes it has finished, or write to another file "
            "and rename it"
        ) from cause


def _refusal(path: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return _not_there(path.absolute())
    if isinstance(error, PermissionError):
        return _not_allowed(path.absolute())
    return f"{path} cannot be read: {error.strerror or error}"


def _not_there(path: Path) -> str:
    folder = next(parent for parent in path.parents if parent.exists())
    if folder != path.parent:
        return f"there is no {path}, nor its folder: {folder} is there; correct the path, or mount the folder"
    close = get_close_matches(path.name, [other.name for other in folder.iterdir()], n=1)
    meant = f"{close[0]!r} was meant?" if close else "correct the path"
    return f"there is no {path.name!r} in {folder}: {meant}"


def _not_allowed(path: Path) -> str:
    """Say who may not read what, and how to change that; of a path, the first part that stands in the way."""
    stops = next((part for part in (*reversed(path.parents), path) if not _accessible(part, path)), path)
    state, user, group = stops.stat(), os.geteuid(), os.getegid()
    need = "rx" if stat.S_ISDIR(state.st_mode) else "r"
    return (
        f"{path} cannot be read by this process, which runs as user {user} and group {group}: {stops} belongs to user "
        f"{state.st_uid} and group {state.st_gid} and has mode {stat.S_IMODE(state.st_mode):04o}. Give it to that user "
        f"(chown {user} {stops}), or let others read it (chmod o+{need} {stops}), or run the process or its container "
        f"as user {state.st_uid}"
    )


def _accessible(part: Path, path: Path) -> bool:
    need = os.R_OK if part == path else 0
    return os.access(
        part, need | (os.X_OK if part.is_dir() else 0), effective_ids=os.access in os.supports_effective_ids
    )
