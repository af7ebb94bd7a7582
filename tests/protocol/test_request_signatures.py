import base64
import re
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import ClockSkewed, ProtocolError, RequestSignatureInvalid
from shared.protocol.digests import digest_of, to_field
from shared.protocol.identity import IdentityKey, public_key
from shared.protocol.request_signatures import (
    LIFETIME_SECONDS,
    TOLERANCE_SECONDS,
    SignedRequest,
    named_signer,
    require_fresh,
    sign_request,
    verify_request,
)
from shared.protocol.resumption import append_fields, offset_fields

ADA = IdentityKey(b"a" * 32)
EVE = IdentityKey(b"e" * 32)
NOW = 1_700_000_000
BODY = b'{"tau": 1}'
NONCE = "0123456789abcdef"
TARGET = "/v1/runs/run/rounds/1/update?examples=3"


def signed(
    method: str = "PUT", target: str = TARGET, body: bytes = BODY, key: IdentityKey = ADA, name: str = "ada"
) -> dict[str, str]:
    """Return the fields of an honest request."""
    digest = digest_of(body)
    length = {"Content-Length": str(len(body))} if body else {}
    return (
        {"Content-Digest": to_field(digest)}
        | length
        | sign_request(
            name,
            key,
            "clinics",
            method=method,
            target=target,
            digest=digest,
            length=len(body),
            now=NOW + 0.9,
            nonce=NONCE,
        )
    )


def verified(fields: dict[str, str], method: str = "PUT", target: str = TARGET, **changes: Any) -> SignedRequest:  # noqa: ANN401
    """Verify a request as one of ada."""
    return verify_request(method, target, fields.items(), **{"name": "ada", "key": ADA.public, **changes})


def test_a_signed_request_says_all_that_was_signed():
    """Who, for which federation, with which body, when and once: from the signature, and not from the fields."""
    assert named_signer(signed().items()) == "ada"
    assert verified(signed()) == SignedRequest(
        name="ada",
        federation="clinics",
        digest=digest_of(BODY),
        length=len(BODY),
        nonce=NONCE,
        created=NOW,
        expires=NOW + LIFETIME_SECONDS,
    )


def test_the_signature_base_is_that_of_rfc_9421():
    """What is signed can be written down by hand (section 2.5), so that others can write a client."""
    fields = signed()
    parameters = fields["Signature-Input"].removeprefix("fedcollm=")
    base = "\n".join(
        (
            '"@method": PUT',
            '"@path": /v1/runs/run/rounds/1/update',
            '"@query": ?examples=3',
            f'"content-digest": {fields["Content-Digest"]}',
            '"fedcollm-federation": clinics',
            f'"content-length": {len(BODY)}',
            f'"@signature-params": {parameters}',
        )
    )
    assert parameters == (
        '("@method" "@path" "@query" "content-digest" "fedcollm-federation" "content-length")'
        f';created={NOW};keyid="ada";alg="ed25519";expires={NOW + 60};nonce="{NONCE}";tag="fedcollm"'
    )
    signature = base64.b64decode(fields["Signature"].removeprefix("fedcollm=:").removesuffix(":"))
    public_key(ADA.public).verify(signature, base.encode())
    with pytest.raises(InvalidSignature):
        public_key(ADA.public).verify(signature, base.replace("PUT", "GET").encode())


def test_a_request_without_a_body_is_signed_without_its_length():
    """Proxies drop a Content-Length of 0 from a GET; the digest of nothing says as much."""
    fields = signed("GET", "/v1/wanted", b"")
    assert "content-length" not in fields["Signature-Input"]
    for on_the_way in (fields, fields | {"Content-Length": "0"}):
        assert verified(on_the_way, "GET", "/v1/wanted").digest == digest_of(b"")


def test_names_of_fields_are_written_in_any_case_and_other_fields_do_not_matter():
    """Proxies add fields of their own and write names as they like."""
    lower = {name.lower(): value for name, value in signed().items()} | {"via": "1.1 proxy", "host": "elsewhere"}
    assert verified(lower) == verified(signed())


