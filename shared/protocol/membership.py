"""Who is a member: the operator's key signs a certificate for each agent's key (docs/protocol.md, "Identity").

The coordinator hands certificates on and cannot make them, so that it cannot invent members of an attempt. An agent
comes to its certificate by an invitation, which the operator gives to its organisation by a way that both trust: the
one-time token in it lets a key in, and the rest is what the agent believes from then on.
"""

import hashlib
from enum import StrEnum
from typing import Annotated, TypeAlias

from pydantic import BaseModel, Field, StringConstraints

from shared.errors import CertificateExpired, FederationMismatch
from shared.protocol.digests import Digest
from shared.protocol.identity import IdentityKey, PublicKey, Signature, fingerprint, require_signature
from shared.protocol.names import PrincipalName, RoundNumber, RunId
from shared.protocol.terms import FROZEN

# Kinds of what is signed.
CERTIFICATE = "membership"
ENROLMENT = "enrolment"

TOKEN_BYTES = 32
# As it travels: base64 for URLs, without padding.
OneTimeToken: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{43}$")]
# Whole seconds since 1970, because floats have more than one form in JSON.
Moment: TypeAlias = Annotated[int, Field(ge=0, lt=2**53)]


# What an agent says of a run that it declines where a reason would tell of its data or its policy: that it takes no
# part in it, or that it does not hold its adapters either.
UNWILLING, UNUSABLE = "unwilling", "unusable"


class MemberState(StrEnum):
    """How far an agent has come: a token, a key, the operator's signature; or none of them any more."""

    INVITED = "invited"
    PENDING = "pending"
    APPROVED = "approved"
    REVOKED = "revoked"


class MembershipCertificate(BaseModel):
    """In this federation, the agent of this name has this key, until ``not_after``."""

    federation: PrincipalName
    name: PrincipalName
    key: PublicKey
    not_after: Moment
    model_config = FROZEN


class SignedCertificate(BaseModel):
    """A membership certificate, and the operator's signature over it."""

    certificate: MembershipCertificate
    signature: Signature
    model_config = FROZEN


class InvitationRequest(BaseModel):
    """What the coordinator is told of an invitation: never the token, and what it must agree with."""

    federation: PrincipalName
    operator_key: PublicKey
    token_digest: Digest
    expires_at: Moment
    model_config = FROZEN


class Enrolment(BaseModel):
    """What an agent signs with its new key to prove that it has it."""

    federation: PrincipalName
    name: PrincipalName
    key: PublicKey
    token_digest: Digest
    model_config = FROZEN


class EnrolmentRequest(BaseModel):
    """An agent brings its key: ``proof`` is its signature over the ``Enrolment``."""

    name: PrincipalName
    token: OneTimeToken
    key: PublicKey
    proof: Signature
    model_config = FROZEN


class Invitation(BaseModel):
    """The file that an operator gives to an organisation: the token is for one agent, once; whoever has it is let in.

    ``ca_certificate`` is in PEM, where the coordinator's certificate is of a CA of its own.
    """

    coordinator_url: Annotated[str, Field(max_length=2000)]
    federation: PrincipalName
    operator_key: PublicKey
    name: PrincipalName
    token: OneTimeToken
    expires_at: Moment
    ca_certificate: Annotated[str, Field(max_length=100_000)] | None = None
    model_config = FROZEN

    def told(self) -> InvitationRequest:
        """Return what the coordinator is told of it."""
        return InvitationRequest(
            federation=self.federation,
            operator_key=self.operator_key,
            token_digest=token_digest(self.token),
            expires_at=self.expires_at,
        )

    def enrolment(self, key: IdentityKey) -> EnrolmentRequest:
        """Return what whoever was invited brings to the coordinator: their key, and the proof that they have it."""
        proven = Enrolment(
            federation=self.federation, name=self.name, key=key.public, token_digest=token_digest(self.token)
        )
        proof = key.sign(ENROLMENT, proven)
        return EnrolmentRequest(name=self.name, token=self.token, key=key.public, proof=proof)


class RevocationRequest(BaseModel):
    """Why an operator revokes a member."""

    reason: Annotated[str, Field(min_length=1, max_length=400)]
    model_config = FROZEN


class RoundPlace(BaseModel):
    """A round of a run."""

    run_id: RunId
    round: RoundNumber
    model_config = FROZEN


class Heard(BaseModel):
    """What an agent has said when it last asked what is wanted: since then it works, waits, or is gone.

    ``declines`` are the runs that it will not or cannot work for, each with the code of the reason or a word for
    it; ``assigned`` is the round that it was given to train for, if it was. ``second_at`` is when another process with
    its key was refused last, within an hour, and ``left`` whether it has said since that it stops.
    """

    at: float
    version: str | None
    declines: dict[RunId, str]
    assigned: RoundPlace | None = None
    second_at: float | None = None
    left: bool = False
    model_config = FROZEN


class MemberView(BaseModel):
    """An agent as its operator sees it, and as it sees itself.

    ``heard`` is nothing where it has not asked for anything since the coordinator started.
    """

    name: PrincipalName
    state: MemberState
    key: PublicKey | None
    invitation_expires_at: Moment | None
    not_after: Moment | None
    changed_at: float
    heard: Heard | None = None
    model_config = FROZEN


class MemberList(BaseModel):
    """A page of the agents that were ever invited, by name; ask again with ``after`` = ``next``."""

    agents: tuple[MemberView, ...]
    next: PrincipalName | None = None
    model_config = FROZEN


def token_digest(token: str) -> str:
    """Return all that is kept of a one-time token: nothing slower, because nobody can guess 256 bits."""
    return f"sha256:{hashlib.sha256(token.encode()).hexdigest()}"


def check_code(*, federation: str, operator_key: str, name: str, key: str) -> str:
    """Return what an organisation reads to its operator: a short form of all that both must know of each other.

    Where an invitation was changed on its way, its agent goes by another operator's key and has another code, even if
    its own key has reached the coordinator.
    """
    return fingerprint(f"fedcollm-check-code-v1\n{federation}\n{operator_key}\n{name}\n{key}")


def require_member(
    signed: SignedCertificate, *, operator_key: str, federation: str, now: float
) -> MembershipCertificate:
    """Return the certificate of a member of ``federation``, by the key that its operator is known by.

    Raises:
        SignatureInvalid: the holder of ``operator_key`` has not signed it.
        FederationMismatch: it is of another federation.
        CertificateExpired: it was over before ``now`` (seconds since 1970).
    """
    certificate = signed.certificate
    what = f"the membership certificate of {certificate.name} ({fingerprint(certificate.key)})"
    require_signature(operator_key, CERTIFICATE, certificate, signed.signature, what=what)
    if certificate.federation != federation:
        raise FederationMismatch(f"{what} is of {certificate.federation}, and this is {federation}: do not use it")
    if certificate.not_after < now:
        raise CertificateExpired(f"{what} is over: its operator can approve the agent again")
    return certificate
