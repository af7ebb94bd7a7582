import re
from pathlib import Path

import httpx
import pytest

from bench.federation import ManualClock
from shared.credentials import SignedRequests, new_nonce
from shared.errors import DigestMismatch
from shared.protocol.digests import digest_of
from shared.protocol.identity import IdentityKey
from shared.protocol.request_signatures import SignedRequest, verify_request
from tests.support.scripted import BLOB, DIGEST, HELLO, Coordinator, Greeting, Question, answer, blob_answer, talking_to

pytestmark = pytest.mark.anyio

KEY = IdentityKey(b"a" * 32)


def verified(request: httpx.Request) -> SignedRequest:
    """Verify a request as it arrives."""
    target = request.url.raw_path.decode()
    return verify_request(request.method, target, request.headers.items(), name="ada", key=KEY.public)


async def test_every_kind_of_request_is_signed_as_it_arrives(tmp_path: Path, clock: ManualClock) -> None:
    """Call, upload and download, with queries that have to be encoded: what was signed is what came."""
    (tmp_path / "blob").write_bytes(BLOB)
    other = Coordinator([HELLO, HELLO, HELLO, HELLO, blob_answer(BLOB)])
    odd = {"holding": "sha256:é & ü", "declined": ["b", "a~"], "wait_seconds": 2.5, "empty": ""}
    async with talking_to(other, authenticator=SignedRequests("ada", KEY, "clinics", clock)) as transport:
        await transport.call("GET", "/v1/x", Greeting, params=odd)
        await transport.call("POST", "/v1/x", Greeting, body=Question(name="ada"))
        await transport.call("POST", "/v1/x/start", Greeting)
        await transport.upload("/v1/y", tmp_path / "blob", Greeting, digest=DIGEST, params={"examples": 8})
        with pytest.raises(DigestMismatch):
            await transport.download(f"/v1/{DIGEST}", tmp_path / "other", digest=digest_of(b""))
    signed = [verified(request) for request in other.requests]
    assert [one.digest for one in signed] == [digest_of(body) for body in other.bodies]
    assert {(one.name, one.federation, one.created) for one in signed} == {("ada", "clinics", int(clock()))}
    assert not any("Authorization" in request.headers for request in other.requests)


async def test_a_retry_is_signed_anew(clock: ManualClock) -> None:
    """Each attempt has its own nonce and its own time: a repetition would be refused as one."""

    def nonce() -> str:
        clock.advance(7)
        return f"nonce-of-second-{clock():.0f}"

    other = Coordinator([answer(503, "store_busy"), httpx.ReadError("gone"), HELLO])
    async with talking_to(other, authenticator=SignedRequests("ada", KEY, "clinics", clock, nonce)) as transport:
        await transport.call("POST", "/v1/x", Greeting, body=Question(name="ada"))
    first, second, third = (verified(request) for request in other.requests)
    assert len({first.nonce, second.nonce, third.nonce}) == 3
    assert second.created - first.created == third.created - second.created == 7


def test_nonces_are_random_and_of_the_form_that_the_protocol_wants() -> None:
    """128 bits, in characters that need no quoting."""
    nonces = {new_nonce() for _ in range(100)}
    assert len(nonces) == 100
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{22}", nonce) for nonce in nonces)
