from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.federation import ManualClock
from services.coordinator.rates import MOST_PARTIES, Allowance


def test_so_much_at_once_and_then_as_time_goes_by(clock: ManualClock):
    """Three in a minute: three at once, and one more after each twenty seconds."""
    allowance = Allowance(3, seconds=60, clock=clock)
    assert [allowance.take("ada") for _ in range(4)] == [0, 0, 0, pytest.approx(20)]
    clock.advance(19.9)
    assert allowance.take("ada") == pytest.approx(0.1)
    clock.advance(0.2)
    assert [allowance.take("ada") for _ in range(2)] == [0, pytest.approx(19.9)]


def test_each_party_has_its_own(clock: ManualClock):
    """Whoever sends too much holds up nobody else."""
    allowance = Allowance(1, seconds=60, clock=clock)
    assert allowance.take("ada") == 0
    assert allowance.take("ada") > 0
    assert allowance.take("bob") == 0


def test_amounts_are_taken_whole_or_not_at_all(clock: ManualClock):
    """Bytes: what does not fit takes nothing, and what never fits is told so."""
    allowance = Allowance(100, seconds=100, clock=clock)
    assert allowance.take("ada", 101) == inf
    assert allowance.take("ada", 60) == 0
    assert allowance.take("ada", 60) == pytest.approx(20)
    assert allowance.take("ada", 40) == 0
    assert allowance.take("ada", 0) == 0


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(0, 12)), max_size=60))
def test_nobody_gets_more_than_twice_the_amount_in_its_time(steps: list[tuple[float, int]]):
    """What is at hand at once, and what is refilled meanwhile: whoever waits as told is always let in."""
    clock = ManualClock()
    allowance = Allowance(10, seconds=60, clock=clock)
    taken: list[tuple[float, int]] = []
    for pause, amount in steps:
        clock.advance(pause)
        wait = allowance.take("ada", amount)
        if 0 < wait < inf:
            clock.advance(wait + 1e-6)
            assert allowance.take("ada", amount) == 0
        if wait < inf:
            taken.append((clock(), amount))
    for start, _ in taken:
        assert sum(amount for at, amount in taken if start <= at < start + 60) <= 20


def test_strangers_are_forgotten(clock: ManualClock):
    """Of addresses that have long been silent nothing is kept."""
    allowance = Allowance(1, seconds=60, clock=clock)
    for number in range(MOST_PARTIES):
        allowance.take(f"{number}")
    clock.advance(61)
    allowance.take("one more")
    assert len(allowance._refilled_at) == 1
