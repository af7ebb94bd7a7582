"""Errors between two parties: who they are, what they may, and the way to the other side."""

from shared.errors.root import FedCoLLMError


class ProtocolError(FedCoLLMError):
    """A message is wrong, and its sender can be told why."""


class MessageInvalid(ProtocolError):
    """A body or parameter does not have the form that the protocol gives it.

    Do: correct the field that it names. Where both sides are ours, install the same release on both.
    """

    code = "message_invalid"


class ProtocolVersionMismatch(ProtocolError):
    """The two sides speak different versions of the protocol.

    Do: install the same release on both sides (docs/upgrade.md).
    """

    code = "protocol_version_mismatch"


class NotAuthenticated(ProtocolError):
    """The request carries no valid credential.

    Do: compare ``token_file`` with what the operator gave you, who also knows whether it has ended
    (docs/operating.md#tokens).
    """

    code = "not_authenticated"


class NotAllowed(ProtocolError):
    """The principal may not do this.

    Do: use a token of a role that it names. Workers have a port of their own, and agents have keys.
    """

    code = "not_allowed"


class NotAMember(ProtocolError):
    """An agent is not a member of the federation: not approved, revoked, or approved until a day that is over.

    Do: it says which: enrol, or ask the operator (docs/operating.md#members).
    """

    code = "not_a_member"


class AgentRunsTwice(ProtocolError):
    """Another process takes part with this agent's name and key.

    Do: stop one of the two, and delete what was copied for it (docs/organisation.md#one-at-a-time). If nobody of yours
    has started a second one, somebody has your key: tell the operator.
    """

    code = "agent_runs_twice"


class RequestSignatureInvalid(ProtocolError):
    """A request does not have the signature of the member that it names, over all that must be signed.

    Do: is the agent's key the one that was approved? Does a proxy change paths or bodies
    (docs/deployment.md#a-server-in-front)?
    """

    code = "request_signature_invalid"


class RequestReplayed(ProtocolError):
    """A signed request has come before; whoever repeats it need not be who signed it.

    Do: a proxy sends requests a second time: turn that off. If none does, somebody records them: tell the operator.
    """

    code = "request_replayed"


class ClockSkewed(ProtocolError):
    """A request was signed too long ago, or will be, by the coordinator's clock.

    Do: set the clock that is wrong, best by NTP; it says both times. If both are right, a proxy keeps requests back
    (docs/deployment.md#a-server-in-front).
    """

    code = "clock_skewed"


class TooManyRequests(ProtocolError):
    """A party has sent as much as it may for now; ``after_seconds`` it may send again.

    Do: nothing: it is sent again. If it goes on, raise what the coordinator allows
    (docs/operating.md#how-much-anybody-may-send).
    """

    code = "too_many_requests"

    def __init__(self, message: str, after_seconds: float = 1.0) -> None:
        super().__init__(message)
        self.after_seconds = after_seconds


class SignatureInvalid(ProtocolError):
    """A document does not have the signature that it must have.

    Do: of a command, is this the operator's key? Of a run or a member, nothing was trained: tell the operator, who
    finds out what the coordinator does.
    """

    code = "signature_invalid"


class AuditBroken(ProtocolError):
    """The audit log is not what it was: an entry was changed, put in, taken out or moved, or the end was cut off.

    Do: keep everything as it is, and find out who changed the database; it names the first wrong entry
    (docs/operating.md#the-audit-log).
    """

    code = "audit_broken"


class InvitationInvalid(ProtocolError):
    """A one-time token is nobody's, is over, or has let another key in.

    Do: ask the operator for a new one. If you have not used it, somebody else has.
    """

    code = "invitation_invalid"


class MemberConflict(ProtocolError):
    """What is asked for an agent does not fit where it stands, or the key that it has.

    Do: what it says, after ``fedcollm agents list``.
    """

    code = "member_conflict"


class ManifestUnsigned(ProtocolError):
    """A run's manifest has no signature of the operator's.

    Do: the operator signs it: ``fedcollm runs sign RUN`` (docs/operating.md#the-operators-key).
    """

    code = "manifest_unsigned"


class ManifestMismatch(ProtocolError):
    """A manifest is of another run, or does not say what the operator's terms say.

    Do: the operator compares ``run.toml`` with what the run was made of; an agent has trained nothing.
    """

    code = "manifest_mismatch"


class CardInvalid(ProtocolError):
    """A model card is of another adapter, or says what does not follow from the rest of it.

    Do: do not use the adapter; fetch it and its card again, and ask the operator if it stays so.
    """

    code = "card_invalid"


class FederationMismatch(ProtocolError):
    """A document belongs to another federation than the one it is used in.

    Do: compare ``coordinator_url`` and ``federation``: this is another federation's coordinator or document.
    """

    code = "federation_mismatch"


class CertificateExpired(ProtocolError):
    """A membership certificate is over.

    Do: the operator approves the agent again (docs/operating.md#members).
    """

    code = "certificate_expired"


class NotFound(ProtocolError):
    """There is nothing by this name, or it is not this principal's to see.

    Do: look at the name. What a role may not see is not found either.
    """

    code = "not_found"


class RouteUnknown(ProtocolError):
    """No route has this path: another port, another service, or another release.

    Do: is it the right port, and the same release on both sides?
    """

    code = "route_unknown"


class TransportError(FedCoLLMError):
    """The other side could not be asked, or said no."""


class Unreachable(TransportError):
    """No answer came, after all retries.

    Do: is the coordinator running, and is this its address? ``doctor`` goes the way step by step.
    """

    code = "unreachable"


class RemoteProblem(TransportError):
    """The other side answered with a problem document (RFC 9457), whose code is this error's."""

    def __init__(self, code: str, status: int, detail: str) -> None:
        super().__init__(f"{detail} (HTTP {status})")
        self.code = code
        self.status = status
        self.detail = detail
