"""Readable updates, for PlaintextAggregation: decided on, checked and kept (docs/protocol.md, step 5)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from services.coordinator.blobs import IncomingBlob
from services.coordinator.manifest import prepared_layout
from services.coordinator.ports import Clock, Store
from services.coordinator.records import Detail, Round, Run, Update
from services.coordinator.refusals import Refusals
from shared.errors import MessageInvalid, ProtocolError, RoundClosed, UpdateConflict
from shared.protocol.codec import require_file, require_size
from shared.protocol.messages import UpdateReceipt
from shared.protocol.rounds import RoundState
from shared.protocol.tensors import Layout


@dataclass(frozen=True)
class Slot:
    """Where an agent's update of a round goes, and what it must look like."""

    run_id: str
    round: int
    agent: str
    layout: Layout
    weight: int


class UpdateDesk:
    """Takes the updates that agents send as they are."""

    def __init__(self, store: Store, refusals: Refusals, clock: Clock) -> None:
        self._store = store
        self._refusals = refusals
        self._clock = clock

    def receipt(
        self, agent: str, run_id: str, number: int, *, digest: str, size: int, examples: int | None
    ) -> tuple[UpdateReceipt | None, Slot]:
        """Decide, before the first byte of an update is read, whether it may come.

        Returns:
            The receipt, if the same bytes were accepted before, and the slot that the update is for.

        Raises:
            NotFound, NotAllowed, RoundClosed, UpdateConflict, MessageInvalid, BlobTruncated, BlobTooLarge: it may not.
        """
        with self._store.read() as tx:
            run = tx.run(run_id)
            current = tx.round(run_id, number)
            accepted = tx.update(run_id, number, agent)
        current.require_asked(agent)
        slot = _slot(run, number, agent, examples)
        with self._refusals_counted(slot):
            require_size(size, slot.layout)
        if accepted is not None:
            return _receipt(_same(accepted, digest), size), slot
        if not takes_updates(run, current):
            with self._store.write() as tx:
                self._refusals.count(tx, current, "late", "update.late", agent=agent)
            raise _closed(slot, current)
        return None, slot

    def write(self, slot: Slot, incoming: IncomingBlob, chunk: bytes | bytearray) -> None:
        """Take the next bytes of an update.

        Raises:
            BlobTooLarge: it goes on after the length that it announced.
            StorageFull: the disk has no room.
        """
        with self._refusals_counted(slot):
            incoming.write(chunk)

    def accept(self, slot: Slot, incoming: IncomingBlob, *, digest: str) -> UpdateReceipt:
        """Check an update that has come in whole, keep it, and count it; the last one wakes the aggregation.

        Raises:
            BlobTruncated, DigestMismatch, LayoutMismatch, ValuesNotFinite: nothing of the update is kept.
            RoundClosed: the round closed while the update came in.
        """
        with self._refusals_counted(slot):
            incoming.require(digest)
            require_file(incoming.part, slot.layout)
        blob = incoming.keep()
        with self._store.write() as tx:
            current = tx.round(slot.run_id, slot.round)
            accepted = tx.update(slot.run_id, slot.round, slot.agent)
            if accepted is not None:
                return _receipt(_same(accepted, digest), blob.bytes)
            in_time = takes_updates(tx.run(slot.run_id), current)
            update = Update(slot.run_id, slot.round, slot.agent, digest, slot.weight, self._clock())
            if in_time:
                tx.insert_blob(blob)
                tx.insert_update(update)
                tx.change_round(current, actor=slot.agent, accepted=current.accepted + 1)
                tx.note(slot.run_id, slot.round, "update.accepted", slot.agent, {"accepted": current.accepted + 1})
            else:
                self._refusals.count(tx, current, "late", "update.late", agent=slot.agent)
        if not in_time:
            raise _closed(slot, current)
        return _receipt(update, blob.bytes)

    @contextmanager
    def _refusals_counted(self, slot: Slot) -> Iterator[None]:
        """Count an update that turns out not to be what it must be."""
        try:
            yield
        except ProtocolError as error:
            with self._store.write() as tx:
                current = tx.round(slot.run_id, slot.round)
                detail: Detail = {"code": error.code}
                self._refusals.count(tx, current, "refused", "update.refused", agent=slot.agent, detail=detail)
            raise


def takes_updates(run: Run, current: Round) -> bool:
    """Return whether a round takes another update: it is open, and its cohort is not full (docs/protocol.md step 5)."""
    return current.state is RoundState.OPEN and current.accepted < run.terms.cohort.max_count


def _closed(slot: Slot, current: Round) -> RoundClosed:
    return RoundClosed(
        f"round {slot.round} of run {slot.run_id} is {current.state} and takes no more updates: "
        "ask what is wanted, and go on there"
    )


def _same(accepted: Update, digest: str) -> Update:
    """Return the accepted update if it is the one that comes again, or raise UpdateConflict."""
    if accepted.digest != digest:
        raise UpdateConflict(
            f"{accepted.agent} has sent another update for round {accepted.round} of run {accepted.run_id} before, and "
            "an agent has one: keep the first, and train the next round"
        )
    return accepted


def _slot(run: Run, number: int, agent: str, examples: int | None) -> Slot:
    if run.terms.aggregation != "PlaintextAggregation":
        raise MessageInvalid(f"run {run.id} adds updates up masked: say that this one is ready, and send it to nobody")
    if run.terms.weighting == "unweighted" and examples is not None:
        raise MessageInvalid("this run's mean is unweighted: do not send a number of examples")
    if run.terms.weighting == "examples" and examples is None:
        raise MessageInvalid("this run's mean is weighted by examples: send their number as the parameter 'examples'")
    return Slot(run.id, number, agent, prepared_layout(run), 1 if examples is None else examples)


def _receipt(update: Update, size: int) -> UpdateReceipt:
    return UpdateReceipt(
        run_id=update.run_id,
        round=update.round,
        agent=update.agent,
        digest=update.digest,
        bytes=size,
        received_at=update.received_at,
    )
