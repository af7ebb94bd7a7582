"""Who is a member (docs/protocol.md, "Identity")."""

import re

import pytest
from pydantic import ValidationError

from shared.errors import CertificateExpired, FederationMismatch, SignatureInvalid
from shared.protocol.identity import IdentityKey
from shared.protocol.membership import CERTIFICATE, MembershipCertificate, SignedCertificate, check_code, require_member

OPERATOR = IdentityKey.generate()
CERTIFICATE_OF_ADA = MembershipCertificate(
    federation="clinics", name="ada", key=IdentityKey.generate().public, not_after=1000
)


def signed(
    certificate: MembershipCertificate, by: IdentityKey = OPERATOR, kind: str = CERTIFICATE
) -> SignedCertificate:
    """Return a certificate with a signature of this key's."""
    return SignedCertificate(certificate=certificate, signature=by.sign(kind, certificate))


def test_a_member_is_who_the_operator_signed_for() -> None:
    """The certificate comes back, up to its last second."""
    found = require_member(signed(CERTIFICATE_OF_ADA), operator_key=OPERATOR.public, federation="clinics", now=1000.0)
    assert found == CERTIFICATE_OF_ADA


def test_a_certificate_of_another_federation_is_refused() -> None:
    """One operator's key may serve two federations, and a member of one is none of the other."""
    with pytest.raises(FederationMismatch, match="is of clinics, and this is banks"):
        require_member(signed(CERTIFICATE_OF_ADA), operator_key=OPERATOR.public, federation="banks", now=0.0)


def test_a_certificate_that_is_over_is_refused() -> None:
    """After not_after nobody is a member any more."""
    with pytest.raises(CertificateExpired, match="ada"):
        require_member(signed(CERTIFICATE_OF_ADA), operator_key=OPERATOR.public, federation="clinics", now=1000.5)


@pytest.mark.parametrize("change", [{"name": "eve"}, {"key": OPERATOR.public}, {"not_after": 2000}])
def test_a_signature_is_for_one_name_one_key_and_one_time(change: dict[str, object]) -> None:
    """Whoever changes any of them has no certificate."""
    other = signed(CERTIFICATE_OF_ADA).model_copy(update={"certificate": CERTIFICATE_OF_ADA.model_copy(update=change)})
    with pytest.raises(SignatureInvalid):
        require_member(other, operator_key=OPERATOR.public, federation="clinics", now=0.0)


def test_nobody_elses_signature_makes_a_member() -> None:
    """Another key's, or the operator's over another kind of document, is refused."""
    for other in (signed(CERTIFICATE_OF_ADA, by=IdentityKey.generate()), signed(CERTIFICATE_OF_ADA, kind="manifest")):
        with pytest.raises(SignatureInvalid):
            require_member(other, operator_key=OPERATOR.public, federation="clinics", now=0.0)


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "a" * 65, "é"])
def test_names_are_short_and_plain(name: str) -> None:
    """A name goes into paths, logs and signatures."""
    with pytest.raises(ValidationError):
        MembershipCertificate(federation="clinics", name=name, key=OPERATOR.public, not_after=1)


def test_a_check_code_is_of_all_that_both_sides_must_know() -> None:
    """Whose invitation named another operator, federation or agent reads another code, whatever its key is."""
    true = {"federation": "clinics", "operator_key": OPERATOR.public, "name": "ada", "key": CERTIFICATE_OF_ADA.key}
    bent = [true | {what: f"{value}x"} for what, value in true.items()]
    assert re.fullmatch(r"[0-9a-f]{4}(-[0-9a-f]{4}){3}", check_code(**true))
    assert len({check_code(**each) for each in (true, *bent)}) == 5
