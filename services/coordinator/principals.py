"""Who asks: every request has a principal, and every route says which roles may use it.

Shared tokens for now: a file names each principal, its role and its token; requests carry the token as a Bearer
credential. Only digests of tokens stay in memory.
"""

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError, model_validator

from shared.access import refusal
from shared.credentials import Token
from shared.errors import ConfigurationError, NotAllowed, NotAuthenticated
from shared.protocol.names import PrincipalName
from shared.protocol.terms import FROZEN


class Role(StrEnum):
    """What a principal may do; ANYONE needs no credential."""

    ANYONE = "anyone"
    OPERATOR = "operator"
    VIEWER = "viewer"
    WORKER = "worker"
    AGENT = "agent"


@dataclass(frozen=True)
class Principal:
    """Who asks, by the name that the audit log shows."""

    name: str
    role: Role


NOBODY = Principal("nobody", Role.ANYONE)


class TokenEntry(BaseModel):
    """One principal of the file."""

    role: Role
    token: Annotated[Token, Field(min_length=16)]
    model_config = FROZEN


class PrincipalsFile(RootModel[dict[PrincipalName, TokenEntry]]):
    """The principals file: principal's name -> role and token."""

    model_config = ConfigDict(hide_input_in_errors=True)  # errors end in logs, and tokens must not

    @model_validator(mode="after")
    def _one_token_each(self) -> Self:
        names: dict[str, str] = {}
        for name, entry in self.root.items():
            first = names.setdefault(entry.token, name)
            if first != name:
                raise ValueError(f"{first} and {name} have the same token: give each its own")
        return self


def new_principals(agents: Iterable[str]) -> PrincipalsFile:
    """Return a file with a fresh token for ``operator``, ``worker`` and each agent."""
    roles = {"operator": Role.OPERATOR, "worker": Role.WORKER} | dict.fromkeys(agents, Role.AGENT)
    return PrincipalsFile(
        {name: TokenEntry(role=role, token=secrets.token_urlsafe(32)) for name, role in roles.items()}
    )


class Principals:
    """The principals that a coordinator knows."""

    def __init__(self, entries: Mapping[str, TokenEntry]) -> None:
        self._by_digest = {_digest(entry.token): Principal(name, entry.role) for name, entry in entries.items()}

    def identify(self, authorization: str | None, roles: tuple[Role, ...]) -> Principal:
        """Return who sent this Authorization field, if one of ``roles`` may do what is asked.

        Raises:
            NotAuthenticated: there is no credential, or nobody has it.
            NotAllowed: the principal has another role.
        """
        if Role.ANYONE in roles:
            return NOBODY
        scheme, _, token = (authorization or "").partition(" ")
        # Looking up a digest takes the same time whatever the token is.
        principal = self._by_digest.get(_digest(token)) if scheme.lower() == "bearer" else None
        if principal is None:
            raise NotAuthenticated("the request carries no token that this coordinator knows: send 'Bearer <token>'")
        if principal.role not in roles:
            allowed = " or ".join(sorted(roles))
            raise NotAllowed(f"{principal.name} is known as {principal.role}, and this is for {allowed}")
        return principal


def read_principals(path: Path) -> Principals:
    """Read the principals' file; errors are those of ``read_entries``."""
    return Principals(read_entries(path))


def read_entries(path: Path) -> Mapping[str, TokenEntry]:
    """Return whom the principals' file names, with role and token.

    Raises:
        ConfigurationError: it is not there or not what it should be.
    """
    try:
        return PrincipalsFile.model_validate(json.loads(path.read_bytes(), object_pairs_hook=_once_each)).root
    except OSError as error:
        raise ConfigurationError(f"the principals file: {refusal(path, error)}") from None
    except (ValueError, ValidationError) as error:
        raise ConfigurationError(
            f"the principals file {path} must be JSON, a name for each principal, with its role and its token: {error}"
        ) from None


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object that names nothing twice: of two entries the later would win, and nobody be told."""
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name!r} occurs twice")
    return dict(pairs)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
