"""The parser of request signatures: whatever fields come, the answer is an error of the tree, or what was signed.

An input is a request as text: method, target, and a line for each field. Its first byte says who signs it: nobody
anew, or a hostile member with a key of its own, who may put any component and any parameter under a good signature.
"""

from http_message_signatures import HTTPMessageSignaturesException, HTTPMessageVerifier
from http_message_signatures.algorithms import ED25519

from shared.errors import FedCoLLMError
from shared.protocol.digests import DIGEST_FIELD, digest_of, to_field
from shared.protocol.identity import IdentityKey
from shared.protocol.request_signatures import (
    INPUT_FIELD,
    TAG,
    _KeyOf,
    _Message,
    _signed_fields,
    _url,
    named_signer,
    require_fresh,
    sign_request,
    verify_request,
)

NOW, NONCE, BODY = 1_700_000_000, "0123456789abcdef", b"{}"
ADA = IdentityKey(b"a" * 32)
AS_IT_IS, SIGNED_ANEW = b"\x00", b"\x01"


def _request(method: str, target: str, fields: dict[str, str]) -> bytes:
    return "\n".join((method, target, *(f"{name}: {value}" for name, value in fields.items()))).encode("latin-1")


def _honest(method: str, target: str) -> bytes:
    digest, length = digest_of(BODY), len(BODY)
    signature = sign_request(
        "ada", ADA, "clinics", method=method, target=target, digest=digest, length=length, now=NOW, nonce=NONCE
    )
    return _request(method, target, {DIGEST_FIELD: to_field(digest), "Content-Length": str(length), **signature})


_HONEST = _honest("PUT", "/v1/runs/run/rounds/1/update?examples=3")
_FORGED = _HONEST.replace(b'"@method"', b'"@method";req')
SEEDS = (
    AS_IT_IS + _HONEST,
    AS_IT_IS + _honest("GET", "/v1/wanted?declined=a&declined=b"),
    AS_IT_IS + _FORGED,
    SIGNED_ANEW + _HONEST,
    SIGNED_ANEW + _FORGED,
    SIGNED_ANEW + _HONEST.replace(b"created=1700000000", b"created=-999999999999999"),
    SIGNED_ANEW + _HONEST.replace(b"expires=", b"expires=9999999999"),
    SIGNED_ANEW + _HONEST.replace(b'"@query"', b'"@query-param";name="examples"'),
    SIGNED_ANEW + _HONEST.replace(b'"@path"', b'"@path" "@path"'),
    SIGNED_ANEW + _HONEST.replace(b'"content-digest"', b'"content-digest";sf;bs;key="sha-256"'),
    AS_IT_IS + b'GET\n/\nSignature-Input: fedcollm=();keyid="ada"\nSignature: fedcollm=::',
    AS_IT_IS + _HONEST.replace(b'"@method"', b'"@signature-params"'),
    SIGNED_ANEW + _HONEST.replace(b'"@method"', b'"@signature-params"'),
)


def target(data: bytes) -> None:
    """Parse ``data`` as a request, and verify it as one of ada."""
    method, _, rest = data[1:].decode("latin-1").partition("\n")
    path, _, lines = rest.partition("\n")
    fields = [(name, value.strip(" ")) for name, _, value in (line.partition(":") for line in lines.split("\n"))]
    try:
        if data[:1] == SIGNED_ANEW:
            fields = _signed(method, path, fields)
        name = named_signer(fields)
        signed = verify_request(method, path, fields, name=name, key=ADA.public)
        require_fresh(signed, NOW)
    except FedCoLLMError:
        return
    assert 0 <= signed.expires - signed.created <= 60
    assert signed.digest.startswith("sha256:")
    assert 16 <= len(signed.nonce) <= 64


def _signed(method: str, path: str, fields: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Sign what the request's own Signature-Input says, as ada may with any program."""
    known = _signed_fields(fields)
    handler = HTTPMessageVerifier(signature_algorithm=ED25519, key_resolver=_KeyOf("ada"))
    try:
        components = handler._parse_signature_dictionary(known.get(INPUT_FIELD.lower(), ""))[TAG]
        base, *_ = handler._build_signature_base(
            _Message(method, _url(path), known),
            covered_component_ids=list(components),
            signature_params=components.params,
        )
    except (HTTPMessageSignaturesException, ValueError, LookupError, TypeError, AttributeError, AssertionError):
        return fields  # what the library itself does not sign
    signature = to_field_bytes(ADA.private.sign(base.encode()))
    return [(name, value) for name, value in fields if name.lower() != "signature"] + [("Signature", signature)]


def to_field_bytes(content: bytes) -> str:
    """Return a signature as its field carries it."""
    return f"{TAG}={to_field('sha256:' + content.hex()).removeprefix('sha-256=')}"
