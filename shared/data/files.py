"""Data files as this process finds them: what they are, and whether they hold still."""

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from shared.access import refusal
from shared.data.source import Format
from shared.errors import DataChanged, DataError, DataUnreadable

_Stamp: TypeAlias = list[tuple[str, int, int, int, int]]

_ENDINGS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
# Endings of files that hold data and cannot be read as they are, with what to do first.
PACKED: dict[str, str] = dict.fromkeys((".gz", ".bz2", ".xz", ".zst", ".zip"), "decompress it first") | dict.fromkeys(
    (".xlsx", ".xls", ".ods"), 'in the spreadsheet, save it as "CSV UTF-8"'
)


@contextmanager
def held_still(path: Path) -> Iterator[None]:
    """Read a file or folder inside this; what the disk refuses is told in words, and so is a change meanwhile.

    Half of an old file and half of a new one would train without a word. Compared are inode, size and two times: one
    can be set back by whoever has written, and the disk alone sets the other, by a clock that may go slowly.

    Raises:
        DataUnreadable: it is not there, this process may not read it, or it is neither a file nor a folder.
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
        raise DataUnreadable(refusal(Path(error.filename or path), error)) from error


def format_by_name(path: Path) -> Format:
    """Return the format that the file's ending stands for; a folder is a saved dataset.

    Raises:
        DataUnreadable: the ending stands for none.
    """
    if path.is_dir():
        return "datasets"
    if path.suffix.lower() in PACKED:
        raise DataUnreadable(f"{path} cannot be read as it is: {PACKED[path.suffix.lower()]}")
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
    if not stat.S_ISREG(state.st_mode):  # to open a pipe is to wait for whoever writes to it
        raise DataUnreadable(
            f"{path} is a pipe or a device, which cannot be read twice: save what comes out of it, and name that file"
        )
    return [(str(path), state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)]


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
