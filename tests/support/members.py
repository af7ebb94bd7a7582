"""How an agent of a federation in memory becomes a member, step by step."""

from bench.federation import FEDERATION, key_of
from services.coordinator.cli.signing import Signer
from services.coordinator.context import Context
from shared.protocol.identity import IdentityKey
from shared.protocol.membership import (
    ENROLMENT,
    Enrolment,
    EnrolmentRequest,
    Invitation,
    InvitationRequest,
    MemberView,
    SignedCertificate,
    token_digest,
)

OPERATOR = key_of("operator")
FAR = 2_000_000_000
# Who is no member yet of the coordinators that tests open.
NEW = "dora"


# What an agent's settings say of who it is; its key is that of the federation in memory.
IDENTITY = {
    "name": "ada",
    "federation": FEDERATION,
    "operator_key": OPERATOR.public,
    "identity_key_file": "agent.key",
}


def invited(context: Context, name: str = NEW, *, expires_at: int = FAR) -> str:
    """Invite an agent and return the token."""
    return invitation_of(context, name, expires_at=expires_at).token


def invitation_of(
    context: Context,
    name: str = NEW,
    *,
    coordinator_url: str = "http://127.0.0.1:1",
    expires_at: int = FAR,
    ca_certificate: str | None = None,
) -> Invitation:
    """Invite an agent and return what it is given."""
    made = Signer(FEDERATION, OPERATOR).invite(
        name, coordinator_url=coordinator_url, expires_at=expires_at, ca_certificate=ca_certificate
    )
    context.membership.invite(name, made.told(), actor="operator")
    return made


def invitation(
    token: str, *, expires_at: int = FAR, federation: str = FEDERATION, operator: IdentityKey = OPERATOR
) -> InvitationRequest:
    """Return what an operator tells the coordinator of an invitation."""
    return InvitationRequest(
        federation=federation, operator_key=operator.public, token_digest=token_digest(token), expires_at=expires_at
    )


def enrolment(
    token: str,
    key: IdentityKey,
    name: str = NEW,
    *,
    federation: str = FEDERATION,
    prover: IdentityKey | None = None,
    proven: str | None = None,
) -> EnrolmentRequest:
    """Return an enrolment, with the proof of another key, or over another token, where that is wanted."""
    signed = Enrolment(federation=federation, name=name, key=key.public, token_digest=token_digest(proven or token))
    return EnrolmentRequest(name=name, token=token, key=key.public, proof=(prover or key).sign(ENROLMENT, signed))


def certificate(
    name: str,
    key: str,
    *,
    not_after: int = FAR,
    federation: str = FEDERATION,
    operator: IdentityKey = OPERATOR,
) -> SignedCertificate:
    """Return a membership certificate."""
    return Signer(federation, operator).certify(name, key, not_after=not_after)


def pending(context: Context, name: str = NEW) -> IdentityKey:
    """Invite and enrol an agent, and return its key."""
    key = IdentityKey.generate()
    context.membership.enrol(enrolment(invited(context, name), key, name))
    return key


def member(context: Context, name: str) -> MemberView:
    """Return an agent as its operator sees it."""
    return next(one for one in context.membership.members().agents if one.name == name)
