"""How much a party may send: so much at once, and so much in a time, refilled as time goes by.

The generic cell rate algorithm: of each party one number is kept, the time at which all that it has taken is refilled.
(The package ``limits`` starts a thread for a request, which is 0.46 ms of CPU, and keeps an entry for each byte.)
"""

from collections.abc import Callable

MOST_PARTIES = 10_000


class Allowance:
    """An amount in a time, for each party on its own; in memory, so that a restart fills it."""

    def __init__(self, amount: float, *, seconds: float, clock: Callable[[], float]) -> None:
        """``amount`` may be taken at once and in ``seconds``; ``clock`` gives seconds that never go back."""
        self.amount = amount
        self._seconds = seconds
        self._clock = clock
        self._refilled_at: dict[str, float] = {}
        self._look_at = MOST_PARTIES

    def take(self, party: str, amount: float = 1) -> float:
        """Take some, if there is as much, and return 0.0; else take nothing and return after how many seconds there is.

        More than the whole allowance there never is: infinity.
        """
        if amount > self.amount:
            return float("inf")
        now = self._clock()
        refilled_at = max(self._refilled_at.get(party, now), now) + amount * self._seconds / self.amount
        wait = refilled_at - now - self._seconds
        if wait > 0:
            return wait
        if len(self._refilled_at) >= self._look_at:  # they may be the addresses of strangers, who do not come again
            self._refilled_at = {party: time for party, time in self._refilled_at.items() if time > now}
            self._look_at = max(MOST_PARTIES, 2 * len(self._refilled_at))
        self._refilled_at[party] = refilled_at
        return 0.0
