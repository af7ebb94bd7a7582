"""Adapters to and from safetensors bytes, and the guard in front of the parser.

The layout of every blob is known beforehand from the run's manifest, and this protocol fixes how a layout is
written: tensors in name order, no gaps, no metadata, header padded to eight bytes (docs/protocol.md, "Blobs").
So the header of an honest blob is known to the byte, and checking it is one comparison. Only a header that
differs is parsed, within bounds, to tell its sender what is wrong with it.
"""

import json
import os
from collections.abc import Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import BlobTooLarge, BlobTruncated, LayoutMismatch
from shared.protocol.tensors import (
    MAX_NAME_CHARACTERS,
    MAX_RANK,
    MAX_SIDE,
    SLICE,
    Array,
    Layout,
    Tensors,
    layout_of,
    parameter_count,
    require_finite,
    require_layout,
)

# A header is parsed only to tell its sender what is wrong with it. One as long as this takes Python's parser 7 ms and
# 4 MB at worst, and is that of an adapter of 1,000 tensors.
MAX_PARSED_BYTES = 1 << 17
FLOAT32_BYTES = 4
LENGTH_BYTES = 8


def canonical_header(layout: Layout) -> bytes:
    """Return the exact first bytes of a blob of this layout: the length field and the padded JSON header."""
    entries: dict[str, Any] = {}
    offset = 0
    for name in sorted(layout):
        end = offset + FLOAT32_BYTES * parameter_count({name: layout[name]})
        entries[name] = {"dtype": "F32", "shape": list(layout[name]), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % LENGTH_BYTES)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def blob_bytes(layout: Layout) -> int:
    """Return the exact size in bytes of a blob of this layout."""
    return len(canonical_header(layout)) + FLOAT32_BYTES * parameter_count(layout)


def encode(tensors: Tensors) -> bytes:
    """Return ``tensors`` as a safetensors blob in the protocol's canonical form."""
    layout = layout_of(tensors)
    parts = [np.ascontiguousarray(tensors[name], dtype="<f4").tobytes() for name in layout]
    return b"".join([canonical_header(layout), *parts])


def decode(blob: bytes, layout: Layout) -> dict[str, Array]:
    """Return the tensors of ``blob``, which must have exactly this layout and only finite values.

    Raises:
        BlobTruncated, BlobTooLarge, LayoutMismatch, ValuesNotFinite: what is wrong with the blob.
    """
    return split(flat_numbers(blob, layout), layout)


def flat_numbers(blob: bytes, layout: Layout) -> Array:
    """Return all numbers of ``blob`` in the order in which they travel, shape [parameters]; errors are ``decode``'s."""
    header = canonical_header(layout)
    require_header(blob[: len(header)], len(blob), layout)
    flat = np.frombuffer(blob, dtype="<f4", offset=len(header))
    require_finite(flat, "the adapter")
    return flat


def split(flat: Array, layout: Layout) -> dict[str, Array]:
    """Return the named tensors that lie one after the other, in name order, in ``flat``."""
    tensors: dict[str, Array] = {}
    offset = 0
    for name in sorted(layout):
        size = parameter_count({name: layout[name]})
        tensors[name] = flat[offset : offset + size].reshape(layout[name])
        offset += size
    return tensors


def read_file(path: Path, layout: Layout) -> dict[str, Array]:
    """Return the tensors of the blob in a file; nothing of its payload is read before its size and header are right.

    Raises:
        BlobTruncated, BlobTooLarge, LayoutMismatch, ValuesNotFinite: what is wrong with the blob.
    """
    with path.open("rb", buffering=0) as file:
        _require_start(file, layout)
        flat = np.fromfile(file, dtype="<f4")
    require_finite(flat, "the adapter")
    return split(flat, layout)


def require_file(path: Path, layout: Layout) -> None:
    """Raise unless the file at ``path`` is a blob of exactly this layout with only finite values.

    The payload is read a slice at a time, so that memory stays flat.

    Raises:
        BlobTruncated, BlobTooLarge, LayoutMismatch, ValuesNotFinite: what is wrong with the blob.
    """
    with path.open("rb", buffering=0) as file:
        _require_start(file, layout)
        for values in _slices(file):
            require_finite(values, "the adapter")


