"""Requests that say who sends them: HTTP Message Signatures (RFC 9421) by the sender's identity key.

A signature covers what the coordinator acts on: method, path, query, the digest and length of the body, the federation,
and of an upload that goes on also which one and where. It does not cover the host, so that a proxy that ends TLS does
not break it (docs/protocol.md, "Requests"). It holds for a minute, and its nonce makes it unlike every other, so that
whoever repeats a request is found out.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from http_message_signatures import (
    HTTPMessageSignaturesException,
    HTTPMessageSigner,
    HTTPMessageVerifier,
    HTTPSignatureKeyResolver,
    VerifyResult,
)
from http_message_signatures.algorithms import ED25519

from shared.errors import ClockSkewed, MessageInvalid, RequestSignatureInvalid
from shared.protocol.digests import DIGEST_FIELD, digest_of, from_field, to_field
from shared.protocol.identity import IdentityKey, public_key
from shared.protocol.resumption import SIGNED_BESIDES

FEDERATION_FIELD = "FedCoLLM-Federation"
TAG = "fedcollm"
LIFETIME_SECONDS = 60
# By how much the clocks of two machines may differ. The doctor warns of as much.
TOLERANCE_SECONDS = 30

NO_BODY = digest_of(b"")
LENGTH_FIELD = "Content-Length"
INPUT_FIELD = "Signature-Input"
PARAMETERS = '"@signature-params"'
MOST_CHARACTERS = 1024  # of a field; ours have a quarter of it
FURTHEST = 1 << 36  # seconds since 1970: years have four digits until then

_COVERED = ("@method", "@path", "@query", DIGEST_FIELD.lower(), FEDERATION_FIELD.lower())
_BESIDES = {method: tuple(field.lower() for field in fields) for method, fields in SIGNED_BESIDES.items()}
_FIELDS = frozenset(
    {*_COVERED[3:], LENGTH_FIELD.lower(), *_BESIDES["HEAD"], *_BESIDES["PATCH"], "signature", "signature-input"}
)
NO_FIELDS: Mapping[str, str] = {}
_NONCE = re.compile(r"[A-Za-z0-9_-]{16,64}")
_KEYID = re.compile(r';keyid="([A-Za-z0-9._-]{1,64})"')


@dataclass(frozen=True)
class SignedRequest:
    """What a valid signature says of its request; nothing here was not signed.

    ``created`` and ``expires`` are seconds since 1970 by the signer's clock.
    """

    name: str
    federation: str
    digest: str
    length: int
    nonce: str
    created: int
    expires: int

    @property
    def remembered_until(self) -> int:
        """When its nonce may be forgotten: from then on the request is refused for its age."""
        return self.expires + TOLERANCE_SECONDS


def sign_request(
    name: str,
    key: IdentityKey,
    federation: str,
    *,
    method: str,
    target: str,
    digest: str,
    length: int,
    now: float,
    nonce: str,
    besides: Mapping[str, str] = NO_FIELDS,
) -> dict[str, str]:
    """Return the fields that make a request one of ``name``.

    Args:
        name: of the signer, as the coordinator knows them.
        key: theirs.
        federation: the id of the federation that the request is for.
        method: in capitals.
        target: path and query, encoded as they travel.
        digest: of the body, as ``digest_of`` gives it; the request must carry it as Content-Digest.
        length: of the body in bytes.
        now: seconds since 1970.
        nonce: 16 to 64 characters that no other request has.
        besides: the fields by which a request goes on with an upload (``resumption.py``).
    """
    fields = {**besides, DIGEST_FIELD: to_field(digest), FEDERATION_FIELD: federation, LENGTH_FIELD: str(length)}
    message = _Message(method, _url(target), fields)
    signer = HTTPMessageSigner(signature_algorithm=ED25519, key_resolver=_KeyOf(name, private=key.private))
    signer.sign(
        message,
        key_id=name,
        created=datetime.fromtimestamp(int(now), UTC),
        expires=datetime.fromtimestamp(int(now) + LIFETIME_SECONDS, UTC),
        nonce=nonce,
        label=TAG,
        tag=TAG,
        covered_component_ids=_covered(method, digest),
        use_existing_digest=True,
    )
    return {field: fields[field] for field in (FEDERATION_FIELD, INPUT_FIELD, "Signature")}


def named_signer(fields: Iterable[tuple[str, str]]) -> str:
    """Return whom the signature of a request names; nothing is proven of it yet.

    Raises:
        RequestSignatureInvalid: it names nobody, or several.
    """
    names = _KEYID.findall(_signed_fields(fields).get(INPUT_FIELD.lower(), ""))
    if len(names) != 1:
        raise RequestSignatureInvalid('the signature of a request names one signer, as keyid="<name>"')
    return str(names[0])


def verify_request(
    method: str, target: str, fields: Iterable[tuple[str, str]], *, name: str, key: str
) -> SignedRequest:
    """Return what the signature of a request says; whether it comes in time and for the first time is not asked here.

    Args:
        method: in capitals.
        target: path and query, encoded as they came.
        fields: all field lines of the request, names in any case.
        name: whose signature it must be.
        key: their public key, as ``IdentityKey.public`` has it.

    Raises:
        RequestSignatureInvalid: it is not their signature over all that must be signed.
    """
    message = _Message(method, _url(target), _signed_fields(fields))
    verifier = _Verifier(signature_algorithm=ED25519, key_resolver=_KeyOf(name, public=public_key(key)))
    try:
        [result] = verifier.verify(message, max_age=None, expect_tag=TAG)
        return _said(method, result)
    except (HTTPMessageSignaturesException, MessageInvalid, ValueError, KeyError) as error:
        reason = str(error) or f"it is not by the key of {name} over what has come"
        raise RequestSignatureInvalid(
            f"the signature of the request is refused ({reason}): it must be as docs/protocol.md says, by the key that "
            "the operator approved, and no proxy may change the path, the query or the body"
        ) from None


def require_fresh(signed: SignedRequest, now: float) -> None:
    """Raise unless a signature holds at ``now``, seconds since 1970 by the coordinator's clock.

    Raises:
        RequestSignatureInvalid: it would hold for longer than a signature may.
        ClockSkewed: it does not hold yet or any more.
    """
    if not 0 <= signed.expires - signed.created <= LIFETIME_SECONDS:
        raise RequestSignatureInvalid(f"the signature of a request holds for {LIFETIME_SECONDS} seconds and no longer")
    if not signed.created - TOLERANCE_SECONDS <= now <= signed.remembered_until:
        raise ClockSkewed(
            f"the request was signed at {_time(signed.created)} by the clock of {signed.name}, and it is {_time(now)} "
            "by the coordinator's: set the clock of the machine that is wrong, best by NTP. If both are right, a proxy "
            "on the way keeps requests for longer than a minute: let it pass them on as they come"
        )


def _covered(method: str, digest: str) -> tuple[str, ...]:
    """Return what is signed. Proxies drop a Content-Length of nothing, and the digest of nothing says as much."""
    length = () if digest == NO_BODY else (LENGTH_FIELD.lower(),)
    return (*_COVERED, *length, *_BESIDES.get(method, ()))


def _said(method: str, result: VerifyResult) -> SignedRequest:
    """Return what was signed, if that is all that must be."""
    values = {component: value for component, value in result.covered_components.items() if component != PARAMETERS}
    digest = from_field(values.get(f'"{DIGEST_FIELD.lower()}"', ""))
    length = values.get(f'"{LENGTH_FIELD.lower()}"', "0")
    covered = _covered(method, digest)
    if values.keys() != {f'"{component}"' for component in covered}:
        raise ValueError(f"it must cover {', '.join(covered)}, and nothing else")
    created, expires = int(result.parameters["created"]), int(result.parameters["expires"])
    nonce = str(result.parameters["nonce"])
    if not _NONCE.fullmatch(nonce) or not (0 <= created < FURTHEST and 0 <= expires < FURTHEST):
        raise ValueError("its nonce or its times are none")
    if not length.isdecimal():
        raise ValueError("its Content-Length is none")
    return SignedRequest(
        name=str(result.parameters["keyid"]),
        federation=values[f'"{FEDERATION_FIELD.lower()}"'],
        digest=digest,
        length=int(length),
        nonce=nonce,
        created=created,
        expires=expires,
    )


def _signed_fields(fields: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the fields that a signature is about: each once, none of them long enough to be a burden to read."""
    found: dict[str, str] = {}
    for name, value in fields:
        lower = name.lower()
        if lower not in _FIELDS:
            continue
        if lower in found:
            raise RequestSignatureInvalid(f"a signed request has {name} once, and this one has it twice")
        if len(value) > MOST_CHARACTERS:
            raise RequestSignatureInvalid(f"{name} of a signed request has up to {MOST_CHARACTERS} characters")
        found[lower] = value
    return found


def _url(target: str) -> str:
    """Return a whole address, as the library wants it; its host is not signed."""
    return f"http://coordinator{target}"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


@dataclass(frozen=True)
class _Message:
    """A request as the library wants it."""

    method: str
    url: str
    headers: dict[str, str]


class _Verifier(HTTPMessageVerifier):
    """The library's, with the time left to ``require_fresh``: it asks the machine's own clock, and has no code."""

    def validate_created_and_expires(self, sig_input: object, max_age: object = None) -> None:
        """Leave it."""


@dataclass(frozen=True)
class _KeyOf(HTTPSignatureKeyResolver):
    """The key of one party: its secret half for who signs, its public half for who verifies."""

    name: str
    private: Ed25519PrivateKey | None = None
    public: Ed25519PublicKey | None = None

    def resolve_private_key(self, key_id: str) -> Ed25519PrivateKey | None:
        """Return the secret half."""
        return self.private if key_id == self.name else None

    def resolve_public_key(self, key_id: str) -> Ed25519PublicKey | None:
        """Return the public half; the library refuses whoever has none."""
        return self.public if key_id == self.name else None
