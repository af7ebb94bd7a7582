"""Files that pretend to be an adapter: by class, each with a sentence on what it tries and the errors that end it.

All of them are made by code from the layout that they attack, with fixed seeds; the large ones are sparse where they
can be. ``safetensors`` alone takes some of these, and others only after half a minute and gigabytes.
"""

import gzip
import io
import json
import os
import pickle  # noqa: TID251 - one of the things that are refused
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import BlobTooLarge, BlobTruncated, LayoutMismatch, ProtocolError, ValuesNotFinite
from shared.protocol.codec import canonical_header
from shared.protocol.tensors import Layout, parameter_count

MILLION = 1_000_000


def lora_layout(layers: int, *, width: int = 2048) -> dict[str, tuple[int, ...]]:
    """Return the layout of LoRA on two projections of each layer of a model; 24 layers give 1,572,864 numbers."""
    return {
        f"base_model.model.model.layers.{layer}.self_attn.{name}_proj.lora_{factor}.weight": shape
        for layer in range(layers)
        for name in ("q", "v")
        for factor, shape in (("A", (8, width)), ("B", (width, 8)))
    }


@dataclass(frozen=True)
class HostileFile:
    """A file: its first bytes, and how long it is, if it goes on with a hole."""

    what: str
    content: bytes
    size: int | None = None

    def write(self, path: Path) -> None:
        """Write it, sparse."""
        path.write_bytes(self.content)
        if self.size is not None:
            os.truncate(path, self.size)


class Attacked:
    """The layout that is attacked, and how files for it are made."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.header = canonical_header(layout)
        self.payload = np.arange(parameter_count(layout), dtype="<f4").tobytes()
        self.blob = self.header + self.payload
        self.names = sorted(layout)
        self.rows, self.columns = layout[self.names[0]]
        self.first_bytes = 4 * self.rows * self.columns

    def entries(self) -> dict[str, Any]:
        """Return the honest header, to be bent."""
        entries: dict[str, Any] = json.loads(self.header[8:])
        return entries

    def framed(self, what: str, text: bytes, payload: bytes | None = None) -> HostileFile:
        """Return a file with this text for a header, padded as an honest writer would."""
        text += b" " * (-len(text) % 8)
        return HostileFile(what, struct.pack("<Q", len(text)) + text + (self.payload if payload is None else payload))

    def fitted(self, what: str, text: bytes) -> HostileFile:
        """Return a file with this text for a header that is cut, or filled with spaces, to the honest length."""
        room = len(self.header) - 8
        return HostileFile(what, self.header[:8] + text[:room].ljust(room) + self.payload)

    def bent(self, what: str, bend: Callable[[dict[str, Any]], object]) -> HostileFile:
        """Return an honest file whose header was bent."""
        entries = self.entries()
        bend(entries)
        return self.framed(what, json.dumps(entries, separators=(",", ":")).encode())

    def one(self, what: str, **fields: Any) -> HostileFile:  # noqa: ANN401 - anything goes
        """Return an honest file whose first tensor has other fields."""
        return self.bent(what, lambda entries: entries[self.names[0]].update(fields))

    def replaced(self, what: str, *pairs: tuple[bytes, bytes]) -> HostileFile:
        """Return an honest file in whose header each first text was replaced, once."""
        text = self.header[8:].rstrip(b" ")
        for old, new in pairs:
            assert old in text, f"{what}: {old!r} is not in the header"
            text = text.replace(old, new, 1)
        return self.framed(what, text)


# --- the file as a whole ------------------------------------------------------------------------------------------


def empty(_: Attacked) -> Iterator[HostileFile]:
    """Nothing, or less than a length field."""
    for size in (0, 1, 7):
        yield HostileFile(f"{size} bytes", b"\x01" * size)


def truncated(at: Attacked) -> Iterator[HostileFile]:
    """An honest blob that ends too early."""
    header = len(at.header)
    for size in (8, 9, header // 2, header - 1, header, header + 1, header + 4, len(at.blob) - 4, len(at.blob) - 1):
        yield HostileFile(f"cut to {size}", at.blob[:size])


def trailing(at: Attacked) -> Iterator[HostileFile]:
    """An honest blob with something behind it, where a reader of another format may look first."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps({"a": 1}))
    yield HostileFile("one byte", at.blob + b"\x00")
    yield HostileFile("itself", at.blob + at.blob)
    yield HostileFile("a zip", at.blob + archive.getvalue())
    yield HostileFile("a hole of a gigabyte", at.blob, len(at.blob) + (1 << 30))