def require_header(start: bytes, size: int, layout: Layout) -> None:
    """Raise unless a blob of ``size`` bytes that begins with ``start`` has exactly this layout.

    Args:
        start: the first ``len(canonical_header(layout))`` bytes of the blob, or all of it if it is shorter.
        size: the size of the whole blob in bytes.
        layout: what the run's manifest says.

    Raises:
        BlobTruncated, BlobTooLarge: the blob has another size than the layout gives.
        LayoutMismatch: the header names other tensors, shapes, types or offsets.
    """
    expected = canonical_header(layout)
    if start != expected[:size]:  # a blob that ends within an honest header was cut short, see below
        require_layout(_parse_header(start), layout)
        raise LayoutMismatch(
            "the blob's header is not in the protocol's canonical form: write tensors in name order, "
            "without gaps and without metadata, and pad the header with spaces to a multiple of eight bytes"
        )
    require_size(size, layout)


def _require_start(file: FileIO, layout: Layout) -> None:
    start = file.read(len(canonical_header(layout)))
    require_header(start, os.fstat(file.fileno()).st_size, layout)


def require_size(size: int, layout: Layout) -> None:
    """Raise unless ``size`` is the exact size in bytes of a blob of this layout."""
    expected = blob_bytes(layout)
    if size < expected:
        raise BlobTruncated(f"the blob has {size} bytes and the manifest's layout takes {expected}: it was cut short")
    if size > expected:
        raise BlobTooLarge(f"the blob has {size} bytes and the manifest's layout takes {expected}")


def _slices(file: FileIO) -> Iterator[Array]:
    """Yield the float32 numbers that follow in ``file``; each array is overwritten by the next."""
    values = np.empty(SLICE, "<f4")
    while count := file.readinto(values.data.cast("B")):
        yield values[: count // FLOAT32_BYTES]


def _parse_header(start: bytes) -> dict[str, tuple[int, ...]]:
    """Return the layout that a header which is not the canonical one names; its blob will be refused either way."""
    if len(start) < LENGTH_BYTES:
        raise BlobTruncated(f"the blob has {len(start)} bytes, which is less than a safetensors length field")
    length = int.from_bytes(start[:LENGTH_BYTES], "little")
    text = start[LENGTH_BYTES:][:length]
    if len(text) < length or length > MAX_PARSED_BYTES:
        raise LayoutMismatch(
            f"the blob announces a header of {length} bytes, which the manifest's layout does not give: "
            "write the manifest's tensors only, and no metadata"
        )
    try:
        header = json.loads(text, object_pairs_hook=_without_duplicates)
        return {name: _shape(name, entry) for name, entry in header.items()}
    except (ValueError, TypeError, AttributeError, LookupError, OverflowError, RecursionError) as error:
        raise LayoutMismatch(f"the blob does not begin with a safetensors header: {str(error)[:200]}") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name occurs twice")
    return dict(pairs)


def _shape(name: str, entry: Mapping[str, Any]) -> tuple[int, ...]:
    if len(name) > MAX_NAME_CHARACTERS:
        raise ValueError(f"a tensor's name has {len(name)} characters")
    if name == "__metadata__":
        raise ValueError("the header carries metadata")
    if entry.get("dtype") != "F32":
        raise ValueError(f"tensor {name!r} has type {str(entry.get('dtype'))[:16]!r}, and adapters travel as F32")
    shape = entry["shape"]
    if not isinstance(shape, list) or len(shape) > MAX_RANK or not all(map(_is_side, shape)):
        raise ValueError(f"tensor {name!r} has a shape that is no list of at most {MAX_RANK} whole numbers")
    return tuple(shape)


def _is_side(size: object) -> bool:
    return type(size) is int and 0 <= size <= MAX_SIDE  # bool is an int too
