"""How long clients wait before they try again."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from services.client_agent.service import AWAY
from shared.backoff import SOON, Backoff

AGENTS = 200


def tries(backoff: Backoff) -> Iterator[float]:
    """Yield when a client tries again that has failed at 0, in seconds."""
    at, failures = 0.0, 0
    while True:
        failures += 1
        at += backoff.seconds(failures)
        yield at


def arrivals(outage: float) -> Counter[int]:
    """Return how many of the agents, all of them cut off at 0, are there in each second after the outage."""
    back: Counter[int] = Counter()
    for seed in range(AGENTS):
        agent = Backoff(AWAY.first_seconds, AWAY.most_seconds, np.random.default_rng(seed).random)
        back[int(next(at for at in tries(agent) if at >= outage) - outage)] += 1
    return back


@pytest.mark.parametrize(("outage", "share"), [(10.0, 0.2), (60.0, 0.1), (600.0, 0.1), (7200.0, 0.1)])
def test_a_coordinator_that_comes_back_is_not_met_by_all_agents_at_once(outage: float, share: float) -> None:
    """Of 200 that were cut off in the same moment, no second gets more than a tenth once a minute has passed."""
    back = arrivals(outage)
    assert back.total() == AGENTS
    assert max(back.values()) <= share * AGENTS


@pytest.mark.parametrize(("outage", "seconds"), [(2.0, 10), (10.0, 45), (7200.0, 60)])
def test_nobody_waits_for_much_longer_than_the_outage_was(outage: float, seconds: int) -> None:
    """A restart of two seconds costs seconds, and a night costs a minute."""
    assert max(arrivals(outage)) < seconds


def test_waits_are_spread_over_all_of_a_bound_that_doubles() -> None:
    """Full jitter: from nothing to the bound, which grows no further than it may; the same draws, the same waits."""
    lowest, highest = (Backoff(0.25, 60.0, draw) for draw in (lambda: 0.0, lambda: 1.0))
    assert [highest.seconds(failures) for failures in (1, 2, 3, 8, 9, 10_000)] == [0.25, 0.5, 1.0, 32.0, 60.0, 60.0]
    assert {lowest.seconds(failures) for failures in range(1, 100)} == {0.0}
    one, same = (Backoff(draw=np.random.default_rng(7).random) for _ in range(2))
    assert [one.seconds(failures) for failures in range(1, 9)] == [same.seconds(failures) for failures in range(1, 9)]


def test_who_somebody_waits_for_is_back_in_seconds() -> None:
    """A worker's lease ends after 30 seconds of silence, and begins anew when the coordinator starts."""
    assert max(SOON.seconds(failures) for failures in range(1, 100)) <= 5.0
