"""What a command knows of the run that it follows."""

from pathlib import Path

import pytest

from bench.federation import ManualClock, token_of
from services.coordinator.app import create_app
from services.coordinator.cli.following import Followed, catch_up
from shared.credentials import BearerToken
from shared.egress import TrafficCount
from shared.transport import open_in_process
from tests.support.federations import RUN, begin, coordinator

pytestmark = pytest.mark.anyio


async def test_a_round_whose_clock_starts_again_is_known_to(tmp_path: Path, clock: ManualClock) -> None:
    """A coordinator that was away gives the agents their time again, without an event: it is seen all the same."""
    followed = Followed()
    for restarted in (False, True):
        with coordinator(tmp_path / "coordinator", clock) as context:
            if not restarted:
                begin(context)
            token = BearerToken(token_of("operator"))
            async with open_in_process(create_app(context), token, TrafficCount()) as operator:
                assert await catch_up(operator, RUN, followed, wait_seconds=0) is not restarted
            assert [row.since for row in followed.rounds] == [clock()]
        clock.advance(60)
