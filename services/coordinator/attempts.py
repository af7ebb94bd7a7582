"""Attempts as their members see them: what each is summoned for, and what it sends (docs/secure-aggregation.md).

Every message is checked when it comes, so that its sender is told what is wrong with it and is the one who is counted.
The same message again changes nothing; another one for the same stage is a conflict.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

from services.coordinator.blobs import IncomingBlob
from services.coordinator.ports import Blobs, Clock, Store
from services.coordinator.records import Attempt, Detail, Member, Round, Run
from services.coordinator.refusals import Refusals
from services.coordinator.stages import close, expected, unshown
from services.coordinator.transaction import Transaction
from shared.errors import (
    BlobTooLarge,
    BlobTruncated,
    FedCoLLMError,
    MessageInvalid,
    NotAllowed,
    NotFound,
    ProtocolError,
    RoundClosed,
    UpdateConflict,
)
from shared.protocol.attempts import (
    AttemptPlace,
    ConsistencyWanted,
    DealtShares,
    Enlisted,
    KeysWanted,
    MaskedWanted,
    ReleasedShares,
    SharesWanted,
    SignedSurvivors,
    Summons,
    UnmaskingWanted,
)
from shared.protocol.identity import require_signature, to_text
from shared.protocol.membership import MembershipCertificate, SignedCertificate
from shared.protocol.rounds import STAGES, RoundState, RunState
from shared.protocol.secagg.attempt import Advert, Roster, Survivors, require_advert
from shared.protocol.secagg.coding import SLOTS
from shared.protocol.secagg.masks import WORD_BYTES


@dataclass(frozen=True)
class MaskedSlot:
    """Where a member's masked vector goes, and how long it is."""

    place: AttemptPlace
    agent: str
    bytes: int


