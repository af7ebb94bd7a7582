"""A member's secrets of one attempt, what is derived from them, and shares sealed for one other member.

    pair mask u, v    HKDF(X25519(s_u, s_v), salt = context, info = "mask" u v), u before v
    own mask u        HKDF(b_u, salt = context, info = "self" u)
    share of u for v  AES-256-GCM under HKDF(X25519(c_u, c_v), salt = context, info = "share" u v), with context, u, v
                      as associated data; in front of it the SHA-256 of each of the two shares

Each key is used once, so the nonce is zero. The hashes are there for the coordinator, who hands sealed shares on: when
v releases a share, it can tell whether that is what u has dealt. A share has 256 random bits, so its hash says nothing.
"""

import hashlib
from dataclasses import dataclass
from secrets import token_bytes
from typing import Annotated, Literal, Self, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import StringConstraints

from shared.errors import KeyInvalid, ShareInvalid
from shared.protocol.identity import from_text, to_text
from shared.protocol.secagg.shamir import SHARE_BYTES

KEY_BYTES = 32
HASH_BYTES = 32
SEALED_BYTES = 2 * HASH_BYTES + 2 * SHARE_BYTES + 16  # the last ones authenticate
_NONCE = bytes(12)

# Two shares as they travel from their dealer to their holder, and one that its holder releases.
Sealed: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{195}$")]
Share: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{44}$")]
Kind: TypeAlias = Literal["mask_secret", "own_mask"]


@dataclass(frozen=True)
class AttemptSecrets:
    """32 bytes each: the secret halves c_u and s_u of the two keys, and b_u, from which the own mask follows."""

    encryption: bytes
    mask: bytes
    own_mask: bytes

    @classmethod
    def generate(cls) -> Self:
        """Return fresh ones; an attempt's are never another's."""
        return cls(token_bytes(KEY_BYTES), token_bytes(KEY_BYTES), token_bytes(KEY_BYTES))


@dataclass(frozen=True)
class Shares:
    """One member's shares of another's secrets s_u and b_u, of which it will release one and never both."""

    mask_secret: bytes
    own_mask: bytes


def private_key(secret: bytes) -> X25519PrivateKey:
    """Return a secret as the key that agrees with others: making it costs as much as one agreement."""
    return X25519PrivateKey.from_private_bytes(secret)


def public_of(secret: bytes) -> str:
    """Return the public half of an X25519 secret, as it travels."""
    return to_text(private_key(secret).public_key().public_bytes_raw())


def require_agreeable(public: str) -> None:
    """Raise KeyInvalid unless a public half can be agreed with."""
    _agreed(X25519PrivateKey.generate(), public)


def commitment_to(own_mask: bytes) -> str:
    """Return what a member tells of b_u beforehand, so that nobody can claim another one later."""
    return to_text(hashlib.sha256(b"fedcollm-own-mask-v1\n" + own_mask).digest())


def pair_mask_key(private: X25519PrivateKey, public: str, context: bytes, one: str, other: str) -> bytes:
    """Return the key of the mask that two members share; the same on both sides.

    Raises:
        KeyInvalid: ``public`` is no key to agree with.
    """
    return _derive(_agreed(private, public), context, "mask", *sorted((one, other)))


def own_mask_key(own_mask: bytes, context: bytes, member: str) -> bytes:
    """Return the key of a member's own mask."""
    return _derive(own_mask, context, "self", member)


def seal(shares: Shares, private: X25519PrivateKey, public: str, context: bytes, *, dealer: str, holder: str) -> str:
    """Return shares as only ``holder`` can read them, and only in this attempt."""
    key, bound = _derive(_agreed(private, public), context, "share", dealer, holder), _bound(context, dealer, holder)
    ciphertext = AESGCM(key).encrypt(_NONCE, shares.mask_secret + shares.own_mask, bound)
    return to_text(_hash(shares.mask_secret, bound) + _hash(shares.own_mask, bound) + ciphertext)


def unseal(sealed: str, private: X25519PrivateKey, public: str, context: bytes, *, dealer: str, holder: str) -> Shares:
    """Return the shares that ``dealer`` has sealed for ``holder``.

    Raises:
        ShareInvalid: they are not that, or are not what the hashes in front of them are of.
        KeyInvalid: ``public`` is no key to agree with.
    """
    key, bound = _derive(_agreed(private, public), context, "share", dealer, holder), _bound(context, dealer, holder)
    try:
        hashes, ciphertext = _parts(sealed)
        content = AESGCM(key).decrypt(_NONCE, ciphertext, bound)
    except (InvalidTag, ValueError):
        raise ShareInvalid(f"{holder} cannot read what {dealer} has sealed for it") from None
    shares = Shares(content[:SHARE_BYTES], content[SHARE_BYTES:])
    if hashes != _hash(shares.mask_secret, bound) + _hash(shares.own_mask, bound):
        raise ShareInvalid(f"{dealer} has sealed other shares for {holder} than it has told the coordinator")
    return shares


def is_dealt(share: bytes, kind: Kind, sealed: str, context: bytes, *, dealer: str, holder: str) -> bool:
    """Return whether a share that ``holder`` releases is the one in what ``dealer`` has sealed for it."""
    try:
        hashes, _ = _parts(sealed)
    except ValueError:
        return False
    dealt = hashes[:HASH_BYTES] if kind == "mask_secret" else hashes[HASH_BYTES:]
    return dealt == _hash(share, _bound(context, dealer, holder))


def _parts(sealed: str) -> tuple[bytes, bytes]:
    """Return the two hashes and the ciphertext of sealed shares; ValueError where the length is wrong."""
    content = from_text(sealed)
    if len(content) != SEALED_BYTES:
        raise ValueError("sealed shares have another length")
    return content[: 2 * HASH_BYTES], content[2 * HASH_BYTES :]


def _hash(share: bytes, bound: bytes) -> bytes:
    return hashlib.sha256(b"fedcollm-share-v1\n" + bound + share).digest()


def _agreed(private: X25519PrivateKey, public: str) -> bytes:
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(from_text(public)))
    except ValueError:  # not 32 bytes, or a point with which every key agrees on the same
        raise KeyInvalid(f"{public[:64]!r} is no X25519 key that can be agreed with") from None


def _derive(secret: bytes, context: bytes, label: str, *names: str) -> bytes:
    info = "\n".join((f"fedcollm-{label}-v1", *names)).encode()  # names have no line breaks
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=context, info=info).derive(secret)


def _bound(context: bytes, dealer: str, holder: str) -> bytes:
    return context + f"{dealer}\n{holder}".encode()
