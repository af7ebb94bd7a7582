"""Which published adapter the agents hold: the newest, or the one that an operator has chosen (rolling back)."""

from services.coordinator.ports import Store
from services.coordinator.rounds import held
from services.coordinator.transaction import Transaction
from shared.protocol.membership import RoundPlace
from shared.protocol.published import AdapterList, Promotion


class PromotionDesk:
    """The published adapters of one coordinator."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def adapters(self, *, run_id: str | None, before: RoundPlace | None, limit: int) -> AdapterList:
        """Return a page of published adapters, those of newer runs first, of a run its newer rounds."""
        with self._store.read() as tx:
            found = tx.adapters.page(run_id=run_id, before=before, limit=limit + 1)
        page, more = tuple(found[:limit]), len(found) > limit
        return AdapterList(adapters=page, next=f"{page[-1].run_id}:{page[-1].round}" if more else None)

    def promotion(self) -> Promotion:
        """Return which adapter agents hold once they have asked again."""
        with self._store.read() as tx:
            return _promotion(tx)

    def pin(self, run_id: str, number: int, *, actor: str) -> Promotion:
        """Let agents hold the adapter of one round from now on, also when there is a newer one.

        Raises:
            NotFound: the round has published none.
        """
        with self._store.write() as tx:
            chosen = tx.adapters.of_round(run_id, number)
            if tx.adapters.pinned() != chosen:
                tx.adapters.pin(chosen, actor=actor)
            return _promotion(tx)

    def unpin(self, *, actor: str) -> Promotion:
        """Let agents hold the newest adapter again, whichever that is."""
        with self._store.write() as tx:
            if tx.adapters.pinned() is not None:
                tx.adapters.pin(None, actor=actor)
            return _promotion(tx)


def _promotion(tx: Transaction) -> Promotion:
    return Promotion(held=held(tx), pinned=tx.adapters.pinned() is not None)
