"""Requests that are signed whatever is in them, honest or bent: what a test has changed is what is signed."""

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass

import httpx

from shared.credentials import new_nonce
from shared.errors import MessageInvalid
from shared.protocol.digests import DIGEST_FIELD, digest_of, from_field, to_field
from shared.protocol.identity import IdentityKey
from shared.protocol.request_signatures import LENGTH_FIELD, sign_request
from shared.protocol.resumption import SIGNED_BESIDES


@dataclass
class Signing(httpx.Auth):
    """Signs each request of a plain HTTP client as an agent does, over the digest and length that it announces."""

    name: str
    key: IdentityKey
    federation: str
    clock: Callable[[], float]
    nonce: Callable[[], str] = new_nonce

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Add the signature; a body whose digest is announced is not read for it."""
        if DIGEST_FIELD not in request.headers:
            request.headers[DIGEST_FIELD] = to_field(digest_of(await request.aread()))
        request.headers.update(self.sign(request.method, request.url.raw_path.decode(), request.headers))
        yield request

    def sign(self, method: str, target: str, fields: Mapping[str, str]) -> dict[str, str]:
        """Return the fields of a signature; where no honest client announces as much, of one over something else."""
        length = fields.get(LENGTH_FIELD, "")
        try:
            digest = from_field(fields[DIGEST_FIELD])
        except MessageInvalid:
            digest = digest_of(b"something else")
        return sign_request(
            self.name,
            self.key,
            self.federation,
            method=method,
            target=target,
            digest=digest,
            length=int(length) if length.isdecimal() and len(length) < 1000 else 0,
            now=self.clock(),
            nonce=self.nonce(),
            besides={field: fields.get(field, "none") for field in SIGNED_BESIDES.get(method, ())},
        )
