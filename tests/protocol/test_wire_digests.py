import base64
import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import MessageInvalid
from shared.protocol.digests import DIGEST_PATTERN, digest_of, from_field, to_field


@given(st.binary(max_size=100))
def test_a_digest_travels_as_json_and_as_a_field(content: bytes) -> None:
    """The two spellings of a digest name the same SHA-256."""
    digest = digest_of(content)
    assert re.fullmatch(DIGEST_PATTERN, digest)
    assert digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert from_field(to_field(digest)) == digest


def test_the_field_is_that_of_the_rfc() -> None:
    """The example of RFC 9530, appendix A, comes out to the letter."""
    assert to_field(digest_of(b'{"hello": "world"}\n')) == "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"


@pytest.mark.parametrize(
    "field",
    [
        "",
        "sha-256",
        "sha-256=",
        "sha-256=::",
        "sha-512=:" + base64.b64encode(bytes(64)).decode() + ":",
        "sha-256=:" + base64.b64encode(bytes(31)).decode() + ":",
        "sha-256=:" + base64.b64encode(bytes(33)).decode() + ":",
        "sha-256=:" + base64.b64encode(bytes(32)).decode(),
        to_field(digest_of(b"")) + ", " + to_field(digest_of(b"")),
        to_field(digest_of(b"")) + "\n",
        digest_of(b""),
    ],
)
def test_any_other_field_is_refused(field: str) -> None:
    """A sender that announces something else than one SHA-256 is told so."""
    with pytest.raises(MessageInvalid, match="digest field"):
        from_field(field)
