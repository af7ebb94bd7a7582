"""The header reader: whatever bytes come as an adapter, the answer is an error of the tree, or they are the adapter.

The first byte of the input says how the rest is meant: as a whole blob, or as the JSON of one whose length is right.
"""

from contextlib import suppress

from shared.errors import FedCoLLMError
from shared.protocol.codec import canonical_header, decode, require_header

LAYOUT = {f"base_model.model.layers.{layer}.q_proj.lora_{factor}.weight": (2, 2) for layer in (0, 1) for factor in "AB"}
HEADER = canonical_header(LAYOUT)
BLOB = HEADER + bytes(4 * 16)
WHOLE, TEXT = b"\x00", b"\x01"

SEEDS = (
    WHOLE + BLOB,
    WHOLE + BLOB[:-1],
    WHOLE + HEADER[:8],
    WHOLE + b"\xff" * 8 + HEADER[8:],
    TEXT + HEADER[8:],
    TEXT + b'{"__metadata__":{"format":"pt"}}',
    TEXT + b'{"a":{"dtype":"BF16","shape":[0,1099511627776],"data_offsets":[0,0]}}',
    TEXT + b'{"a":{"dtype":"F32","shape":[-1,1e999,true,null],"data_offsets":[9,0]}}',
    TEXT + b'{"a":{"dtype":"F32","shape":[1]},"\\u0061":{"dtype":"F32","shape":[1]}}',
    TEXT + b"[" * 300,
)


def target(data: bytes) -> None:
    """Read ``data``."""
    if data[:1] == TEXT:
        room = len(HEADER) - 8
        start, size = HEADER[:8] + data[1 : 1 + room].ljust(room), len(BLOB)
    else:
        start, size = data[1 : 1 + len(HEADER)], len(data) - 1
    try:
        require_header(start, size, LAYOUT)
    except FedCoLLMError:
        assert (start, size) != (HEADER, len(BLOB)), "an honest header was refused"
    else:
        assert (start, size) == (HEADER, len(BLOB)), "another header was taken"
    with suppress(FedCoLLMError):
        decode(data[1:], LAYOUT)
