"""Who asks: every request has a principal, and every route says which roles may use it."""

from dataclasses import dataclass
from enum import StrEnum

from shared.errors import NotAllowed


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

    def require(self, roles: tuple[Role, ...]) -> None:
        """Raise NotAllowed unless the principal has one of these roles."""
        if self.role not in roles:
            allowed = " or ".join(sorted(roles))
            raise NotAllowed(f"{self.name} is known as {self.role}, and this is for {allowed}")


NOBODY = Principal("nobody", Role.ANYONE)
