import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from shared.errors import BlobTooLarge, BlobTruncated, LayoutMismatch, ProtocolError, ValuesNotFinite
from shared.protocol.codec import MAX_NAME_CHARACTERS, blob_bytes, canonical_header, decode, encode, require_file
from shared.protocol.tensors import layout_of, parameter_count

LAYOUT = {"layer.lora_A.weight": (2, 3), "layer.lora_B.weight": (4, 2)}
PAYLOAD = np.arange(14, dtype="<f4").tobytes()

names = st.text(min_size=1, max_size=40).filter(lambda name: name != "__metadata__" and name.isprintable())
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
adapters = st.dictionaries(
    names,
    hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=5), elements=finite),
    min_size=1,
    max_size=6,
)


def tensors() -> dict[str, np.ndarray]:
    """Return an honest adapter of ``LAYOUT``."""
    return {
        "layer.lora_A.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "layer.lora_B.weight": np.arange(6, 14, dtype=np.float32).reshape(4, 2),
    }


def framed(header: bytes, payload: bytes = PAYLOAD) -> bytes:
    """Return a blob with this header, padded as an honest writer would."""
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + payload


def entries() -> dict[str, Any]:
    """Return the header of an honest blob, to be bent."""
    return {
        "layer.lora_A.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "layer.lora_B.weight": {"dtype": "F32", "shape": [4, 2], "data_offsets": [24, 56]},
    }


def bent(bend: Callable[[dict[str, Any]], object]) -> bytes:
    """Return an honest blob whose header was bent."""
    header = entries()
    bend(header)
    return framed(json.dumps(header, separators=(",", ":")).encode())


@given(adapters)
def test_every_adapter_comes_back_as_it_went(adapter: dict[str, np.ndarray]) -> None:
    """Decoding what was encoded gives the same names, shapes and bits."""
    back = decode(encode(adapter), layout_of(adapter))
    assert {name: (values.shape, values.tobytes()) for name, values in back.items()} == {
        name: (values.shape, values.astype("<f4").tobytes()) for name, values in adapter.items()
    }


@given(adapters)
def test_safetensors_reads_what_we_write(adapter: dict[str, np.ndarray]) -> None:
    """The reference reader finds the same tensors in our blobs."""
    theirs = safetensors.numpy.load(encode(adapter))
    assert theirs.keys() == adapter.keys()
    for name, values in adapter.items():
        np.testing.assert_array_equal(theirs[name], values)


@given(adapters)
def test_we_write_what_safetensors_writes(adapter: dict[str, np.ndarray]) -> None:
    """The reference writer makes the same bytes, so the canonical header is its header."""
    theirs = safetensors.numpy.save({name: np.ascontiguousarray(values) for name, values in adapter.items()})
    assert encode(adapter) == theirs
    assert theirs.startswith(canonical_header(layout_of(adapter)))


@given(adapters)
def test_the_size_of_a_blob_is_known_from_its_layout(adapter: dict[str, np.ndarray]) -> None:
    """A receiver knows the exact length before the first byte."""
    assert len(encode(adapter)) == blob_bytes(layout_of(adapter))


def test_the_order_of_names_makes_no_difference() -> None:
    """The same tensors in another order are the same blob, and so the same digest."""
    assert encode(dict(reversed(tensors().items()))) == encode(tensors())


def test_an_honest_file_is_taken(tmp_path: Path) -> None:
    """The check of a file passes what the check of bytes passes."""
    (tmp_path / "blob").write_bytes(encode(tensors()))
    require_file(tmp_path / "blob", LAYOUT)


