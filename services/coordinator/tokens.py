"""Tokens of operators, viewers and workers: what is kept of them, and whose one is.

A file names each principal with its role, the SHA-256 of its token and when that ends. Tokens have 256 random bits, so
a plain hash is enough; they begin with ``fct_``, so that who finds one knows what it is. ``fedcollm tokens`` changes
the file, and a coordinator that runs notices.
"""

import hashlib
import json
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Protocol, Self, TypeAlias

import structlog
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    PlainSerializer,
    RootModel,
    StringConstraints,
    ValidationError,
    model_validator,
)

from services.coordinator.principals import Principal, Role
from shared.access import refusal
from shared.errors import ConfigurationError, NotAuthenticated
from shared.protocol.names import PrincipalName
from shared.protocol.terms import FROZEN

PREFIX = "fct_"
USUAL_DAYS = 365

# Agents have none: they sign.
TOKEN_ROLES = (Role.OPERATOR, Role.VIEWER, Role.WORKER)

log = structlog.get_logger()


def _has_tokens(role: Role) -> Role:
    if role not in TOKEN_ROLES:
        raise ValueError(f"a token is of one of {', '.join(TOKEN_ROLES)}")
    return role


TokenRole: TypeAlias = Annotated[Role, AfterValidator(_has_tokens)]


class TokenEntry(BaseModel):
    """One principal of the file, and what is kept of its token."""

    role: TokenRole
    token_sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    not_after: Annotated[AwareDatetime, PlainSerializer(lambda time: time.isoformat(timespec="seconds"))]
    model_config = FROZEN

    @classmethod
    def of(cls, token: str, role: TokenRole, *, not_after: datetime) -> Self:
        """Return what is kept of a token."""
        return cls(role=role, token_sha256=sha256(token), not_after=not_after)


class TokensFile(RootModel[dict[PrincipalName, TokenEntry]]):
    """The principals file: principal's name -> role, hash of its token, and when that ends."""

    model_config = ConfigDict(hide_input_in_errors=True)  # who wrote a token where its hash belongs does not read it

    @model_validator(mode="after")
    def _one_token_each(self) -> Self:
        names: dict[str, str] = {}
        for name, entry in self.root.items():
            first = names.setdefault(entry.token_sha256, name)
            if first != name:
                raise ValueError(f"{first} and {name} have the same token: give each its own")
        return self


def issue(role: TokenRole, *, days: int = USUAL_DAYS) -> tuple[str, TokenEntry]:
    """Return a new token, which is shown once, and what is kept of it."""
    token = PREFIX + secrets.token_urlsafe(32)
    return token, TokenEntry.of(token, role, not_after=datetime.now(UTC) + timedelta(days=days))


def issue_all(roles: Mapping[str, TokenRole]) -> tuple[dict[str, str], TokensFile]:
    """Return a new token for each of these principals, by name, and the file that knows them."""
    issued = {name: issue(role) for name, role in roles.items()}
    return (
        {name: token for name, (token, _) in issued.items()},
        TokensFile({name: entry for name, (_, entry) in issued.items()}),
    )


class Tokens(Protocol):
    """The tokens that a coordinator knows."""

    def find(self, token: str, now: float) -> Principal:
        """Return whose token this is at ``now`` (seconds since 1970).

        Raises:
            NotAuthenticated: nobody's, or nobody's any more.
        """
        ...

    def entries(self) -> Mapping[str, TokenEntry]:
        """Return whose tokens are known now, by name."""
        ...


class KnownTokens:
    """Tokens of which the hashes are in memory."""

    def __init__(self, entries: Mapping[str, TokenEntry]) -> None:
        self._entries = entries
        self._by_hash = {
            entry.token_sha256: (Principal(name, entry.role), entry.not_after.timestamp())
            for name, entry in entries.items()
        }

    def find(self, token: str, now: float) -> Principal:
        """Return whose token this is; see ``Tokens``."""
        # Looking a hash up takes the same time whatever the token is.
        principal, ends = self._by_hash.get(sha256(token), (None, 0.0))
        if principal is None:
            raise NotAuthenticated("the request carries no token that this coordinator knows: send 'Bearer <token>'")
        if now > ends:
            day = datetime.fromtimestamp(ends, UTC).date()
            raise NotAuthenticated(
                f"the token of {principal.name} has ended on {day}: have the operator issue another (fedcollm tokens)"
            )
        return principal

    def entries(self) -> Mapping[str, TokenEntry]:
        """Return whose tokens these are; see ``Tokens``."""
        return self._entries


class TokenFile:
    """The tokens of a file, which is read again when it has changed."""

    def __init__(self, path: Path) -> None:
        """Read the file; errors are those of ``read_entries``."""
        self._path = path
        self._read = self._stamp()
        self._tokens = KnownTokens(read_entries(path))

    def find(self, token: str, now: float) -> Principal:
        """Return whose token this is; see ``Tokens``."""
        return self._newest().find(token, now)

    def entries(self) -> Mapping[str, TokenEntry]:
        """Return whom the file names; see ``Tokens``."""
        return self._newest().entries()

    def _newest(self) -> KnownTokens:
        stamp = self._stamp()
        if stamp != self._read:
            try:
                self._tokens = KnownTokens(read_entries(self._path))
                log.info("tokens.read", file=str(self._path))
            except ConfigurationError as error:  # half of an edit: the next change is read again
                log.warning("tokens.kept", detail=f"{error}; the tokens that were known before stay so")
            self._read = stamp  # last: two threads may read a change, and neither goes on with what was before
        return self._tokens

    def _stamp(self) -> tuple[int, int, int] | None:
        """Return what changes with the file; a file that another was renamed to has another inode."""
        try:
            state = self._path.stat()
        except OSError:
            return None
        return state.st_mtime_ns, state.st_size, state.st_ino


def read_entries(path: Path) -> Mapping[str, TokenEntry]:
    """Return whom the principals' file names, and what it keeps of their tokens.

    Raises:
        ConfigurationError: it is not there or not what it should be.
    """
    try:
        return TokensFile.model_validate(json.loads(path.read_bytes(), object_pairs_hook=_once_each)).root
    except OSError as error:
        raise ConfigurationError(f"the principals file: {refusal(path, error)}") from None
    except (ValueError, ValidationError) as error:
        raise ConfigurationError(
            f"the principals file {path} must be JSON, a name for each principal, with its role, the SHA-256 of its "
            f"token and when that ends, as `fedcollm tokens` writes it: {error}"
        ) from None


def sha256(token: str) -> str:
    """Return what is kept of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object that names nothing twice: of two entries the later would win, and nobody be told."""
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name!r} occurs twice")
    return dict(pairs)
