"""Agents that leave and join while a run goes on: nobody waits for who has left, and who comes is in from then on."""

from pathlib import Path

import pytest

from bench.federation import Federation, ManualClock, key_of
from services.coordinator.records import Round
from shared.errors import RemoteProblem
from shared.protocol.rounds import RoundState, RunState
from shared.protocol.terms import CohortTerms
from tests.support.federations import RUN, federation, kinds, terms_of
from tests.support.members import certificate, enrolment, invited
from tests.support.players import FOUR, SECURE

pytestmark = pytest.mark.anyio

FIVE = (*FOUR, "eve")
ALL = {**SECURE, "cohort": CohortTerms(min_count=3, max_count=5, min_seconds=10, max_seconds=60)}


def live(opened: Federation) -> Round | None:
    """Return the run's round, once there is one."""
    with opened.context.store.read() as tx:
        return tx.live_round(tx.run(RUN))


async def until(opened: Federation, state: RoundState, number: int = 1) -> None:
    """Step until a round is in a state."""
    while (current := live(opened)) is None or (current.number, current.state) != (number, state):
        await opened.step()
        opened.clock.advance(1)


async def leave(opened: Federation, name: str) -> None:
    """Stop an agent as SIGTERM does."""
    await opened.agents.pop(name)._coordinator.leave()


async def test_a_cohort_does_not_close_with_an_agent_that_has_left(tmp_path: Path, clock: ManualClock) -> None:
    """It was ready, and its keys would not come: it is no member of the attempt, which loses nobody."""
    async with federation(tmp_path, clock, agents=FOUR) as opened:
        await opened.start(RUN, terms_of(**ALL))
        await opened.step()
        assert live(opened).accepted == 4
        await leave(opened, "bob")
        assert live(opened).accepted == 3
        assert "update.withdrawn" in kinds(opened.context)
        clock.advance(11)
        assert (await opened.finish(RUN)).state is RunState.FINISHED
        (ended,) = (await opened.rounds(RUN)).rounds
        assert (ended.accepted, ended.attempts) == (3, 1)


async def test_an_agent_that_was_started_again_is_in_the_same_round(tmp_path: Path, clock: ManualClock) -> None:
    """It has trained already, and says once more that it is ready; one that had left before it was ready had no say."""
    async with federation(tmp_path, clock, agents=FOUR) as opened:
        await opened.agents["bob"]._coordinator.leave()
        await opened.start(RUN, terms_of(**ALL))
        await opened.step()
        bob = opened.agents["bob"]
        await leave(opened, "bob")
        opened.agents["bob"] = bob
        await opened.step()
        assert live(opened).accepted == 4
        clock.advance(11)
        assert (await opened.finish(RUN)).state is RunState.FINISHED
        assert opened.statuses["bob"].rounds_taken_part == 1
        assert bob._trainer._trainer.trainings == 1


@pytest.mark.parametrize("stage", [RoundState.KEYS, RoundState.UNMASKING])
async def test_no_stage_waits_for_an_agent_that_has_left(stage: RoundState, tmp_path: Path, clock: ManualClock) -> None:
    """Of five one leaves at a stage: the round is published, and not a second of the stage's time has passed."""
    async with federation(tmp_path, clock, agents=FIVE) as opened:
        await opened.start(RUN, terms_of(**ALL))
        while (current := live(opened)) is None or current.state is not stage:
            await opened.step()
        began = clock()
        await leave(opened, "bob")
        assert (await opened.finish(RUN)).state is RunState.FINISHED
        assert clock() == began


async def test_who_is_approved_in_the_middle_of_a_run_is_in_its_next_round(tmp_path: Path, clock: ManualClock) -> None:
    """Until then it is told that it is no member; whoever was revoked and invited again, under the same name, too."""
    async with federation(tmp_path, clock, agents=FIVE) as opened:
        membership, key = opened.context.membership, key_of("eve")
        membership.revoke("eve", "on holiday", actor="operator")
        eve = opened.agents.pop("eve")
        await opened.start(RUN, terms_of(rounds=2, **ALL))
        await until(opened, RoundState.MASKED)
        with pytest.raises(RemoteProblem, match="was revoked"):
            await eve.step(wait_seconds=0)
        membership.enrol(enrolment(invited(opened.context, "eve"), key, "eve"))
        with pytest.raises(RemoteProblem, match="is not approved yet"):
            await eve.step(wait_seconds=0)
        membership.approve("eve", certificate("eve", key.public), actor="operator")
        opened.agents["eve"] = eve
        while (await opened.run(RUN)).state is RunState.RUNNING:
            await opened.step()
            clock.advance(1)
        assert [each.accepted for each in (await opened.rounds(RUN)).rounds] == [4, 5]
