"""Who asks: what each request carries so that the other side knows."""

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol, Self, TypeAlias

from pydantic import AfterValidator, TypeAdapter

from shared.access import refusal
from shared.egress import Egress
from shared.errors import ConfigurationError
from shared.protocol.identity import IdentityKey
from shared.protocol.request_signatures import sign_request


def _token(text: str) -> str:
    text = text.strip()
    if not (text.isascii() and text.isprintable()):
        raise ValueError("a token is one line of printable ASCII: compare it with the coordinator's token file")
    return text


# For settings: a token that no request could carry is refused at start, under the setting's name.
Token: TypeAlias = Annotated[str, AfterValidator(_token)]


class Authenticator(Protocol):
    """Says who asks."""

    def fields(self, request: Egress) -> Mapping[str, str]:
        """Return the header fields that authenticate this request."""
        ...


@dataclass(frozen=True)
class BearerToken:
    """A token, of an operator, a viewer or a worker."""

    token: str

    @classmethod
    def read(cls, file: Path) -> Self:
        """Return the token that is all that ``file`` holds, or raise ConfigurationError."""
        try:
            return cls(TypeAdapter(Token).validate_python(file.read_text(encoding="ascii")))
        except OSError as error:
            raise ConfigurationError(f"the token file: {refusal(file, error)}") from None
        except ValueError:  # not `from` it: it may quote the token
            raise ConfigurationError(
                f"the token file {file} must hold one line of printable ASCII, and nothing else: "
                "compare it with what the operator gave you"
            ) from None

    def fields(self, request: Egress) -> Mapping[str, str]:  # noqa: ARG002 - a token is the same for all
        """Return the Authorization field, or none where there is no token."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


def new_nonce() -> str:
    """Return 128 random bits as text: no other request has them."""
    return secrets.token_urlsafe(16)


@dataclass(frozen=True)
class SignedRequests:
    """The signature of an agent over each request, and over each time that it is sent (docs/protocol.md, "Requests").

    ``clock`` gives the seconds since 1970.
    """

    name: str
    key: IdentityKey
    federation: str
    clock: Callable[[], float] = time.time
    nonce: Callable[[], str] = new_nonce

    def fields(self, request: Egress) -> Mapping[str, str]:
        """Return the signature, and the federation that the request is for."""
        return sign_request(
            self.name,
            self.key,
            self.federation,
            method=request.method,
            target=request.target,
            digest=request.digest,
            length=request.bytes,
            now=self.clock(),
            nonce=self.nonce(),
            besides=request.fields,
        )
