"""Rows from every format: one after the other, each with where it stands, as a mapping from columns to values."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TextIO, TypeAlias

from shared.data.files import PACKED
from shared.data.source import Format
from shared.errors import DataUnreadable

Row: TypeAlias = Mapping[str, object]
# Where a row stands, for messages; and the row.
PlacedRow: TypeAlias = tuple[str, Row]

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}

# A document fits into a cell, as it does not into Python's 131072; without any limit a quote that is left open would
# take the rest of a large file into memory.
_LONGEST_CELL = 16 * 1024 * 1024


def read_rows(path: Path, kind: Format, split: str | None) -> Iterator[PlacedRow]:
    """Yield the rows of a file or of a saved dataset. Lines and rows count from 1.

    Passed over are blank lines, and those of a table that hold separators alone.

    Raises:
        DataUnreadable: it is not what its format says, or a DatasetDict without a word on which split.
        OSError: the disk refuses.
    """
    if split is not None and kind != "datasets":
        raise DataUnreadable(f"{path} has no splits: only folders of `datasets` have; remove `split`")
    where = "its beginning"
    try:
        match kind:
            case "jsonl":
                rows = _jsonl(path)
            case "json":
                rows = _json(path)
            case "csv" | "tsv":
                rows = _table(path, kind)
            case "parquet":
                rows = _parquet(path)
            case "datasets":
                rows = _dataset(path, split)
        for where, row in rows:
            yield where, row
    except UnicodeDecodeError as error:
        advice = 'in the spreadsheet, save it as "CSV UTF-8"' if kind in {"csv", "tsv"} else "save it as UTF-8"
        advice = PACKED.get(path.suffix.lower(), advice)
        raise DataUnreadable(f"{path} is not UTF-8, somewhere after {where}: {advice}") from error


def _jsonl(path: Path) -> Iterator[PlacedRow]:
    # Lines end with \n alone: JSON allows other separators inside a text. A byte order mark is none of the data.
    with path.open(encoding="utf-8-sig", newline="\n") as lines:
        for number, line in enumerate(lines, 1):
            where = f"{path}, line {number}"
            if line.strip():
                yield where, _object(_parsed(line, where, "put one JSON object a line"), where)


def _json(path: Path) -> Iterator[PlacedRow]:
    advice = 'the file must be one array of objects; where it has one object a line, set format = "jsonl"'
    rows = _parsed(path.read_text(encoding="utf-8-sig"), str(path), advice)
    if not isinstance(rows, list):
        raise DataUnreadable(f"{path} is not a JSON array: {advice}")
    for number, row in enumerate(rows, 1):
        where = f"{path}, row {number}"
        yield where, _object(row, where)


def _parsed(text: str, where: str, advice: str) -> Any:  # noqa: ANN401 - JSON may be anything
    def named_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        row = dict(pairs)
        if len(row) < len(pairs):  # JSON leaves open which of them counts
            raise DataUnreadable(f"{where} has an object with two values under one name: leave the wrong one out")
        return row

    try:
        return json.loads(text, object_pairs_hook=named_once)
    except json.JSONDecodeError as error:
        # Not str(error), whose line counts from the row's own start; neither quotes the data.
        at = f"line {error.lineno}, column {error.colno}" if "\n" in text.rstrip() else f"column {error.colno}"
        raise DataUnreadable(f"{where} is not JSON ({error.msg}, {at}): {advice}") from error
    except RecursionError as error:
        raise DataUnreadable(f"{where} has lists or objects too deep inside each other: leave them out") from error
    except ValueError as error:  # of its own kind: Python converts no endless numbers
        raise DataUnreadable(f"{where} has a number of thousands of digits: leave it out") from error


def _object(row: object, where: str) -> Row:
    if not isinstance(row, dict):
        raise DataUnreadable(f"{where} is not a JSON object: each row must be one, with a name for each column")
    return row


def _table(path: Path, kind: Literal["csv", "tsv"]) -> Iterator[PlacedRow]:
    """Rows of CSV or TSV: a cell may stand in double quotes, and then hold separators and line ends."""
    # The limit is one for the whole process, where nobody else reads CSV, and set here, for nothing happens at import.
    csv.field_size_limit(_LONGEST_CELL)
    with path.open(encoding="utf-8-sig", newline="") as lines:
        where = f"{path}, line 1"
        separator = "\t" if kind == "tsv" else _separator(lines, where)
        records = csv.reader(lines, delimiter=separator, strict=True)
        try:
            header = next(records, None)
            if header is None:
                return
            _require_names(header, where)
            while True:
                where = f"{path}, line {records.line_num + 1}"
                record = next(records, None)
                if record is None:
                    return
                if any(cell.strip() for cell in record):  # spreadsheets leave rows behind that hold separators alone
                    yield where, _named(header, record, where)
        except csv.Error as error:
            raise DataUnreadable(
                f"{where} cannot be taken apart ({error}): is a quote left open, or one inside a text not doubled?"
            ) from error


def _require_names(header: list[str], where: str) -> None:
    names = [name for name in header if name.strip()]  # several columns may go without: nobody can ask for them
    if not names:
        raise DataUnreadable(f"{where} is blank and must name the columns: remove what is above their names")
    if len(set(names)) < len(names):
        raise DataUnreadable(f"{where} has two columns of one name: the first line names the columns, each differently")


def _separator(lines: TextIO, where: str) -> str:
    """Return what stands between the cells: where a comma is the decimal sign, spreadsheets write semicolons.

    It is the one that takes the header apart. Of two that do none is guessed: rows could be read wrongly in silence.
    """
    found = [separator for separator in SEPARATORS if _takes_apart(lines, separator)]
    lines.seek(0)
    if len(found) > 1:
        raise DataUnreadable(
            f"{where} has {' and '.join(SEPARATORS[one] for one in found)}, and either could stand between the "
            "columns: rename the column whose name has one in it, or put that name in double quotes"
        )
    return found[0] if found else ","


def _takes_apart(lines: TextIO, separator: str) -> bool:
    lines.seek(0)
    try:
        header = next(csv.reader(lines, delimiter=separator, strict=True), [])
    except csv.Error:
        return False
    # A quote that is left over was to hold this character together with its cell.
    return len(header) > 1 and not any('"' in name for name in header)


def _named(header: list[str], record: list[str], where: str) -> Row:
    if len(record) != len(header):
        raise DataUnreadable(
            f"{where} has {len(record)} cells and the first line names {len(header)} columns: put texts that hold the "
            "separator in double quotes"
        )
    return dict(zip(header, record, strict=True))


class _ArrowRow(Mapping[str, object]):
    """A row of an Arrow batch. Only cells that are asked for are converted: of pictures and times, none."""

    def __init__(self, batch: Any, index: int, where: str) -> None:  # noqa: ANN401 - pyarrow ships no types
        self._batch = batch
        self._index = index
        self._where = where

    def __getitem__(self, column: str) -> object:
        if column not in self:
            raise KeyError(column)
        try:
            return self._batch.column(column)[self._index].as_py()
        except (ValueError, KeyError) as error:  # times in nanoseconds, damaged texts, two columns of one name
            raise DataUnreadable(
                f"{self._where}: the column {column!r} cannot be read: it must hold texts, numbers or lists"
            ) from error

    def __contains__(self, column: object) -> bool:
        return column in self._batch.schema.names

    def __iter__(self) -> Iterator[str]:
        return iter(self._batch.schema.names)

    def __len__(self) -> int:
        return len(self._batch.schema.names)


def _parquet(path: Path) -> Iterator[PlacedRow]:
    pa = _pyarrow(path)
    try:
        # Opened here rather than by pyarrow, whose errors do not say which file it was.
        with path.open("rb") as opened, pa.parquet.ParquetFile(opened) as file:
            yield from _counted(path, file.iter_batches(use_threads=False))
    except pa.ArrowException as error:
        raise DataUnreadable(f"{path} is not a Parquet file, or a damaged one: write it again") from error


def _dataset(path: Path, split: str | None) -> Iterator[PlacedRow]:
    """Rows of what ``save_to_disk`` of the library `datasets` wrote: Arrow streams, listed in a ``state.json``.

    Read with pyarrow alone, because `datasets` brings dill and pandas and wants a folder to write to when it is
    imported; the tests compare with folders that `datasets` itself saved.
    """
    pa = _pyarrow(path)
    folder = _folder_of_split(path, split)
    try:
        files = [folder / file["filename"] for file in json.loads((folder / "state.json").read_text())["_data_files"]]
        yield from _counted(path, (batch for file in files for batch in _stream(pa, file)))
    except (pa.ArrowException, ValueError, KeyError, TypeError) as error:
        raise DataUnreadable(f"{folder} is not as `datasets` saves it, or damaged: save it again") from error


def _folder_of_split(path: Path, split: str | None) -> Path:
    if not (path / "dataset_dict.json").is_file():
        if not (path / "state.json").is_file():
            raise DataUnreadable(
                f"{path} is no folder that `save_to_disk` of `datasets` wrote (it holds no state.json): name such a "
                "folder, or a file"
            )
        if split is not None:
            raise DataUnreadable(f"{path} is a dataset without splits: remove `split`")
        return path
    splits = sorted(inside.parent.name for inside in path.glob("*/state.json"))
    if split is None and len(splits) == 1:
        return path / splits[0]
    if split not in splits:
        said = "`split` is not set" if split is None else f"{split!r} is none of them"
        raise DataUnreadable(f"{path} has the splits {', '.join(splits)}, and {said}: name one in `split`")
    return path / split


def _stream(pa: Any, file: Path) -> Iterator[Any]:  # noqa: ANN401 - pyarrow ships no types
    with file.open("rb") as opened, pa.ipc.open_stream(opened) as batches:
        yield from batches


def _counted(path: Path, batches: Iterable[Any]) -> Iterator[PlacedRow]:
    number = 0
    for batch in batches:
        for index in range(batch.num_rows):
            number += 1
            where = f"{path}, row {number}"
            yield where, _ArrowRow(batch, index, where)


def _pyarrow(path: Path) -> Any:  # noqa: ANN401 - pyarrow ships no types
    try:
        import pyarrow as pa  # noqa: PLC0415 - slow to import, and only these two formats need it
        import pyarrow.parquet  # noqa: PLC0415
    except ImportError as error:
        raise DataUnreadable(
            f"reading {path} needs the package pyarrow, which is not installed: install the extra `agent` or `worker` "
            "of this project, or save the data as JSONL or CSV"
        ) from error
    return pa
