"""An agent whose network is away for hours: the federation goes on without it, and it with the federation after."""

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bench.federation import Federation, ManualClock, client_of, key_of, make_agent
from bench.no_op import InProcess, NoOpTrainer
from services.client_agent.state import StateFolder
from services.client_agent.status import Phase, Status
from shared.errors import TransportError
from shared.logs import TroubleLog
from shared.protocol.rounds import RoundState, RunState
from shared.protocol.terms import CohortTerms
from tests.support.federations import RUN, federation, terms_of
from tests.support.members import certificate
from tests.support.outages import Sleepers, cabled, sleeping
from tests.support.players import FOUR, SECURE

pytestmark = pytest.mark.anyio

HOUR = 3600.0
ALL = CohortTerms(min_count=4, max_count=4, min_seconds=10, max_seconds=HOUR)


async def until(done: Callable[[], bool], opened: Federation, sleepers: Sleepers) -> None:
    """Let everybody act, and time pass, until something is so."""
    for _ in range(200):
        if done():
            return
        await opened.step()
        await sleepers.pass_time(2)
    raise TimeoutError


async def test_hours_without_a_network_cost_an_agent_the_rounds_meanwhile_and_nothing_else(
    tmp_path: Path, clock: ManualClock
) -> None:
    """Cut off between two stages of an attempt, it misses the end of one run and its membership's, and goes on."""
    async with federation(tmp_path, clock, agents=FOUR) as opened:
        status, trouble = Status(clock=clock), TroubleLog("http://coordinator", clock)

        def on_retry(problem: TransportError | None) -> None:
            status.retrying(problem)
            trouble(problem)

        def state() -> RoundState | None:
            with opened.context.store.read() as tx:
                live = tx.live_round(tx.run(RUN))
                return None if live is None else live.state

        membership, key = opened.context.membership, key_of("ada").public
        membership.approve("ada", certificate("ada", key, not_after=int(clock() + HOUR)), actor="operator")
        async with cabled(opened, "ada", status, on_retry) as (transport, cable):
            with sleeping(clock) as sleepers, capture_logs() as lines:
                ada = make_agent(
                    *("ada", client_of(transport), InProcess(NoOpTrainer()), StateFolder(tmp_path / "ada"), status),
                    pause=sleepers.sleep,
                    clock=clock,
                )
                opened.agents["ada"] = ada
                await opened.start(RUN, terms_of(rounds=2, **SECURE))
                while state() is not RoundState.MASKED:
                    await opened.step()
                del opened.agents["ada"]
                cable.is_cut, cut_at = True, clock()
                running = asyncio.create_task(ada.run())
                await until(lambda: state() is None, opened, sleepers)
                assert [each.accepted for each in (await opened.rounds(RUN)).rounds] == [3, 3]
                assert (await opened.run(RUN)).state is RunState.FINISHED

                await sleepers.pass_time(6 * HOUR)
                membership.approve("ada", certificate("ada", key), actor="operator")
                seen = status.view()
                assert (seen.phase, seen.heard) == (Phase.WAITING, f"attempt 1 of round 1 of run {RUN} waits for it")
                assert seen.error is not None
                assert seen.error.startswith("unreachable: http://coordinator/v1/wanted did not answer")
                assert seen.error_since is not None
                assert cut_at <= seen.error_since.timestamp() < cut_at + 1
                assert seen.answered_at is not None
                assert seen.answered_at.timestamp() <= cut_at
                assert not running.done()

                cable.is_cut = False
                await opened.start("second", terms_of(seed=2, **{**SECURE, "cohort": ALL}))
                await until(lambda: status.holding is not None and status.holding.run_id == "second", opened, sleepers)
                (again,) = (await opened.rounds("second")).rounds
                assert (again.state, again.accepted) == (RoundState.PUBLISHED, 4)
                assert (status.view().error, status.view().error_since) == (None, None)
                running.cancel()
    told = Counter(line["event"] for line in lines)
    assert told["coordinator.answers_again"] == 1
    assert told["coordinator.trouble"] <= 7
    assert not told["agent.failed"]