class AttemptDesk:
    """Takes what agents send in attempts."""

    def __init__(self, store: Store, blobs: Blobs, refusals: Refusals, clock: Clock, *, federation: str) -> None:
        self._store = store
        self._blobs = blobs
        self._refusals = refusals
        self._clock = clock
        self._federation = federation

    def ready(self, agent: str, run_id: str, number: int) -> None:
        """Take an agent's word that its update is trained and stored; the same word again changes nothing.

        Raises:
            NotFound, RoundClosed: there is no such round, or it takes nobody any more.
            NotAllowed: the round does not ask the agent, or has barred it.
            MessageInvalid: the run has no secure aggregation.
        """
        with self._store.write() as tx:
            run, current = tx.run(run_id), tx.round(run_id, number)
            if run.terms.aggregation != "SecureAggregation":
                raise MessageInvalid(f"run {run_id} takes updates as they are, and nobody is ready for an attempt")
            current.require_asked(agent)
            if (why := tx.attempts.barred(current, agent)) is not None:
                raise NotAllowed(f"{agent} takes no part in round {number} of run {run_id} any more: {why}")
            if tx.attempts.is_ready(current, agent):
                return
            in_time = takes_ready(run, current)
            if in_time:
                tx.attempts.add_ready(current, agent)
                tx.change_round(current, actor=agent, accepted=current.accepted + 1)
                tx.note(run_id, number, "update.ready", agent, {"ready": current.accepted + 1})
            else:
                self._refusals.count(tx, current, "late", "update.late", agent=agent)
        if not in_time:
            raise _over(f"round {number} of run {run_id}", current)

    def leave(self, agent: str) -> None:
        """Wait no longer for an agent that stops: as if it had fallen silent, and its silence had lasted already."""
        with self._store.write() as tx:
            for run in tx.runs(states=(RunState.RUNNING, RunState.PAUSED)):
                current = tx.live_round(run)
                if current is None or agent not in tx.attempts.ready(current):
                    continue
                if current.state is RoundState.OPEN:
                    current = tx.change_round(current, actor=agent, accepted=current.accepted - 1)
                elif current.state not in STAGES:
                    continue
                tx.attempts.remove_ready(current, agent)
                tx.note(run.id, current.number, "update.withdrawn", agent, {})

    def announce(self, agent: str, place: AttemptPlace, advert: Advert) -> None:
        """Take a member's keys."""

        def check(tx: Transaction, attempt: Attempt) -> None:
            if (advert.keys.agent, advert.keys.identity) != (agent, tx.members.get(agent).key):
                raise MessageInvalid(
                    f"these keys are of {advert.keys.agent}, and {agent} has sent them under its own key"
                )
            require_advert(attempt.terms, advert)

        self._take(agent, place, RoundState.KEYS, advert.model_dump_json(), check)

    def deal(self, agent: str, place: AttemptPlace, dealt: DealtShares) -> None:
        """Take a member's sealed shares, one for each other member."""

        def check(_: Transaction, attempt: Attempt) -> None:
            others = set(expected(attempt, RoundState.SHARES)) - {agent}
            if dealt.sealed.keys() != others:
                raise MessageInvalid(f"shares are for each of the {len(others)} other members of the attempt")

        self._take(agent, place, RoundState.SHARES, dealt.model_dump_json(), check)

    def masked_slot(self, agent: str, place: AttemptPlace, *, digest: str, size: int) -> MaskedSlot | None:
        """Decide, before its first byte is read, whether a masked vector may come; None if it has come before.

        Raises:
            NotFound, RoundClosed, UpdateConflict, BlobTruncated, BlobTooLarge: it may not.
        """
        with self._refusals_counted(agent, place), self._store.read() as tx:
            current = tx.round(place.run_id, place.round)
            if _repeated(tx, current, agent, place=place, stage=RoundState.MASKED, body=digest):
                return None
            attempt = _attempt_of(tx, current, agent, place, RoundState.MASKED)
            length = masked_bytes(attempt)
            if size != length:
                kind = BlobTruncated if size < length else BlobTooLarge
                raise kind(f"the masked vector has {size} bytes, and {length} are what {attempt.terms.label} takes")
        return MaskedSlot(place, agent, length)

    def write(self, slot: MaskedSlot, incoming: IncomingBlob, chunk: bytes | bytearray) -> None:
        """Take the next bytes of a masked vector; errors are those of ``IncomingBlob.write``."""
        with self._refusals_counted(slot.agent, slot.place):
            incoming.write(chunk)

    def keep_masked(self, slot: MaskedSlot, incoming: IncomingBlob, *, digest: str) -> None:
        """Keep a masked vector that has come in whole.

        Raises:
            BlobTruncated, DigestMismatch: it has not.
            MessageInvalid: it was sent before, elsewhere.
            RoundClosed: the stage closed while it came in.
        """
        with self._refusals_counted(slot.agent, slot.place):
            incoming.require(digest)
        blob = incoming.keep()

        def check(tx: Transaction, _: Attempt) -> None:
            # Vectors are deleted after their round by their digests, and nothing else may be called by those.
            if tx.has_blob(digest):
                raise MessageInvalid("these bytes are stored already: what is masked afresh is like nothing before")
            tx.insert_blob(blob)

        try:
            self._take(slot.agent, slot.place, RoundState.MASKED, digest, check)
        except FedCoLLMError:
            with self._store.write() as tx:
                if not tx.has_blob(digest):
                    self._blobs.remove(digest)
            raise

    def confirm(self, agent: str, place: AttemptPlace, signed: SignedSurvivors) -> None:
        """Take a member's signature over the survivors that it was told."""

        def check(_: Transaction, attempt: Attempt) -> None:
            roster = _roster(attempt)
            told = Survivors(context=to_text(roster.context), survivors=attempt.survivors or ())
            if not set(signed.unreadable) <= set(attempt.dealers or ()) - {agent}:
                raise MessageInvalid("shares that a member cannot read are those that another has dealt to it")
            what = f"what {agent} was told of the survivors of {attempt.terms.label}"
            require_signature(roster.keys[agent].identity, "survivors", told, signed.signature, what=what)

        self._take(agent, place, RoundState.CONSISTENCY, signed.model_dump_json(), check)

    def release(self, agent: str, place: AttemptPlace, released: ReleasedShares) -> None:
        """Take a member's shares: of the own masks of survivors, and of the mask secrets of those who were lost."""

        def check(tx: Transaction, attempt: Attempt) -> None:
            current = tx.round(place.run_id, place.round)
            signed = tx.attempts.message(current, place.attempt, RoundState.CONSISTENCY, agent)
            assert signed is not None  # noqa: S101 - our own invariant: signers alone are asked for shares
            readable = set(attempt.dealers or ()).difference(SignedSurvivors.model_validate_json(signed).unreadable)
            there, lost = readable.intersection(attempt.survivors or ()), readable.difference(attempt.survivors or ())
            if released.own_masks.keys() != there or released.mask_secrets.keys() != lost:
                raise MessageInvalid(
                    f"shares are wanted of the own masks of {len(there)} survivors and of the mask secrets of "
                    f"{len(lost)} lost members: of each whose shares {agent} could read, and of nobody else"
                )

        self._take(agent, place, RoundState.UNMASKING, released.model_dump_json(), check)

    def _take(
        self,
        agent: str,
        place: AttemptPlace,
        stage: RoundState,
        body: str,
        check: Callable[[Transaction, Attempt], None],
    ) -> None:
        with self._refusals_counted(agent, place), self._store.write() as tx:
            run, current = tx.run(place.run_id), tx.round(place.run_id, place.round)
            if _repeated(tx, current, agent, place=place, stage=stage, body=body):
                return
            attempt = _attempt_of(tx, current, agent, place, stage)
            check(tx, attempt)
            tx.attempts.add_message(current, stage, agent, body)
            # Its own group first: most messages complete none, and a round may have many.
            if _is_complete(tx, current, attempt) and all(
                _is_complete(tx, current, each) for each in tx.attempts.of(current)
            ):
                # Whoever completes a stage closes it; where that must wait, as for a run that is paused, and for the
                # sum itself, the reconciler is woken.
                tx.wake()
                if run.state is RunState.RUNNING:
                    close(tx, run, current, self._clock())

    @contextmanager
    def _refusals_counted(self, agent: str, place: AttemptPlace) -> Iterator[None]:
        """Count a message that is not what it must be, under the name of its sender."""
        try:
            yield
        except (RoundClosed, NotFound):
            raise
        except ProtocolError as error:
            with self._store.write() as tx:
                current = tx.round(place.run_id, place.round)
                detail: Detail = {"code": error.code}
                self._refusals.count(tx, current, "refused", "attempt.refused", agent=agent, detail=detail)
            raise


