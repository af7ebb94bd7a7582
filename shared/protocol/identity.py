"""Who signs what: Ed25519 keys, and documents that are signed as canonical JSON under a name of their own kind.

An agent's key says who sends a request and who takes part in an attempt; the operator's key says who is a member and
what a run is (docs/protocol.md, "Identity"). A signature over one kind of document is none over another, because the
kind is part of what is signed.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, NamedTuple, Self, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, StringConstraints

from shared.errors import SignatureInvalid

PREFIX = "ed25519:"
SECRET_BYTES = 32
WORTH_THREADS = 8  # signatures, each a fifteenth of a millisecond
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)

# As they travel: base64 without padding, of 32 and 64 bytes.
PublicKey: TypeAlias = Annotated[str, StringConstraints(pattern=r"^ed25519:[A-Za-z0-9_-]{43}$")]
Signature: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{86}$")]


class Signed(NamedTuple):
    """A document, the public key of whom it should be signed by, and the signature; ``what`` names it in messages."""

    key: str
    document: BaseModel
    signature: str
    what: str


class IdentityKey:
    """An Ed25519 key pair whose secret half never leaves the process that holds it, but into its own file."""

    def __init__(self, secret: bytes) -> None:
        """``secret`` is 32 bytes that nobody else has."""
        self._private = Ed25519PrivateKey.from_private_bytes(secret)
        self.public = PREFIX + to_text(self._private.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> Self:
        """Return a new key."""
        return cls(Ed25519PrivateKey.generate().private_bytes_raw())

    @property
    def secret(self) -> bytes:
        """The 32 bytes to keep."""
        return self._private.private_bytes_raw()

    @property
    def private(self) -> Ed25519PrivateKey:
        """The key as ``cryptography`` has it, for whoever signs requests."""
        return self._private

    def sign(self, kind: str, document: BaseModel) -> str:
        """Sign a document of this kind."""
        return to_text(self._private.sign(signed_bytes(kind, document)))


def public_key(key: str) -> Ed25519PublicKey:
    """Return a public key as ``cryptography`` has it."""
    return Ed25519PublicKey.from_public_bytes(from_text(key.removeprefix(PREFIX)))


def require_signature(key: str, kind: str, document: BaseModel, signature: str, *, what: str) -> None:
    """Raise unless the holder of ``key`` has signed this document as one of this kind.

    Raises:
        SignatureInvalid: they have not; ``what`` names the document in the message.
    """
    try:
        public_key(key).verify(from_text(signature), signed_bytes(kind, document))
    except (InvalidSignature, ValueError):
        raise SignatureInvalid(f"{what} does not have the signature of {fingerprint(key)}: do not use it") from None


def require_signatures(kind: str, signed: Sequence[Signed]) -> None:
    """Raise for the first of several documents of one kind that is not signed by whom it should be.

    Two threads share them: most of the time of a check is spent where others can run.

    Raises:
        SignatureInvalid: as ``require_signature``.
    """

    def check(some: Sequence[Signed]) -> None:
        for each in some:
            require_signature(each.key, kind, each.document, each.signature, what=each.what)

    if len(signed) < WORTH_THREADS:
        check(signed)
        return
    half = len(signed) // 2
    with ThreadPoolExecutor(2) as threads:
        for _ in threads.map(check, (signed[:half], signed[half:])):
            pass


def signed_bytes(kind: str, document: BaseModel, *, without: str = "") -> bytes:
    """Return what is signed or hashed: the kind, and the document's canonical JSON, perhaps ``without`` one field."""
    return f"fedcollm-{kind}-v1\n".encode() + canonical_json(document, without=without)


def canonical_json(document: BaseModel, *, without: str = "") -> bytes:
    """Return a document's JSON with its keys in order and no spaces: the same document is the same bytes.

    Raises:
        ValueError: a number is not finite, and JSON has none for it.
    """
    content = document.model_dump(mode="json", exclude={without})
    return _CANONICAL.encode(content).encode()


def fingerprint(key: str) -> str:
    """Return a short form of a public key, for people to compare: 16 hex digits in groups of four, 64 bits."""
    digits = hashlib.sha256(key.encode()).hexdigest()[:16]
    return "-".join(digits[start : start + 4] for start in range(0, 16, 4))


def to_text(content: bytes) -> str:
    """Return bytes as they travel in JSON: base64 for URLs, without padding."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def from_text(text: str) -> bytes:
    """Return the bytes that were written by ``to_text``.

    Raises:
        ValueError: it is not the text of any bytes; no two texts are of the same ones.
    """
    content = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if to_text(content) != text:
        raise ValueError("a text must be as its bytes are written")
    return content