ELSE = "something else"
CHANGES: dict[str, Callable[[dict[str, str]], dict[str, Any]]] = {
    "method": lambda fields: {"fields": fields, "method": "POST"},
    "path": lambda fields: {"fields": fields, "target": TARGET.replace("rounds/1", "rounds/2")},
    "query": lambda fields: {"fields": fields, "target": TARGET.replace("=3", "=4")},
    "no query": lambda fields: {"fields": fields, "target": TARGET.partition("?")[0]},
    "target that is none": lambda fields: {"fields": fields, "target": "/v1/ü"},
    "digest": lambda fields: {"fields": fields | {"Content-Digest": to_field(digest_of(b"other"))}},
    "digest of nothing": lambda fields: {"fields": fields | {"Content-Digest": to_field(digest_of(b""))}},
    "digest that is none": lambda fields: {"fields": fields | {"Content-Digest": "sha-256=:x:"}},
    "length": lambda fields: {"fields": fields | {"Content-Length": "11"}},
    "federation": lambda fields: {"fields": fields | {"FedCoLLM-Federation": "banks"}},
    "created": lambda fields: {"fields": _parameter(fields, f"created={NOW}", f"created={NOW + 1}")},
    "expires": lambda fields: {"fields": _parameter(fields, f"expires={NOW + 60}", f"expires={NOW + 61}")},
    "nonce": lambda fields: {"fields": _parameter(fields, NONCE, NONCE[::-1])},
    "tag": lambda fields: {"fields": _parameter(fields, 'tag="fedcollm"', 'tag="other"')},
    "algorithm": lambda fields: {"fields": _parameter(fields, "ed25519", "hmac-sha256")},
    "signature": lambda fields: {"fields": fields | {"Signature": signed(key=EVE)["Signature"]}},
    "empty signature": lambda fields: {"fields": fields | {"Signature": "fedcollm=::"}},
    "label": lambda fields: {"fields": fields | {"Signature": fields["Signature"].replace("fedcollm=", "other=")}},
    "signer's name": lambda fields: {"fields": fields, "name": "eve"},
    "signer's key": lambda fields: {"fields": fields, "key": EVE.public},
}


def _parameter(fields: dict[str, str], old: str, new: str) -> dict[str, str]:
    assert old in fields["Signature-Input"]
    return fields | {"Signature-Input": fields["Signature-Input"].replace(old, new)}


@pytest.mark.parametrize("what", CHANGES)
def test_a_request_that_was_changed_on_the_way_is_refused(what: str):
    """Method, path, query, body, federation, times, nonce and signer: none can be another than was signed."""
    with pytest.raises(RequestSignatureInvalid):
        verified(**CHANGES[what](signed()))


@pytest.mark.parametrize("field", ["Content-Digest", "Content-Length", "FedCoLLM-Federation", "Signature"])
@pytest.mark.parametrize("how", ["missing", "twice", "long"])
def test_each_field_is_there_once_and_is_short(field: str, how: str):
    """Two values of a field would be read by two programs as two things."""
    fields = signed()
    lines = [(name, value) for name, value in fields.items() if name != field]
    match how:
        case "twice":
            lines += [(field, fields[field]), (field.lower(), fields[field])]
        case "long":
            lines += [(field, fields[field] + " " * 1024)]
        case _:
            pass
    with pytest.raises(RequestSignatureInvalid):
        verify_request("PUT", TARGET, lines, name="ada", key=ADA.public)


def _sign_by_hand(components: str, parameters: str, base: str) -> dict[str, str]:
    """Sign what our own signer would not."""
    said = f"({components});{parameters}"
    text = f'{base}\n"@signature-params": {said}'.lstrip("\n")
    signature = base64.b64encode(ADA.private.sign(text.encode())).decode()
    fields = {"Content-Digest": to_field(digest_of(BODY)), "Content-Length": "10", "FedCoLLM-Federation": "clinics"}
    return fields | {"Signature-Input": f"fedcollm={said}", "Signature": f"fedcollm=:{signature}:"}


WHOLE = '"@method" "@path" "@query" "content-digest" "fedcollm-federation" "content-length"'
BASE = "\n".join(
    (
        '"@method": PUT',
        '"@path": /v1/runs/run/rounds/1/update',
        '"@query": ?examples=3',
        f'"content-digest": {to_field(digest_of(BODY))}',
        '"fedcollm-federation": clinics',
        '"content-length": 10',
    )
)
TIMES = f"created={NOW};expires={NOW + 60}"
HONEST = f'{TIMES};keyid="ada";nonce="{NONCE}";tag="fedcollm"'


def test_what_is_signed_by_hand_is_accepted():
    """The tests below refuse what they mean to refuse, and not their own mistakes."""
    assert verified(_sign_by_hand(WHOLE, HONEST, BASE)) == verified(signed())


@pytest.mark.parametrize(
    ("components", "parameters"),
    [
        *((WHOLE.replace(f'"{name}"', "").strip(), HONEST) for name in re.findall(r'"(.*?)"', WHOLE)),
        ("", HONEST),
        (WHOLE, HONEST.replace(f'nonce="{NONCE}"', 'nonce="short"')),
        (WHOLE, HONEST.replace(f'nonce="{NONCE}";', "")),
        (WHOLE, HONEST.replace(f"created={NOW};", "")),
        (WHOLE, HONEST.replace(f"expires={NOW + 60};", "")),
        (WHOLE, HONEST.replace(f"created={NOW}", "created=-1")),
        (WHOLE, HONEST.replace(f"created={NOW}", "created=999999999999999")),
        (WHOLE, HONEST.replace(f"expires={NOW + 60}", "expires=999999999999999")),
        (WHOLE, HONEST.replace(';tag="fedcollm"', "")),
    ],
)
def test_a_signature_over_less_is_refused(components: str, parameters: str):
    """A valid signature of the right key that leaves something open is none."""
    lines = [line for line in BASE.splitlines() if f"{line.partition(':')[0]}" in components]
    with pytest.raises(RequestSignatureInvalid):
        verified(_sign_by_hand(components, parameters, "\n".join(lines)))


