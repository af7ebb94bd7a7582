"""What an agent sends in vain, refused or late: counted in its round, and logged under its name a few times."""

from collections.abc import Callable
from typing import Literal

from services.coordinator.rates import Allowance
from services.coordinator.records import Detail, Round
from services.coordinator.transaction import Transaction

# Entries about one agent in one round, at once and a day: enough to see who it is and what it tries.
MOST_LOGGED = 8
DAY = 86_400.0


class Refusals:
    """Counts them; in memory is only how much of each agent's was logged, so that none fills the log."""

    def __init__(self, *, passing: Callable[[], float]) -> None:
        """``passing`` gives seconds that never go back."""
        self._logged = Allowance(MOST_LOGGED, seconds=DAY, clock=passing)

    def count(
        self,
        tx: Transaction,
        current: Round,
        column: Literal["refused", "late"],
        kind: str,
        *,
        agent: str,
        detail: Detail | None = None,
    ) -> None:
        """Count what an agent has sent; while there are few of them in the round, log it as ``kind``."""
        tx.count(current, column)
        if not self._logged.take(f"{agent} {current.run_id} {current.number}"):
            tx.note(current.run_id, current.number, kind, agent, detail or {})
