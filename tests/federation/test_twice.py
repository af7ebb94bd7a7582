"""Two agents by mistake with one name and key: one takes part, and the other is told why it does not."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from bench.federation import FEDERATION, Federation, ManualClock, client_of, key_of, make_agent
from bench.no_op import InProcess, NoOpTrainer, shift_of
from services.client_agent.agent import Agent
from services.client_agent.instance import Instance
from services.client_agent.state import StateFolder
from services.client_agent.status import Status
from services.coordinator.app import create_app
from shared.credentials import SignedRequests
from shared.errors import RemoteProblem
from shared.protocol.codec import decode
from shared.protocol.rounds import RoundState, RunState, data_seed
from shared.transport import open_in_process
from tests.support.federations import RUN, SLM_LAYOUT, federation, terms_of
from tests.support.players import FOUR, SECURE

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def another(opened: Federation, folder: Path, *, told_apart: bool = True) -> AsyncIterator[tuple[Agent, Status]]:
    """Start another agent with ada's name and key, on a folder of its own or on hers."""
    status, trainer = Status(clock=opened.clock), InProcess(NoOpTrainer())
    folder.mkdir(exist_ok=True)
    signing = SignedRequests("ada", key_of("ada"), FEDERATION, opened.clock)
    async with open_in_process(create_app(opened.context), signing, status.sent) as transport:
        client = client_of(transport, Instance(folder) if told_apart else None)
        yield make_agent("ada", client, trainer, StateFolder(folder), status, clock=opened.clock), status


def state(opened: Federation) -> RoundState | None:
    """Return where the run's round is, once there is one."""
    with opened.context.store.read() as tx:
        live = tx.live_round(tx.run(RUN))
        return None if live is None else live.state


def aggregate(opened: Federation) -> np.ndarray:
    """Return the numbers of the first round's aggregate."""
    with opened.context.store.read() as tx:
        digest = tx.round(RUN, 1).aggregate
    blob = opened.context.blobs.path(digest).read_bytes()
    return np.concatenate([values.ravel() for values in decode(blob, SLM_LAYOUT).values()])


async def refused(agent: Agent) -> str:
    """Let an agent ask, and return the code of what it is told."""
    with pytest.raises(RemoteProblem) as problem:
        await agent.step(wait_seconds=0)
    return problem.value.code


async def test_an_agent_on_a_copied_folder_is_refused_in_every_state_of_a_round(
    tmp_path: Path, clock: ManualClock
) -> None:
    """First while the other waits, and then whenever it asks; the first one is told, and its round is as ever."""
    async with federation(tmp_path, clock, agents=FOUR) as opened:
        await opened.step()
        shutil.copytree(tmp_path / "ada", tmp_path / "copy")
        async with another(opened, tmp_path / "copy") as (copy, status):
            ada = opened.agents.pop("ada")
            waits = asyncio.create_task(ada.step(wait_seconds=25))
            while not opened.context.changes.waiting:
                await asyncio.sleep(0)
            assert await refused(copy) == "agent_runs_twice"
            await opened.start(RUN, terms_of(**SECURE))
            await opened.step()
            await waits
            opened.agents["ada"] = ada
            while (await opened.run(RUN)).state is RunState.RUNNING:
                assert await refused(copy) == "agent_runs_twice"
                await opened.step()
            assert status.sent.requests > 5
            assert (await opened.run(RUN)).state is RunState.FINISHED
    assert opened.statuses["ada"].view().second_at is not None
    assert np.allclose(aggregate(opened), np.mean([shift_of(data_seed(RUN, 1, 1, name)) for name in FOUR]), atol=1e-6)


async def test_an_agent_that_was_killed_goes_on_at_once_in_the_same_attempt(tmp_path: Path, clock: ManualClock) -> None:
    """It follows the process before it on its own folder, and is in the sum with what it has masked before."""
    async with federation(tmp_path, clock, agents=FOUR) as opened:
        await opened.start(RUN, terms_of(**SECURE))
        while state(opened) is not RoundState.MASKED:
            await opened.step()
        async with another(opened, tmp_path / "ada") as (restarted, _):
            killed, opened.agents["ada"] = opened.agents["ada"], restarted
            assert (await opened.finish(RUN)).state is RunState.FINISHED
            opened.clock.advance(1)
            assert [each.accepted for each in (await opened.rounds(RUN)).rounds] == [4]
            await killed.step(wait_seconds=0)  # it was not: what followed it was on a copy
            assert await refused(restarted) == "agent_runs_twice"


async def test_two_that_are_not_told_apart_send_no_two_vectors_in_one_attempt(
    tmp_path: Path, clock: ManualClock
) -> None:
    """Copies that say nothing of themselves: the first answer to a stage counts, and the sum is right."""
    async with federation(tmp_path, clock, agents=FOUR) as opened:
        await opened.start(RUN, terms_of(**SECURE))
        while state(opened) is None:
            await opened.step()
        async with (
            another(opened, tmp_path / "ada", told_apart=False) as (first, _),
            another(opened, tmp_path / "copy", told_apart=False) as (second, _),
        ):
            opened.agents["ada"] = first
            while state(opened) is not RoundState.KEYS:
                await opened.step()
            shutil.rmtree(tmp_path / "copy")
            shutil.copytree(tmp_path / "ada", tmp_path / "copy")
            summons = opened.context.rounds.wanted("ada").summons
            await first._member.answer(summons)
            with pytest.raises(RemoteProblem, match="sent something else for the stage keys") as problem:
                await second._member.answer(summons)
            assert problem.value.code == "update_conflict"
            assert (await opened.finish(RUN)).state is RunState.FINISHED
    assert np.allclose(aggregate(opened), np.mean([shift_of(data_seed(RUN, 1, 1, name)) for name in FOUR]), atol=1e-6)
