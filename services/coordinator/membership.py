"""Who belongs to the federation: agents are invited, enrol with a key, are approved and revoked.

The coordinator makes no member: what counts is the certificate that the operator's key has signed, elsewhere.
"""

from dataclasses import replace

from services.coordinator.lifecycle import MOST_A_PAGE
from services.coordinator.ports import Clock, Store
from services.coordinator.presence import Presence
from services.coordinator.principals import Role
from services.coordinator.progress import SYSTEM
from services.coordinator.records import Member
from services.coordinator.tokens import Tokens
from shared.errors import FederationMismatch, InvitationInvalid, MemberConflict, NotFound
from shared.protocol.identity import fingerprint, require_signature
from shared.protocol.membership import (
    ENROLMENT,
    Enrolment,
    EnrolmentRequest,
    InvitationRequest,
    MemberList,
    MemberState,
    MemberView,
    SignedCertificate,
    require_member,
    token_digest,
)

# Whom the audit log calls so is no agent. Nor is who has a token; a token for an agent's name ``Admission`` refuses.
RESERVED = frozenset({SYSTEM, *Role})


class Membership:
    """The members of one federation, whose operator is known by ``operator_key``."""

    def __init__(
        self, store: Store, tokens: Tokens, presence: Presence, clock: Clock, *, federation: str, operator_key: str
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._presence = presence
        self._clock = clock
        self._federation = federation
        self._operator_key = operator_key

    def members(self, *, after: str = "", limit: int = MOST_A_PAGE) -> MemberList:
        """Return a page of everybody who was ever invited, by name: the names after ``after``."""
        with self._store.read() as tx:
            found = tx.members.page(after=after, limit=limit + 1)
        page = found[:limit]
        views = (_view(member).model_copy(update={"heard": self._presence.agent(member.name)}) for member in page)
        return MemberList(agents=tuple(views), next=page[-1].name if len(found) > limit else None)

    def invite(self, name: str, request: InvitationRequest, *, actor: str) -> MemberView:
        """Let whoever brings the token enrol as ``name``, once; an invitation that was not used gives way to a new one.

        Raises:
            FederationMismatch: the inviter is of another federation, or has another operator's key.
            MemberConflict: an agent has enrolled under this name, and was not revoked; or no agent may be called so.
        """
        if name in RESERVED or name in self._tokens.entries():
            raise MemberConflict(f"{name} is what the audit log calls somebody else: choose another name for the agent")
        if (request.federation, request.operator_key) != (self._federation, self._operator_key):
            raise FederationMismatch(
                f"the invitation is to {request.federation}, by the key {fingerprint(request.operator_key)}; this is "
                f"{self._federation}, operated by {fingerprint(self._operator_key)}: compare the operator's federation "
                "and key_file with the coordinator's federation and operator_key"
            )
        now = self._clock()
        invited = Member(
            name,
            created_at=now,
            changed_at=now,
            invitation=request.token_digest,
            invitation_expires_at=request.expires_at,
        )
        with self._store.write() as tx:
            try:
                member = tx.members.get(name)
            except NotFound:
                tx.members.insert(invited, actor=actor)
                return _view(invited)
            if member.invitation == invited.invitation:
                return _view(member)
            if member.state not in {MemberState.INVITED, MemberState.REVOKED}:
                raise MemberConflict(
                    f"{name} is {member.state}, with the key {_fingerprint(member)}: revoke it before it is invited "
                    "again, or invite another name"
                )
            again = replace(invited, created_at=member.created_at)
            return _view(tx.members.change(member, again, actor=actor))

    def enrol(self, request: EnrolmentRequest) -> MemberView:
        """Take the key of who was invited; the same key again changes nothing.

        Raises:
            SignatureInvalid: whoever asks has not proven that they have the key.
            InvitationInvalid: the token is nobody's, is over, or has let another key in.
            MemberConflict: another agent has this key.
        """
        digest = token_digest(request.token)
        proven = Enrolment(federation=self._federation, name=request.name, key=request.key, token_digest=digest)
        require_signature(request.key, ENROLMENT, proven, request.proof, what=f"the enrolment of {request.name}")
        with self._store.write() as tx:
            # Finding a digest takes the same time whatever the token is.
            member = tx.members.by_invitation(digest)
            if member is None or member.name != request.name:
                raise InvitationInvalid(
                    f"no invitation of {request.name} has this token: ask the operator for a new one"
                )
            if member.key == request.key:
                return _view(member)
            if member.key is not None:
                raise InvitationInvalid(
                    f"the invitation of {member.name} was used already, with the key {_fingerprint(member)}: if not by "
                    "you, tell the operator at once"
                )
            if member.invitation_expires_at is None or member.invitation_expires_at < self._clock():
                raise InvitationInvalid(f"the invitation of {member.name} is over: ask the operator for a new one")
            for other in tx.members.all():
                if other.key == request.key:
                    raise MemberConflict(
                        f"{other.name} has the key {_fingerprint(other)}: make another for {member.name}"
                    )
            enrolled = replace(member, state=MemberState.PENDING, key=request.key)
            return _view(tx.members.change(member, enrolled, actor=member.name))

    def approve(self, name: str, signed: SignedCertificate, *, actor: str) -> MemberView:
        """Make an agent a member by its certificate, or a member for longer; the same again changes nothing.

        Raises:
            NotFound: nobody was invited under this name.
            SignatureInvalid, FederationMismatch, CertificateExpired: it is no certificate of this federation's.
            MemberConflict: it is another agent's or key's, or the agent has not enrolled, or was revoked.
        """
        certificate = require_member(
            signed, operator_key=self._operator_key, federation=self._federation, now=self._clock()
        )
        with self._store.write() as tx:
            member = tx.members.get(name)
            if (certificate.name, certificate.key) != (name, member.key):
                raise MemberConflict(
                    f"the certificate is for {certificate.name} with key {fingerprint(certificate.key)}, and this is "
                    f"{name}, with {_fingerprint(member)}: look at the agents again"
                )
            if member.state not in {MemberState.PENDING, MemberState.APPROVED}:
                raise MemberConflict(f"{name} is {member.state}: invite it again")
            if member.signature == signed.signature:
                return _view(member)
            approved = replace(
                member, state=MemberState.APPROVED, not_after=certificate.not_after, signature=signed.signature
            )
            return _view(tx.members.change(member, approved, actor=actor))

    def revoke(self, name: str, reason: str, *, actor: str) -> MemberView:
        """Let an agent do nothing any more, from its next request on; once is enough.

        Raises:
            NotFound: nobody was invited under this name.
        """
        with self._store.write() as tx:
            member = tx.members.get(name)
            if member.state is not MemberState.REVOKED:
                revoked = replace(member, state=MemberState.REVOKED, invitation=None, invitation_expires_at=None)
                member = tx.members.change(member, revoked, actor=actor, detail={"reason": reason})
            return _view(member)


def _view(member: Member) -> MemberView:
    return MemberView(
        name=member.name,
        state=member.state,
        key=member.key,
        invitation_expires_at=None if member.invitation_expires_at is None else int(member.invitation_expires_at),
        not_after=member.not_after,
        changed_at=member.changed_at,
    )


def _fingerprint(member: Member) -> str:
    return "none" if member.key is None else fingerprint(member.key)
