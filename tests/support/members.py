"""How an agent of a federation in memory becomes a member, step by step."""

import secrets

from bench.federation import FEDERATION, key_of
from services.coordinator.context import Context
from shared.protocol.identity import IdentityKey
from shared.protocol.membership import (
    CERTIFICATE,
    ENROLMENT,
    Enrolment,
    EnrolmentRequest,
    InvitationRequest,
    MembershipCertificate,
    MemberView,
    SignedCertificate,
    token_digest,
)

OPERATOR = key_of("operator")
FAR = 2_000_000_000


def invited(context: Context, name: str = "ada", *, expires_at: int = FAR) -> str:
    """Invite an agent and return the token."""
    token = secrets.token_urlsafe(32)
    context.membership.invite(name, invitation(token, expires_at=expires_at), actor="operator")
    return token


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
    name: str = "ada",
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
    made = MembershipCertificate(federation=federation, name=name, key=key, not_after=not_after)
    return SignedCertificate(certificate=made, signature=operator.sign(CERTIFICATE, made))


def pending(context: Context, name: str = "ada") -> IdentityKey:
    """Invite and enrol an agent, and return its key."""
    key = IdentityKey.generate()
    context.membership.enrol(enrolment(invited(context, name), key, name))
    return key


def member(context: Context, name: str) -> MemberView:
    """Return an agent as its operator sees it."""
    return next(one for one in context.membership.members() if one.name == name)