def takes_ready(run: Run, current: Round) -> bool:
    """Return whether a round takes another ready agent; once counts are weighed, a new one would not be among them."""
    room = current.accepted < run.terms.cohort.max_count
    return current.state is RoundState.OPEN and current.total_count is None and room


def masked_bytes(attempt: Attempt) -> int:
    """Return the exact length of a masked vector: its parameters and its slots, four bytes each."""
    return WORD_BYTES * (attempt.terms.parameters + SLOTS)


def summons_of(tx: Transaction, current: Round, agent: str, *, federation: str) -> Summons | None:
    """Return what an agent is summoned for in a round that is in an attempt; None where nothing is wanted of it."""
    if current.state not in STAGES:
        return None
    attempt = tx.attempts.of_agent(current, agent)
    if attempt is None or agent not in expected(attempt, current.state):
        return None
    if tx.attempts.message(current, current.attempt, current.state, agent) is not None:
        return None
    place = AttemptPlace(run_id=current.run_id, round=current.number, attempt=current.attempt)
    summons: Summons
    match current.state:
        case RoundState.KEYS:
            summons = KeysWanted(place=place, terms=attempt.terms)
        case RoundState.SHARES:
            if unshown(tx, attempt):
                return None  # it ends, and the next one begins without them
            summons = SharesWanted(place=place, members=_enlisted(tx, _roster(attempt), federation))
        case RoundState.MASKED:
            others = [dealer for dealer in attempt.dealers or () if dealer != agent]
            summons = MaskedWanted(place=place, sealed=tx.attempts.sealed_for(current, agent, others))
        case RoundState.CONSISTENCY:
            summons = ConsistencyWanted(place=place, survivors=attempt.survivors or ())
        case _:
            signed = tx.attempts.messages(current, RoundState.CONSISTENCY, attempt.signers or ())
            signatures = {name: SignedSurvivors.model_validate_json(body).signature for name, body in signed.items()}
            summons = UnmaskingWanted(place=place, signatures=signatures)
    return summons


def _is_complete(tx: Transaction, current: Round, attempt: Attempt) -> bool:
    """Return whether all have answered that a stage of one group's attempt waits for."""
    return tx.attempts.have_sent(current, current.state, expected(attempt, current.state))


def _enlisted(tx: Transaction, roster: Roster, federation: str) -> tuple[Enlisted, ...]:
    members = {member.name: member for member in tx.members.named(roster.holders)}
    return tuple(
        Enlisted(advert=advert, membership=certificate_of(members[advert.keys.agent], federation))
        for advert in roster.adverts
    )


# Everybody in a group is shown everybody's: each is put together, and checked, once.
@lru_cache(maxsize=2048)
def certificate_of(member: Member, federation: str) -> SignedCertificate:
    """Return the certificate of a member that is approved."""
    assert member.key is not None  # noqa: S101 - our own invariants: who is approved has one
    assert member.not_after is not None  # noqa: S101
    assert member.signature is not None  # noqa: S101
    certificate = MembershipCertificate(
        federation=federation, name=member.name, key=member.key, not_after=member.not_after
    )
    return SignedCertificate(certificate=certificate, signature=member.signature)


def _repeated(tx: Transaction, current: Round, agent: str, *, place: AttemptPlace, stage: str, body: str) -> bool:
    """Return whether this very message was taken before; another one for the same stage is refused."""
    sent = tx.attempts.message(current, place.attempt, stage, agent)
    if sent is not None and sent != body:
        raise UpdateConflict(
            f"{agent} has sent something else for the stage {stage} of attempt {place.attempt} before: the first "
            "counts, and it may be sent again as it was"
        )
    return sent is not None


def _attempt_of(tx: Transaction, current: Round, agent: str, place: AttemptPlace, stage: RoundState) -> Attempt:
    """Return the attempt whose stage waits for an agent's message.

    Raises:
        RoundClosed: the stage is over, or has not begun.
        NotFound: it waits for others.
    """
    if current.state is not stage or current.attempt != place.attempt:
        raise _over(
            f"the stage {stage} of attempt {place.attempt} of round {place.round} of run {place.run_id}", current
        )
    attempt = tx.attempts.of_agent(current, agent)
    if attempt is not None and agent in expected(attempt, stage):
        return attempt
    raise NotFound(f"attempt {place.attempt} of round {place.round} of run {place.run_id} does not wait for {agent}")


def _roster(attempt: Attempt) -> Roster:
    assert attempt.roster is not None  # noqa: S101 - our own invariant: the keys stage has closed
    return attempt.roster


def _over(what: str, current: Round) -> RoundClosed:
    return RoundClosed(f"{what} takes nothing now, the round is {current.state}: ask what is wanted, and go on there")
