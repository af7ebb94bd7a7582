"""Content digests as they are written on the wire: ``sha256:<hex>`` in JSON, RFC 9530 in header fields."""

import base64
import hashlib
import re
from typing import Annotated

from pydantic import StringConstraints

from shared.errors import MessageInvalid

DIGEST_PATTERN = r"^sha256:[0-9a-f]{64}$"
Digest = Annotated[str, StringConstraints(pattern=DIGEST_PATTERN)]

# Of the bytes of a message's body, in every request of ours and before every blob (RFC 9530, section 2).
DIGEST_FIELD = "Content-Digest"

_FIELD = re.compile(r"sha-256=:([A-Za-z0-9+/]{43}=):")


def digest_of(content: bytes) -> str:
    """Return the digest of ``content``."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def to_field(digest: str) -> str:
    """Return ``digest`` as the value of a field (RFC 9530)."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(digest.removeprefix('sha256:'))).decode()}:"


def from_field(value: str) -> str:
    """Return the digest that a field carries.

    Raises:
        MessageInvalid: it is not one SHA-256 digest.
    """
    match = _FIELD.fullmatch(value)
    if match is None:
        raise MessageInvalid("a digest field must carry one digest, as sha-256=:<base64>: (RFC 9530)")
    return f"sha256:{base64.b64decode(match[1]).hex()}"
