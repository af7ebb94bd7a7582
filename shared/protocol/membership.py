"""Who is a member: the operator's key signs a certificate for each agent's key (docs/protocol.md, "Identity").

The coordinator hands certificates on and cannot make them, so that it cannot invent members of an attempt.
"""

from typing import Annotated

from pydantic import BaseModel, Field

from shared.errors import CertificateExpired, FederationMismatch
from shared.protocol.identity import PublicKey, Signature, fingerprint, require_signature
from shared.protocol.names import PrincipalName
from shared.protocol.terms import FROZEN

CERTIFICATE = "membership"


class MembershipCertificate(BaseModel):
    """In this federation, the agent of this name has this key, until ``not_after`` (seconds since 1970)."""

    federation: PrincipalName
    name: PrincipalName
    key: PublicKey
    not_after: Annotated[int, Field(ge=0, lt=2**53)]
    model_config = FROZEN


class SignedCertificate(BaseModel):
    """A membership certificate, and the operator's signature over it."""

    certificate: MembershipCertificate
    signature: Signature
    model_config = FROZEN


def require_member(
    signed: SignedCertificate, *, operator_key: str, federation: str, now: float
) -> MembershipCertificate:
    """Return the certificate of a member of ``federation``, by the key that its operator is known by.

    Raises:
        FederationMismatch: it is of another federation.
        CertificateExpired: it was over before ``now`` (seconds since 1970).
        SignatureInvalid: the holder of ``operator_key`` has not signed it.
    """
    certificate = signed.certificate
    what = f"the membership certificate of {certificate.name} ({fingerprint(certificate.key)})"
    require_signature(operator_key, CERTIFICATE, certificate, signed.signature, what=what)
    if certificate.federation != federation:
        raise FederationMismatch(f"{what} is of {certificate.federation}, and this is {federation}: do not use it")
    if certificate.not_after < now:
        raise CertificateExpired(f"{what} is over: its operator can approve the agent again")
    return certificate