def other_formats(at: Attacked) -> Iterator[HostileFile]:
    """Pickles, archives and other things that somebody might load."""
    archive, arrays = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps({"a": 1}, protocol=2))
        file.writestr("archive/version", "3\n")
    np.save(arrays, np.arange(64, dtype="<f4"))
    starts = {
        "a pickle of protocol 2": pickle.dumps(list(range(99)), protocol=2),
        "a pickle of protocol 5": pickle.dumps(list(range(99)), protocol=5),
        "a pickle that would run a command": b"cos\nsystem\n(S'true'\ntR.",
        "torch's zip": archive.getvalue(),
        "numpy's array": arrays.getvalue(),
        "gzip": gzip.compress(at.blob[:4096], mtime=0),
        "HDF5": b"\x89HDF\r\n\x1a\n",
        "GGUF": b"GGUF\x03\x00\x00\x00",
        "ELF": b"\x7fELF\x02\x01\x01\x00",
        "a web page": b"<!doctype html><title>502 Bad Gateway</title>",
        "a pointer of git lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    }
    for what, start in starts.items():
        yield HostileFile(what, start.ljust(len(at.blob), b"\x00"))


def noise(at: Attacked) -> Iterator[HostileFile]:
    """Random bytes, and honest blobs with a bit of their header flipped."""
    chance = random.Random(1)  # noqa: S311 - the same files each time
    for size in (64, len(at.header), len(at.blob)):
        yield HostileFile(f"{size} random bytes", chance.randbytes(size))
    for bit in chance.sample(range(8 * len(at.header)), 32):
        flipped = bytearray(at.blob)
        flipped[bit // 8] ^= 1 << bit % 8
        yield HostileFile(f"bit {bit} flipped", bytes(flipped))


# --- the length field ---------------------------------------------------------------------------------------------


def lengths(at: Attacked) -> Iterator[HostileFile]:
    """A length field that lies."""
    honest = len(at.header) - 8
    lies = {
        "nothing": 0,
        "one byte": 1,
        "one byte less": honest - 1,
        "one byte more": honest + 1,
        "the whole file": len(at.blob),
        "just all the rest": len(at.blob) - 8,
        "100 MB": 100_000_000,
        "more than safetensors takes": 100_000_001,
        "a terabyte": 1 << 40,
        "minus one": (1 << 64) - 1,
        "the smallest signed number": 1 << 63,
        "what wraps around with the eight bytes before it": (1 << 64) - 8,
        "the honest one, the other way round": int.from_bytes(honest.to_bytes(8, "big"), "little"),
    }
    for what, length in lies.items():
        yield HostileFile(what, struct.pack("<Q", length) + at.blob[8:])


def long_headers(at: Attacked) -> Iterator[HostileFile]:
    """Headers of megabytes: nobody may read them, let alone parse."""
    yield at.framed("64 MB of spaces", b"{" + b" " * (64 << 20) + b"}", b"")
    yield HostileFile("90 MB that are a hole", struct.pack("<Q", 90_000_000) + b"{", 90_000_008)
    yield HostileFile("a gigabyte that is a hole", struct.pack("<Q", 1 << 30) + b"{", (1 << 30) + 8)


# --- the header as text -------------------------------------------------------------------------------------------


def not_json(at: Attacked) -> Iterator[HostileFile]:
    """A header that is no JSON."""
    honest = at.header[8:].rstrip(b" ")
    yield at.fitted("open braces", b"{" * len(honest))
    yield at.fitted("half of it", honest[: len(honest) // 2])
    yield at.fitted("a comma too many", honest[:-1] + b",}")
    yield at.fitted("single quotes", honest.replace(b'"', b"'"))
    yield at.fitted("nothing", b"")
    yield at.fitted("zeros", b"\x00" * len(honest))
    yield at.fitted("a control character in a string", b'{"a\x01b":1}')
    yield at.framed("two of it", honest + honest)


def not_an_object(at: Attacked) -> Iterator[HostileFile]:
    """A header that is JSON, and something else than tensors by name."""
    for text in (
        b"[]",
        b"null",
        b"true",
        b"12",
        b'"a"',
        b"[[1,2],[3,4]]",
        b"NaN",
        b"-Infinity",
        b'{"a":1}',
        b'{"a":[]}',
    ):
        yield at.fitted(text.decode(), text)


def nested(at: Attacked) -> Iterator[HostileFile]:
    """JSON so deep that a recursive parser runs out of stack."""
    room = len(at.header)
    yield at.fitted("lists", b"[" * room)
    yield at.fitted("objects", b'{"a":' * room)
    yield at.fitted("whole lists", b'{"a":' + b"[" * (room // 2 - 8) + b"]" * (room // 2 - 8) + b"}")
    for field in ("shape", "dtype", "data_offsets"):
        deep = b'{"a":{"%s":' % field.encode() + b"[" * 900 + b"]" * 900 + b"}}"
        yield at.fitted(f"in {field}, just parsable", deep)
    yield at.framed("a megabyte of lists", b"[" * (1 << 20))


def texts(at: Attacked) -> Iterator[HostileFile]:
    """A header in another encoding, or in none."""
    honest = at.header[8:].rstrip(b" ")
    first = at.names[0].encode()
    yield at.framed("UTF-16", honest.decode().encode("utf-16"))
    yield at.framed("UTF-32", honest.decode().encode("utf-32-be"))
    yield at.framed("a byte order mark", b"\xef\xbb\xbf" + honest)
    yield at.replaced("bytes that are no UTF-8", (first, first + b"\xff\xfe"))
    yield at.replaced("an overlong slash", (first, b"\xc0\xaf" + first))
    yield at.replaced("half a surrogate pair", (first, b"\\ud800" + first))
    yield at.replaced("half a surrogate pair, encoded", (first, b"\xed\xa0\x80" + first))


def whitespace(at: Attacked) -> Iterator[HostileFile]:
    """A header that does not begin, or end, where it should."""
    honest = at.header[8:].rstrip(b" ")
    for what, before in {"spaces": b" " * 8, "a newline": b"\n", "a tab": b"\t", "a zero": b"\x00"}.items():
        yield at.framed(f"{what} first", before + honest)
    for what, after in {"newlines": b"\n" * 8, "zeros": b"\x00" * 8, "spaces": b" " * 8, "a brace": b"}"}.items():
        yield at.framed(f"{what} last", honest + after)


def long_lists(at: Attacked) -> Iterator[HostileFile]:
    """A header of the honest length full of what costs a parser most."""
    room = len(at.header) - 8
    costly = {
        "empty objects": (b'{"a":[', b"{},"),
        "empty lists": (b'{"a":[', b"[],"),
        "empty strings": (b'{"a":[', b'"",'),
        "numbers": (b'{"a":[', b"1,"),
        "long numbers": (b'{"a":[', b"9" * 4300 + b","),
        "floats": (b'{"a":[', b"1e9,"),
        "sides": (b'{"a":{"dtype":"F32","shape":[', b"1,"),
    }
    for what, (start, each) in costly.items():
        closing = {ord("["): b"]", ord("{"): b"}"}
        end = b"".join(closing[byte] for byte in reversed(start) if byte in closing)
        count = (room - len(start) - len(end) - len(each)) // len(each)
        yield at.fitted(what, start + each * count + each.rstrip(b",") + end)


# --- names --------------------------------------------------------------------------------------------------------


def names(at: Attacked) -> Iterator[HostileFile]:
    """Names that are paths, commands to a terminal, or books."""
    first = at.names[0]
    bad = {
        "a way up": f"../../../{first}",
        "an absolute path": "/etc/passwd",
        "a zero inside": f"{first}\x00",
        "nothing": "",
        "a bell and colours": "\x1b[31m\x07",
        "newlines": "a\nb\r\nc",
        "from right to left": "\u202egnp.thgiew",
        "a twin in Cyrillic": first.replace("a", "\u0430"),
        "a prototype": "__proto__",
        "a thousand characters": "x" * 1000,
        "a megabyte": "x" * (1 << 20),
    }
    for what, name in bad.items():
        yield at.bent(what, lambda entries, name=name: entries.update({name: entries.pop(first)}))


def duplicate_names(at: Attacked) -> Iterator[HostileFile]:
    """A tensor that is there twice: readers disagree on which one counts."""
    first = at.names[0]
    entry = json.dumps(at.entries()[first], separators=(",", ":")).encode()
    name = first.encode()
    whole = b'"%s":%s' % (name, entry)
    other = whole.replace(b"[0,", b"[4,")
    spelt = b'"\\u%04x%s":%s' % (name[0], name[1:], entry)
    yield at.replaced("the same", (whole, whole + b"," + whole))
    yield at.replaced("with other offsets", (whole, whole + b"," + other))
    yield at.replaced("spelt differently", (whole, whole + b"," + spelt))
    yield at.fitted("within the honest length", b'{"a":{"dtype":"F32","shape":[1]},"a":{"dtype":"F32","shape":[1]}}')


def metadata(at: Attacked) -> Iterator[HostileFile]:
    """Metadata, which this protocol does not have: a little, a lot, and of the wrong kind."""
    yield at.bent("what PEFT writes", lambda entries: entries.update(__metadata__={"format": "pt"}))
    yield at.fitted("alone", b'{"__metadata__":{"format":"pt"}}')
    yield at.bent("that is a list", lambda entries: entries.update(__metadata__=[]))
    yield at.bent("that looks like a tensor", lambda entries: entries.update(__metadata__=entries[at.names[0]]))
    many = b",".join(b'"%d":""' % index for index in range(MILLION))
    yield at.framed("a million entries", b'{"__metadata__":{' + many + b"}," + at.header[9:])
    yield at.framed("one entry of 32 MB", b'{"__metadata__":{"a":"' + b"x" * (32 << 20) + b'"},' + at.header[9:])


def many_tensors(at: Attacked) -> Iterator[HostileFile]:
    """A million tensors of nothing: half a minute and 1.7 GB to safetensors before it returns one."""

    def tensors(count: int) -> bytes:
        return b",".join(b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % index for index in range(count))

    yield at.fitted("as many as the honest length has room for", b"{" + tensors(9999) + b"}")
    many = tensors(MILLION)
    yield at.framed("and nothing else", b"{" + many + b"}", b"")
    yield at.framed("beside the honest ones", b"{" + many + b"," + at.header[9:])


def missing_and_extra(at: Attacked) -> Iterator[HostileFile]:
    """Other tensors than the manifest's."""
    first, last = at.names[0], at.names[-1]
    yield at.bent("one missing", lambda entries: entries.pop(last))
    yield at.bent("all but one missing", lambda entries: [entries.pop(name) for name in at.names[1:]])
    yield at.framed("all missing", b"{}")
    yield at.bent("one too many", lambda entries: entries.update(extra=entries[first]))
    yield at.bent("an empty one too many", lambda entries: entries.update(extra=_tensor([0], [0, 0])))
    yield at.bent("one renamed", lambda entries: entries.update(extra=entries.pop(first)))
    swap = {at.names[0]: at.names[1], at.names[1]: at.names[0]}
    yield at.bent("two changed places", lambda entries: entries.update({a: entries[b] for a, b in swap.items()}))


# --- the fields of a tensor ---------------------------------------------------------------------------------------


def fields(at: Attacked) -> Iterator[HostileFile]:
    """Fields that are missing, twice there, unknown, or no fields at all."""
    first = at.names[0]
    for field in ("dtype", "shape", "data_offsets"):
        yield at.bent(f"no {field}", lambda entries, field=field: entries[first].pop(field))
    yield at.one("one that nobody knows", strides=[1, 1])
    yield at.replaced("two types", (b'"dtype":"F32"', b'"dtype":"F32","dtype":"F32"'))
    yield at.replaced("two shapes", (b'"shape":', b'"shape":[1],"shape":'))
    yield at.replaced("offsets twice", (b'"data_offsets":', b'"data_offsets":[0,4],"data_offsets":'))
    for entry in (None, [], "F32", 7, True):
        yield at.bent(f"{entry!r} for a tensor", lambda entries, entry=entry: entries.update({first: entry}))


def dtypes(at: Attacked) -> Iterator[HostileFile]:
    """Number formats that this protocol does not have, or nobody."""
    for dtype in ("BF16", "F16", "F64", "I64", "U8", "BOOL", "F8_E4M3", "f32", "O", "", None, 32, ["F32"], {"F32": 1}):
        yield at.one(f"{dtype!r}", dtype=dtype)
    yield at.one("a type of 10,000 characters", dtype="F" * 10_000)


def shapes(at: Attacked) -> Iterator[HostileFile]:
    """Shapes that are not the manifest's, or no shapes."""
    rows, columns = at.rows, at.columns
    wrong: dict[str, object] = {
        "turned": [columns, rows],
        "flat": [rows * columns],
        "a scalar's": [],
        "one side more": [1, rows, columns],
        "a thousand sides": [1] * 998 + [rows, columns],
        "two negative sides": [-rows, -columns],
        "floats": [float(rows), float(columns)],
        "booleans": [True, rows * columns],
        "texts": [str(rows), str(columns)],
        "a text": f"{rows}{columns}",
        "an object": {str(rows): columns},
        "a number": rows * columns,
        "null": None,
    }
    for what, shape in wrong.items():
        yield at.one(what, shape=shape)


def overflows(at: Attacked) -> Iterator[HostileFile]:
    """Shapes whose product wraps around, or is nothing although a side is absurd."""
    wrong = {
        "that wraps around to nothing": [1 << 32, 1 << 32],
        "that wraps around to the honest number": [(1 << 63) + at.rows * at.columns // 2, 2],
        "beyond 64 bits": [1 << 64],
        "of 4,000 digits": [10**4000],
        "nothing times a terabyte": [0, 1 << 40],
        "nothing times the largest number": [0, (1 << 63) - 1],
    }
    for what, shape in wrong.items():
        yield at.one(what, shape=shape)
    first_side = b"[%d," % at.rows
    for what, side in {"infinity": b"1e999", "NaN": b"NaN", "a number of 10,000 digits": b"8" * 10_000}.items():
        yield at.replaced(what, (first_side, b"[" + side + b","))


def offsets(at: Attacked) -> Iterator[HostileFile]:
    """Offsets that do not lie one after the other."""
    own, size = at.first_bytes, len(at.payload)
    wrong: dict[str, object] = {
        "reversed": [own, 0],
        "overlapping the next": [0, 2 * own],
        "those of the next": [own, 2 * own],
        "beyond the end": [size, size + own],
        "negative": [-own, 0],
        "of nothing": [0, 0],
        "three": [0, own, own],
        "one": [0],
        "floats": [0.0, float(own)],
        "beyond 64 bits": [1 << 64, (1 << 64) + own],
        "no list": f"0,{own}",
    }
    for what, pair in wrong.items():
        yield at.one(what, data_offsets=pair)
    gap = _tensor([at.columns, at.rows], [own + 64, 2 * own + 64])
    yield at.bent("a gap", lambda entries: entries.update({at.names[1]: gap}))


def not_canonical(at: Attacked) -> Iterator[HostileFile]:
    """The right tensors, written as this protocol does not: two files for one adapter would have two digests."""
    entries = at.entries()
    yield at.framed(
        "names in another order", json.dumps(dict(reversed(entries.items())), separators=(",", ":")).encode()
    )
    yield at.framed("spaces", json.dumps(entries).encode())
    yield at.framed("lines", json.dumps(entries, indent=1).encode())
    turned = {name: dict(reversed(entry.items())) for name, entry in entries.items()}
    yield at.framed("fields in another order", json.dumps(turned, separators=(",", ":")).encode())
    yield at.replaced("an escape", (b'"F32"', b'"F\\u00332"'))
    name = at.names[0].encode()
    yield at.replaced("an escaped name", (b'"%s' % name, b'"\\u%04x%s' % (name[0], name[1:])))
    text = at.header[8:].rstrip(b" ")
    loose = text + b" " * (1 - len(text) % 2)  # odd, so never a multiple of eight
    yield HostileFile("no padding", struct.pack("<Q", len(loose)) + loose + at.payload)


# --- the numbers --------------------------------------------------------------------------------------------------


def not_finite(at: Attacked) -> Iterator[HostileFile]:
    """Numbers that would make the mean of everybody's updates no number either."""
    patterns = {
        "NaN": 0x7FC00000,
        "a signalling NaN": 0x7F800001,
        "a negative NaN": 0xFFFFFFFF,
        "infinity": 0x7F800000,
        "minus infinity": 0xFF800000,
    }
    for what, bits in patterns.items():
        value = struct.pack("<I", bits)
        yield HostileFile(f"{what} first", at.header + value + at.payload[4:])
        yield HostileFile(f"{what} last", at.header + at.payload[:-4] + value)
    yield HostileFile("nothing else", at.header + b"\xff" * len(at.payload))


def _tensor(shape: list[int], data_offsets: list[int]) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": data_offsets}


# Class by class, how its files are refused.
HOSTILE: dict[Callable[[Attacked], Iterator[HostileFile]], type[ProtocolError]] = {
    empty: BlobTruncated,
    truncated: BlobTruncated,
    trailing: BlobTooLarge,
    other_formats: LayoutMismatch,
    noise: LayoutMismatch,
    lengths: LayoutMismatch,
    long_headers: LayoutMismatch,
    not_json: LayoutMismatch,
    not_an_object: LayoutMismatch,
    nested: LayoutMismatch,
    texts: LayoutMismatch,
    whitespace: LayoutMismatch,
    long_lists: LayoutMismatch,
    names: LayoutMismatch,
    duplicate_names: LayoutMismatch,
    metadata: LayoutMismatch,
    many_tensors: LayoutMismatch,
    missing_and_extra: LayoutMismatch,
    fields: LayoutMismatch,
    dtypes: LayoutMismatch,
    shapes: LayoutMismatch,
    overflows: LayoutMismatch,
    offsets: LayoutMismatch,
    not_canonical: LayoutMismatch,
    not_finite: ValuesNotFinite,
}
