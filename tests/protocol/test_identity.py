"""Keys and signed documents (docs/protocol.md, "Identity")."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import SignatureInvalid
from shared.protocol.identity import (
    IdentityKey,
    Signed,
    fingerprint,
    from_text,
    require_signature,
    require_signatures,
    to_text,
)
from shared.protocol.messages import CancelRequest

DOCUMENT = CancelRequest(reason="enough")


def test_a_signature_holds_for_its_document_kind_and_key_alone() -> None:
    """Another document, another kind and another key are each refused."""
    key = IdentityKey.generate()
    signature = key.sign("cancel", DOCUMENT)
    require_signature(key.public, "cancel", DOCUMENT, signature, what="it")
    for other, kind, document in (
        (key.public, "cancel", CancelRequest(reason="more")),
        (key.public, "start", DOCUMENT),
        (IdentityKey.generate().public, "cancel", DOCUMENT),
    ):
        with pytest.raises(SignatureInvalid, match=fingerprint(other)):
            require_signature(other, kind, document, signature, what="it")


@pytest.mark.parametrize("signature", ["", "A" * 86, "not base64 at all", "A" * 85])
def test_what_is_no_signature_is_refused_like_a_wrong_one(signature: str) -> None:
    """Garbage is no crash."""
    with pytest.raises(SignatureInvalid):
        require_signature(IdentityKey.generate().public, "cancel", DOCUMENT, signature, what="it")


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 20])
def test_of_several_signatures_each_one_counts(count: int) -> None:
    """Whichever is wrong, and the first of two wrong ones is named; nothing is wrong with none at all."""
    key = IdentityKey.generate()
    good = [Signed(key.public, DOCUMENT, key.sign("cancel", DOCUMENT), f"number {place}") for place in range(count)]
    require_signatures("cancel", good)
    require_signatures("cancel", [])
    for place in range(count):
        wrong = [*good[:place], *(one._replace(signature="A" * 86) for one in good[place:])]
        with pytest.raises(SignatureInvalid, match=f"number {place} does not have"):
            require_signatures("cancel", wrong)
        with pytest.raises(SignatureInvalid, match=f"number {place} does not have"):
            require_signatures("cancel", [*good[:place], wrong[place], *good[place + 1 :]])


def test_a_key_comes_back_from_its_secret() -> None:
    """The 32 bytes are all that must be kept."""
    key = IdentityKey.generate()
    assert IdentityKey(key.secret).public == key.public
    assert key.private.sign(b"x") == IdentityKey(key.secret).private.sign(b"x")


@given(st.binary(max_size=100))
def test_bytes_come_back_from_their_text(content: bytes) -> None:
    """Base64 for URLs loses nothing, and needs no padding."""
    assert from_text(to_text(content)) == content
    assert "=" not in to_text(content)


@pytest.mark.parametrize("text", ["AB", "A", "A+/A", "AAA=", "AA\n", "ää"])
def test_no_two_texts_are_of_the_same_bytes(text: str) -> None:
    """A text that was not written by ``to_text`` is none: its last bits, its letters and its padding are fixed."""
    with pytest.raises(ValueError, match=r"."):
        from_text(text)