def test_a_length_that_is_no_number_is_refused_though_it_is_signed():
    """Whoever reads it on the way may read it as something else."""
    fields = _sign_by_hand(WHOLE, HONEST, BASE.replace('"content-length": 10', '"content-length": 1e1'))
    with pytest.raises(RequestSignatureInvalid, match="Content-Length"):
        verified(fields | {"Content-Length": "1e1"})


def test_a_signature_over_more_is_refused():
    """What is signed is one list, so that no two implementations differ in what they read from it."""
    with pytest.raises(RequestSignatureInvalid, match="nothing else"):
        verified(
            _sign_by_hand(f'{WHOLE} "@request-target"', HONEST, f'{BASE}\n"@request-target": {TARGET}'),
        )


@pytest.mark.parametrize(
    "value",
    ["", "fedcollm=()", 'fedcollm=();keyid="ada";keyid="eve"', 'fedcollm=();keyid="a/b"', 'fedcollm=();keyid=""'],
)
def test_a_request_that_names_no_signer_or_two_is_refused(value: str):
    """Before a key is looked up there is one name, of a form that names have."""
    with pytest.raises(RequestSignatureInvalid, match="one signer"):
        named_signer([("Signature-Input", value)])


@pytest.mark.parametrize("off", [-TOLERANCE_SECONDS, 0, LIFETIME_SECONDS + TOLERANCE_SECONDS])
def test_a_signature_holds_for_a_minute_and_what_clocks_differ_by(off: float):
    """Both ends belong to it."""
    require_fresh(verified(signed()), NOW + off)


@pytest.mark.parametrize("off", [-TOLERANCE_SECONDS - 1, LIFETIME_SECONDS + TOLERANCE_SECONDS + 1])
def test_clocks_that_differ_are_told_with_both_times_and_what_to_do(off: float):
    """An administrator reads which clock says what."""
    with pytest.raises(ClockSkewed, match=r"signed at 2023-11-14 22:13:20 UTC by the clock of ada.*it is 2023.*NTP"):
        require_fresh(verified(signed()), NOW + off)


@pytest.mark.parametrize("expires", [NOW + 61, NOW - 1])
def test_a_signature_that_holds_for_longer_is_refused(expires: int):
    """So that a nonce may be forgotten after a while."""
    honest = verified(_sign_by_hand(WHOLE, HONEST.replace(f"expires={NOW + 60}", f"expires={expires}"), BASE))
    with pytest.raises(RequestSignatureInvalid, match="no longer"):
        require_fresh(honest, NOW)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["Signature-Input", "Signature", "Content-Digest", "Content-Length", "FedCoLLM-Federation"]
            ),
            st.one_of(st.text(max_size=60), st.sampled_from([HONEST, WHOLE, f"fedcollm=({WHOLE});{HONEST}"])),
        ),
        max_size=6,
    ),
    st.text(max_size=20),
)
def test_no_fields_make_anything_but_a_refusal(lines: list[tuple[str, str]], target: str):
    """Whatever comes, the verifier says no, in the form of the protocol."""
    with pytest.raises(ProtocolError):
        verify_request("GET", target, lines, name="ada", key=ADA.public)


def resumed(method: str, **bent: str) -> dict[str, str]:
    """Return the fields of an honest request that goes on with an upload; what is bent is not signed so."""
    besides = {"HEAD": offset_fields(digest_of(b"whole")), "PATCH": append_fields(digest_of(b"whole"), 7)}[method]
    digest, length = digest_of(BODY), {"Content-Length": str(len(BODY))}
    signature = sign_request(
        *("ada", ADA, "clinics"),
        method=method,
        target=TARGET,
        digest=digest,
        length=len(BODY),
        now=NOW,
        nonce=NONCE,
        besides=besides,
    )
    return {"Content-Digest": to_field(digest), **length, **besides, **signature, **bent}


@pytest.mark.parametrize("method", ["HEAD", "PATCH"])
def test_a_request_that_goes_on_with_an_upload_is_signed_with_what_it_goes_on_with(method: str):
    """Nobody on the way makes it one of another blob, or from another byte on."""
    assert verified(resumed(method), method).name == "ada"
    besides = {"Repr-Digest": to_field(digest_of(b"other")), "Upload-Offset": "8", "Upload-Complete": "?0"}
    for field, value in besides.items():
        if field in resumed(method):
            with pytest.raises(RequestSignatureInvalid):
                verified(resumed(method, **{field: value}), method)
            with pytest.raises(RequestSignatureInvalid, match="once"):
                verify_request(
                    *(method, TARGET, [*resumed(method).items(), (field.lower(), value)]), name="ada", key=ADA.public
                )


@pytest.mark.parametrize("method", ["HEAD", "PATCH"])
def test_a_request_that_does_not_sign_what_it_goes_on_with_is_refused(method: str):
    """A signature over less is none, whatever its fields say."""
    fields = resumed(method) | {name: value for name, value in signed("PUT").items() if name.startswith("Signature")}
    with pytest.raises(RequestSignatureInvalid):
        verified(fields, method)
