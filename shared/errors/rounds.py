"""Errors of runs and rounds: their states, attempts, and what is sent in them."""

from collections.abc import Collection

from shared.errors.wire import ProtocolError


class ShareInvalid(ProtocolError):
    """A share of a secret is none, does not fit the others, or cannot be read.

    ``members`` are those whose fault it is, where that is known.

    Do: nothing: the round goes on without it, or the next one begins. Where it is one member time and again, look
    at that agent, or revoke it.
    """

    code = "share_invalid"

    def __init__(self, message: str, *, members: Collection[str] = ()) -> None:
        super().__init__(message)
        self.members = tuple(members)


class KeyInvalid(ProtocolError):
    """A key of an attempt is none, or not the one that was announced.

    Do: nothing: the next attempt has new keys. Where it is one member time and again, look at that agent, or revoke
    it.
    """

    code = "key_invalid"


class StatisticTooLarge(ProtocolError):
    """A number of an evaluation does not fit into its masked slots.

    Do: lower the run's ``evaluation_examples``.
    """

    code = "statistic_too_large"


class SumImplausible(ProtocolError):
    """A sum of updates cannot have come from agents that keep the protocol.

    Do: nothing: none of it was published, and the next round begins anew. If it goes on, some agent does not keep
    the protocol (docs/security.md#poisoning).
    """

    code = "sum_implausible"


class MeanTooCoarse(ProtocolError):
    """Those whose updates came weigh so little of what was counted that rounding would show in their mean.

    Do: nothing: the next round begins anew. If it goes on, let the run weigh all agents alike.
    """

    code = "mean_too_coarse"


class AttemptRefused(ProtocolError):
    """What the coordinator asks of an agent in an attempt could undo the masks: nothing is sent.

    Do: nothing was sent. Once may be chance (a restart, a clock); if it comes again, tell the operator.
    """

    code = "attempt_refused"


class PolicyRefused(ProtocolError):
    """This agent's own policy does not allow what is asked of it.

    Do: leave it so and tell the operator, or change the rule of ``[policy]`` that it names
    (docs/organisation.md#what-you-can-limit). Nothing was sent.
    """

    code = "policy_refused"


class IllegalTransition(ProtocolError):
    """The table has no such event in this state; nothing was changed.

    Do: look at how the run stands, ``fedcollm runs list``: what has ended stays ended.
    """

    code = "illegal_transition"


class RoundClosed(ProtocolError):
    """The round no longer takes updates.

    Do: nothing: the agent takes part in the next one.
    """

    code = "round_closed"


class RunConflict(ProtocolError):
    """There is a run by this id already, with other terms.

    Do: choose another id, or the same terms.
    """

    code = "run_conflict"


class UpdateConflict(ProtocolError):
    """This agent has sent other bytes for the same round before.

    Do: are two agents running by the same name? Stop one. The first update counts.
    """

    code = "update_conflict"


class UploadSuperseded(ProtocolError):
    """The agent has begun a newer upload, which takes the place of this one.

    Do: are two agents running by the same name and key? Stop one.
    """

    code = "upload_superseded"


class UploadOffsetMismatch(ProtocolError):
    """An upload was to go on where its durable bytes do not end.

    Do: nothing: the client asks where it goes on, or begins anew.
    """

    code = "upload_offset_mismatch"


class LeaseLost(ProtocolError):
    """The work was handed to another worker, or is not wanted any more.

    Do: nothing: the worker asks for other work. If it goes on, are two workers called the same, or is the network
    too slow for ``lease_seconds``?
    """

    code = "lease_lost"


class LengthRequired(ProtocolError):
    """A blob must say its length before its first byte.

    Do: let the proxy in between pass lengths on; our own clients always say them.
    """

    code = "length_required"


class BlobTooLarge(ProtocolError):
    """A body is longer than what may be sent here.

    Do: install the same release and base model on both sides. Of a worker's adapter, raise ``max_adapter_bytes``.
    """

    code = "blob_too_large"


class BodyTooSlow(ProtocolError):
    """A body came too slowly, or stopped coming, and was broken off.

    Do: nothing: it is sent again. If it goes on, a proxy keeps bodies back, or the link is slower than
    ``body_bytes_per_second``.
    """

    code = "body_too_slow"


class BlobTruncated(ProtocolError):
    """A body ended before its announced length.

    Do: nothing: it is sent again. If it goes on, a proxy breaks bodies off (docs/deployment.md#a-server-in-front).
    """

    code = "blob_truncated"


class DigestMismatch(ProtocolError):
    """The bytes do not have the digest that was announced.

    Do: nothing: it is sent again. If it goes on, something on the way changes bodies, or a machine's memory is
    faulty.
    """

    code = "digest_mismatch"


class LayoutMismatch(ProtocolError):
    """A blob's tensors are not exactly those of the manifest's layout.

    Do: install the same release and base model on both sides. Of one agent time and again, revoke it.
    """

    code = "layout_mismatch"


class ValuesNotFinite(ProtocolError):
    """A tensor holds NaN or an infinity.

    Do: lower the learning rate of the run. Of one agent time and again, look at that agent, or revoke it.
    """

    code = "values_not_finite"
