"""The way in for every request: who sends it, whether they still may, and whether they have not sent too much.

Agents sign their requests (docs/protocol.md, "Requests"); operators, viewers and workers carry tokens. All of it takes
well under a millisecond and waits for no disk, because it is done where every request of everybody passes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf

from services.coordinator.nonces import Nonces
from services.coordinator.ports import Clock, Store
from services.coordinator.principals import NOBODY, Principal, Role
from services.coordinator.progress import SYSTEM
from services.coordinator.rates import Allowance
from services.coordinator.records import Member
from services.coordinator.settings import Settings
from services.coordinator.tokens import Tokens
from shared.errors import (
    BlobTooLarge,
    ClockSkewed,
    FederationMismatch,
    InvitationInvalid,
    NotAMember,
    NotAuthenticated,
    NotFound,
    RequestReplayed,
    RequestSignatureInvalid,
    SignatureInvalid,
    TooManyRequests,
)
from shared.protocol.membership import MemberState
from shared.protocol.request_signatures import INPUT_FIELD, named_signer, require_fresh, verify_request

# What is said to whoever has shown nothing that makes them anybody.
NOBODY_WE_KNOW = (
    NotAuthenticated,
    NotAMember,
    RequestSignatureInvalid,
    RequestReplayed,
    ClockSkewed,
    FederationMismatch,
    InvitationInvalid,
    SignatureInvalid,
)

MINUTE, DAY = 60.0, 86_400.0
SCHEME = "bearer "

WHY_NOT = {
    MemberState.INVITED: "was invited and has not enrolled: enrol it with its invitation",
    MemberState.PENDING: "has enrolled and is not approved yet: the operator compares its key and approves it",
    MemberState.REVOKED: "was revoked: the operator can say why, and invite it again",
}


@dataclass(frozen=True)
class Arrival:
    """A request as it arrives, but for its body.

    ``target`` is path and query, encoded as they came; ``address`` is that of whoever sent it, or of their proxy.
    """

    method: str
    target: str
    fields: Sequence[tuple[str, str]]
    address: str

    def field(self, name: str) -> str:
        """Return the first value of a field, or nothing."""
        return next((value for field, value in self.fields if field.lower() == name.lower()), "")


@dataclass(frozen=True)
class Admitted:
    """Who sent a request, and the digest that they have signed for its body, if they have signed it."""

    principal: Principal
    digest: str | None = None


class Admission:
    """Admits requests to one coordinator, or says why not."""

    def __init__(
        self,
        settings: Settings,
        tokens: Tokens,
        store: Store,
        nonces: Nonces,
        clock: Clock,
        *,
        passing: Callable[[], float],
    ) -> None:
        """``clock`` gives the seconds since 1970, and ``passing`` seconds that never go back, for what is refilled."""
        self._federation = settings.federation
        self._tokens = tokens
        self._store = store
        self._nonces = nonces
        self.clock = clock
        self._requests = Allowance(settings.requests_per_minute, seconds=MINUTE, clock=passing)
        self._failures = Allowance(settings.failures_per_minute, seconds=MINUTE, clock=passing)
        self._bytes = Allowance(settings.upload_bytes_per_day, seconds=DAY, clock=passing)

    def admit(self, arrival: Arrival, roles: tuple[Role, ...]) -> Admitted:
        """Return who has sent a request, if one of ``roles`` may do what is asked.

        Raises:
            NotAuthenticated, RequestSignatureInvalid, RequestReplayed, ClockSkewed, FederationMismatch: nobody knows.
            NotAMember: it is an agent that is no member, or no longer one.
            NotAllowed: the principal has another role.
            TooManyRequests, BlobTooLarge: they have sent, or would send, too much.
        """
        if Role.ANYONE in roles:
            return Admitted(NOBODY)
        with self.failures_counted(arrival.address):
            admitted = self._signer(arrival) if arrival.field(INPUT_FIELD) else self._bearer(arrival)
        who = f"{admitted.principal.role} {admitted.principal.name}"
        if wait := self._requests.take(who):
            raise TooManyRequests(f"{who} sends more than {self._requests.amount:g} requests a minute: wait", wait)
        admitted.principal.require(roles)
        return admitted

    @contextmanager
    def failures_counted(self, address: str) -> Iterator[None]:
        """Count the requests of an address that show nobody whom we know; after too many it is told to wait.

        Those that do are let in all the same: they may come by the same proxy.

        Raises:
            TooManyRequests: this one has failed, and too many have.
        """
        try:
            yield
        except NOBODY_WE_KNOW as error:
            if wait := self._failures.take(address):
                raise TooManyRequests(
                    f"{error}; and more than {self._failures.amount:g} requests from {address} were refused in a "
                    "minute: wait",
                    wait,
                ) from None
            raise

    def forget(self) -> None:
        """Forget which requests have come, of those that are refused for their age by now; in a thread."""
        self._nonces.forget(self.clock())

    def _bearer(self, arrival: Arrival) -> Admitted:
        authorization = arrival.field("Authorization")
        if not authorization.lower().startswith(SCHEME):
            raise NotAuthenticated(
                "the request does not say who sends it: operators, viewers and workers send 'Bearer <token>', and "
                "agents sign (docs/protocol.md)"
            )
        known = self._tokens.find(authorization[len(SCHEME) :], self.clock())
        if self._is_somebody_else(known.name):
            raise NotAuthenticated(
                f"the audit log calls somebody else {known.name}: have the operator issue the token for another name "
                "(fedcollm tokens)"
            )
        return Admitted(known)

    def _signer(self, arrival: Arrival) -> Admitted:
        """Return the agent that has signed a request, in this order: cheap checks, its signature, and its standing."""
        name, now = named_signer(arrival.fields), self.clock()
        member = self._member(name)
        if member.key is None:
            raise _no_member(member)
        signed = verify_request(arrival.method, arrival.target, arrival.fields, name=name, key=member.key)
        if signed.federation != self._federation:
            raise FederationMismatch(
                f"the request is for federation {signed.federation}, and this coordinator is of {self._federation}: "
                "correct coordinator_url, or enrol the agent here"
            )
        require_fresh(signed, now)
        _require_standing(member, now)
        self._nonces.remember(name, signed.nonce, until=signed.remembered_until)
        self._take_bytes(name, signed.length)
        return Admitted(Principal(name, Role.AGENT), signed.digest)

    def _is_somebody_else(self, name: str) -> bool:
        """Return whether a name is the coordinator's own or an agent's, and so nobody's who has a token."""
        try:
            self._member(name)
        except NotAMember:
            return name == SYSTEM
        return True

    def _member(self, name: str) -> Member:
        try:
            with self._store.read() as tx:
                return tx.members.get(name)
        except NotFound:
            raise NotAMember(f"no agent is called {name} here: ask the operator for an invitation") from None

    def _take_bytes(self, name: str, size: int) -> None:
        """Count what an agent is about to send."""
        wait = self._bytes.take(name, size)
        if wait == inf:
            raise BlobTooLarge(f"{size} bytes are more than {self._bytes.amount:g}, which an agent may send in a day")
        if wait:
            raise TooManyRequests(
                f"{name} has sent as much as an agent may in a day, {self._bytes.amount:g} bytes: wait", wait
            )


def _require_standing(member: Member, now: float) -> None:
    """Raise unless an agent is a member at this moment."""
    if member.state is not MemberState.APPROVED:
        raise _no_member(member)
    if member.not_after is not None and member.not_after < now:
        day = datetime.fromtimestamp(member.not_after, UTC).date()
        raise NotAMember(f"agent {member.name} was approved until {day}: the operator can approve it again")


def _no_member(member: Member) -> NotAMember:
    return NotAMember(f"agent {member.name} {WHY_NOT[member.state]}")