WRONG: dict[str, tuple[bytes, type[ProtocolError], str]] = {
    "a tensor missing": (bent(lambda h: h.pop("layer.lora_B.weight")), LayoutMismatch, "lacks 1 tensor"),
    "a tensor too many": (bent(lambda h: h.update(x=h["layer.lora_A.weight"])), LayoutMismatch, "does not"),
    "another shape": (bent(lambda h: h["layer.lora_A.weight"].update(shape=[3, 2])), LayoutMismatch, r"\[3, 2\]"),
    "another type": (bent(lambda h: h["layer.lora_A.weight"].update(dtype="F16")), LayoutMismatch, "'F16'"),
    "no type": (bent(lambda h: h["layer.lora_A.weight"].pop("dtype")), LayoutMismatch, "F32"),
    "no shape": (bent(lambda h: h["layer.lora_A.weight"].pop("shape")), LayoutMismatch, "header"),
    "a shape that is no list": (bent(lambda h: h["layer.lora_A.weight"].update(shape=6)), LayoutMismatch, "header"),
    "an infinite shape": (
        framed(json.dumps(entries()).replace("[2, 3]", "[1e999, 3]").encode()),
        LayoutMismatch,
        "header",
    ),
    "a gap between tensors": (
        bent(lambda h: h["layer.lora_B.weight"].update(data_offsets=[32, 64])),
        LayoutMismatch,
        "canonical",
    ),
    "tensors that overlap": (
        bent(lambda h: h["layer.lora_B.weight"].update(data_offsets=[0, 32])),
        LayoutMismatch,
        "canonical",
    ),
    "offsets beyond the end": (
        bent(lambda h: h["layer.lora_B.weight"].update(data_offsets=[24, 99])),
        LayoutMismatch,
        "canonical",
    ),
    "no offsets": (bent(lambda h: h["layer.lora_B.weight"].pop("data_offsets")), LayoutMismatch, "canonical"),
    "names in another order": (
        framed(json.dumps(dict(reversed(entries().items())), separators=(",", ":")).encode()),
        LayoutMismatch,
        "canonical",
    ),
    "spaces in the header": (framed(json.dumps(entries()).encode()), LayoutMismatch, "header|canonical"),
    "metadata": (bent(lambda h: h.update(__metadata__={"format": "pt"})), LayoutMismatch, "no metadata"),
    "a name twice": (
        framed(b'{"x":{"dtype":"F32","shape":[1]},"x":{"dtype":"F32","shape":[1]}}'),
        LayoutMismatch,
        "twice",
    ),
    "a very long name": (
        framed(json.dumps({"x" * (MAX_NAME_CHARACTERS + 1): 1}).encode()[:90]),
        LayoutMismatch,
        "header",
    ),
    "a header that is a list": (framed(b"[1,2,3]"), LayoutMismatch, "header"),
    "a header that is no JSON": (framed(b"{" * 64), LayoutMismatch, "header"),
    "a header that is no UTF-8": (framed(b'{"\xff\xfe":1}'), LayoutMismatch, "header"),
    "a pickle": (b"\x80\x04\x95\x10\x00\x00\x00\x00" + b"\x00" * 200, LayoutMismatch, "header"),
    "an absurd header length": (b"\xff" * 8 + encode(tensors())[8:], LayoutMismatch, "header of"),
    "a header length of 100 MB": (struct.pack("<Q", 100 << 20) + encode(tensors())[8:], LayoutMismatch, "header of"),
    "a header of nothing": (struct.pack("<Q", 0) + encode(tensors())[8:], LayoutMismatch, "header"),
    "seven bytes": (b"\x01" * 7, BlobTruncated, "7 bytes"),
    "one value too few": (encode(tensors())[:-4], BlobTruncated, "cut short"),
    "one byte too few": (encode(tensors())[:-1], BlobTruncated, "cut short"),
    "one byte too many": (encode(tensors()) + b"\x00", BlobTooLarge, "bytes"),
    "NaN": (encode(tensors())[:-4] + struct.pack("<f", float("nan")), ValuesNotFinite, "1 value"),
    "infinity": (encode(tensors())[:-4] + struct.pack("<f", float("inf")), ValuesNotFinite, "1 value"),
    "minus infinity": (encode(tensors())[:-4] + struct.pack("<f", float("-inf")), ValuesNotFinite, "1 value"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_blob_is_refused_and_told_why(wrong: str, tmp_path: Path) -> None:
    """Bytes in memory and bytes on disk are refused alike, with an error of the tree and a reason."""
    blob, error, reason = WRONG[wrong]
    with pytest.raises(error, match=reason):
        decode(blob, LAYOUT)
    (tmp_path / "blob").write_bytes(blob)
    with pytest.raises(error, match=reason):
        require_file(tmp_path / "blob", LAYOUT)


@pytest.mark.parametrize(
    ("name", "reason"), [("__metadata__", "carries metadata"), ("z", "does not, the first is 'z'")]
)
def test_what_is_too_much_in_a_header_is_named(name: str, reason: str) -> None:
    """Where there is room to read the header whole, its sender learns what to leave out."""
    layout = {f"tensor {index}": (1,) for index in range(9)}
    header = json.loads(canonical_header(layout)[8:])
    header = {short: {"dtype": "F32", "shape": [1]} for short in header} | {name: {"dtype": "F32", "shape": [1]}}
    with pytest.raises(LayoutMismatch, match=reason):
        decode(framed(json.dumps(header, separators=(",", ":")).encode()), layout)


def test_a_very_long_name_is_not_repeated_to_its_sender() -> None:
    """A hostile name of a megabyte does not come back as a message of a megabyte."""
    layout = {"x" * (1 << 12): (1,)}
    with pytest.raises(LayoutMismatch) as refusal:
        decode(framed(json.dumps({"y" * 4000: {"dtype": "F32", "shape": [1]}}).encode()), layout)
    assert len(str(refusal.value)) < 500


def test_a_header_nested_a_thousand_deep_is_refused() -> None:
    """Deep JSON ends in a refusal, not in a crash."""
    layout = {f"tensor {index:04}": (1,) for index in range(4000)}
    with pytest.raises(LayoutMismatch):
        decode(framed(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), layout)


def test_a_blob_cut_anywhere_in_its_header_is_called_truncated() -> None:
    """Whatever byte of the header was the last to arrive, the sender learns that the body was cut."""
    blob = encode(tensors())
    for length in range(len(canonical_header(LAYOUT)) + 1):
        with pytest.raises(BlobTruncated):
            decode(blob[:length], LAYOUT)


def test_one_flipped_bit_of_the_header_is_never_taken() -> None:
    """No bit of the header is without meaning: every other header is refused with an error of the tree."""
    blob = encode(tensors())
    for index in range(8 * len(canonical_header(LAYOUT))):
        flipped = bytearray(blob)
        flipped[index // 8] ^= 1 << index % 8
        with pytest.raises(ProtocolError):
            decode(bytes(flipped), LAYOUT)


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_with_an_error_of_the_tree(noise: bytes) -> None:
    """Whatever comes, the answer is a ProtocolError."""
    with pytest.raises(ProtocolError):
        decode(noise, LAYOUT)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
crooked_entries = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.just("F32") | json_values,
        "shape": st.lists(st.integers(-4, 4) | json_values, max_size=3) | json_values,
        "data_offsets": json_values,
    },
)


@given(st.dictionaries(st.sampled_from([*LAYOUT, "other"]), crooked_entries | json_values))
def test_crooked_headers_are_refused_with_an_error_of_the_tree(header: dict[str, Any]) -> None:
    """A header that is JSON but not safetensors is refused like any other."""
    layout = {f"{'x' * 200}{index}": (1,) for index in range(8)}  # so long that the whole crooked header is read
    with pytest.raises(ProtocolError):
        decode(framed(json.dumps(header).encode()), layout)


def test_an_adapter_without_numbers_is_a_blob_too(tmp_path: Path) -> None:
    """A tensor with a side of zero, and a layout of nothing, are read like any other."""
    for layout in ({"empty": (0, 3)}, {}):
        blob = encode({name: np.zeros(shape, np.float32) for name, shape in layout.items()})
        assert decode(blob, layout).keys() == layout.keys()
        (tmp_path / "blob").write_bytes(blob)
        require_file(tmp_path / "blob", layout)


def test_parameters_are_counted_exactly() -> None:
    """A layout's count of numbers is the product of its shapes, and one for a scalar."""
    assert parameter_count(LAYOUT) == 14
    assert parameter_count({"scalar": ()}) == 1
    assert parameter_count({}) == 0
