"""Who asks: what each request carries so that the other side knows."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol, Self, TypeAlias

from pydantic import AfterValidator, TypeAdapter

from shared.access import refusal
from shared.egress import Egress
from shared.errors import ConfigurationError


def _token(text: str) -> str:
    text = text.strip()
    if not (text.isascii() and text.isprintable()):
        raise ValueError("a token is one line of printable ASCII: compare it with the coordinator's token file")
    return text


# For settings: a token that no request could carry is refused at start, under the setting's name.
Token: TypeAlias = Annotated[str, AfterValidator(_token)]


class Authenticator(Protocol):
    """Says who asks; signatures over the request will be made here."""

    def fields(self, request: Egress) -> Mapping[str, str]:
        """Return the header fields that authenticate this request."""
        ...


@dataclass(frozen=True)
class BearerToken:
    """A shared token, for coordinators on loopback."""

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

    def fields(self, request: Egress) -> Mapping[str, str]:  # noqa: ARG002 - a signature will cover the request
        """Return the Authorization field, or none where there is no token."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}
