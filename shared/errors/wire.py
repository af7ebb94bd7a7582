"""Errors between two parties: a message that is wrong, and the way to the other side."""

from collections.abc import Collection

from shared.errors.root import FedCoLLMError


class ProtocolError(FedCoLLMError):
    """A message is wrong, and its sender can be told why."""


class MessageInvalid(ProtocolError):
    """A body or parameter does not have the form that the protocol gives it."""

    code = "message_invalid"


class ProtocolVersionMismatch(ProtocolError):
    """The two sides speak different versions of the protocol."""

    code = "protocol_version_mismatch"


class NotAuthenticated(ProtocolError):
    """The request carries no valid credential."""

    code = "not_authenticated"


class NotAllowed(ProtocolError):
    """The principal may not do this."""

    code = "not_allowed"


class NotAMember(ProtocolError):
    """An agent is not a member of the federation: not approved, revoked, or approved until a day that is over."""

    code = "not_a_member"


class RequestSignatureInvalid(ProtocolError):
    """A request does not have the signature of the member that it names, over all that must be signed."""

    code = "request_signature_invalid"


class RequestReplayed(ProtocolError):
    """A signed request has come before; whoever repeats it need not be who signed it."""

    code = "request_replayed"


class ClockSkewed(ProtocolError):
    """A request was signed too long ago, or will be, by the coordinator's clock."""

    code = "clock_skewed"


class TooManyRequests(ProtocolError):
    """A party has sent as much as it may for now; ``after_seconds`` it may send again."""

    code = "too_many_requests"

    def __init__(self, message: str, after_seconds: float = 1.0) -> None:
        super().__init__(message)
        self.after_seconds = after_seconds


class SignatureInvalid(ProtocolError):
    """A document does not have the signature that it must have."""

    code = "signature_invalid"


class AuditBroken(ProtocolError):
    """The audit log is not what it was: an entry was changed, put in, taken out or moved, or the end was cut off."""

    code = "audit_broken"


class InvitationInvalid(ProtocolError):
    """A one-time token is nobody's, is over, or has let another key in."""

    code = "invitation_invalid"


class MemberConflict(ProtocolError):
    """What is asked for an agent does not fit where it stands, or the key that it has."""

    code = "member_conflict"


class ManifestUnsigned(ProtocolError):
    """A run's manifest has no signature of the operator's."""

    code = "manifest_unsigned"


class ManifestMismatch(ProtocolError):
    """A manifest is of another run, or does not say what the operator's terms say."""

    code = "manifest_mismatch"


class FederationMismatch(ProtocolError):
    """A document belongs to another federation than the one it is used in."""

    code = "federation_mismatch"


class CertificateExpired(ProtocolError):
    """A membership certificate is over."""

    code = "certificate_expired"


class NotFound(ProtocolError):
    """There is nothing by this name, or it is not this principal's to see."""

    code = "not_found"


class RouteUnknown(ProtocolError):
    """No route has this path: another port, another service, or another release."""

    code = "route_unknown"


class ShareInvalid(ProtocolError):
    """A share of a secret is none, does not fit the others, or cannot be read.

    ``members`` are those whose fault it is, where that is known.
    """

    code = "share_invalid"

    def __init__(self, message: str, *, members: Collection[str] = ()) -> None:
        super().__init__(message)
        self.members = tuple(members)


class KeyInvalid(ProtocolError):
    """A key of an attempt is none, or not the one that was announced."""

    code = "key_invalid"


class StatisticTooLarge(ProtocolError):
    """A number of an evaluation does not fit into its masked slots."""

    code = "statistic_too_large"


class SumImplausible(ProtocolError):
    """A sum of updates cannot have come from agents that keep the protocol."""

    code = "sum_implausible"


class MeanTooCoarse(ProtocolError):
    """Those whose updates came weigh so little of what was counted that rounding would show in their mean."""

    code = "mean_too_coarse"


class AttemptRefused(ProtocolError):
    """What the coordinator asks of an agent in an attempt could undo the masks: nothing is sent."""

    code = "attempt_refused"


class PolicyRefused(ProtocolError):
    """This agent's own policy does not allow what is asked of it."""

    code = "policy_refused"


class IllegalTransition(ProtocolError):
    """The table has no such event in this state; nothing was changed."""

    code = "illegal_transition"


class RoundClosed(ProtocolError):
    """The round no longer takes updates."""

    code = "round_closed"


class RunConflict(ProtocolError):
    """There is a run by this id already, with other terms."""

    code = "run_conflict"


class UpdateConflict(ProtocolError):
    """This agent has sent other bytes for the same round before."""

    code = "update_conflict"


class UploadSuperseded(ProtocolError):
    """The agent has begun a newer upload, which takes the place of this one."""

    code = "upload_superseded"


class LeaseLost(ProtocolError):
    """The work was handed to another worker, or is not wanted any more."""

    code = "lease_lost"


class LengthRequired(ProtocolError):
    """A blob must say its length before its first byte."""

    code = "length_required"


class BlobTooLarge(ProtocolError):
    """A body is longer than what may be sent here."""

    code = "blob_too_large"


class BodyTooSlow(ProtocolError):
    """A body came too slowly, or stopped coming, and was broken off."""

    code = "body_too_slow"


class BlobTruncated(ProtocolError):
    """A body ended before its announced length."""

    code = "blob_truncated"


class DigestMismatch(ProtocolError):
    """The bytes do not have the digest that was announced."""

    code = "digest_mismatch"


class LayoutMismatch(ProtocolError):
    """A blob's tensors are not exactly those of the manifest's layout."""

    code = "layout_mismatch"


class ValuesNotFinite(ProtocolError):
    """A tensor holds NaN or an infinity."""

    code = "values_not_finite"


class TransportError(FedCoLLMError):
    """The other side could not be asked, or said no."""


class Unreachable(TransportError):
    """No answer came, after all retries."""

    code = "unreachable"


class RemoteProblem(TransportError):
    """The other side answered with a problem document (RFC 9457), whose code is this error's."""

    def __init__(self, code: str, status: int, detail: str) -> None:
        super().__init__(f"{detail} (HTTP {status})")
        self.code = code
        self.status = status
        self.detail = detail
