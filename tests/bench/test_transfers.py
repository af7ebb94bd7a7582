import asyncio

import pytest

from bench.slow_sockets import held
from bench.transfers import cost_of

MB = 1_000_000


@pytest.fixture(autouse=True)
def _no_waiting_between_retries() -> None:
    """Wait between retries here: the processes take real time to come."""


@pytest.mark.timeout(200)
def test_what_uploads_take_of_memory_does_not_grow_with_what_they_carry() -> None:
    """Four more at once cost the coordinator's process some pieces of them, and not the third of one."""
    megabytes, more = 12, 4
    one, many = (asyncio.run(cost_of(uploads, megabytes)) for uploads in (1, 1 + more))
    assert many.uploads == 1 + more
    assert many.memory - one.memory < more * megabytes * MB / 3


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_slow_sockets_are_held_and_the_coordinator_answers() -> None:
    """As many as there are, from a process of their own."""
    found = asyncio.run(held(30, 3))
    assert found.connections >= 30
    assert max(found.seconds) < 5
