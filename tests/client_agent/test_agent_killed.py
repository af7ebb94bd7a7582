from pathlib import Path
from typing import Any

import pytest

from bench.federation import Federation, ManualClock, client_of, make_agent, open_federation
from bench.no_op import InProcess, NoOpTrainer
from services.client_agent.agent import Agent
from services.client_agent.state import StateFolder
from services.client_agent.status import Status
from shared.protocol.rounds import RunState
from tests.support.cotuners import AddingCoTuner
from tests.support.federations import LLM_LAYOUT, RUN, SLM_LAYOUT, federation, terms_of

pytestmark = pytest.mark.anyio

SLM = "the/agents/own/slm"


class Kill(BaseException):
    """The agent's process ends here."""


class Life:
    """Counts an agent's steps through its doors (coordinator, trainer, folder), and ends it right after one of them."""

    def __init__(self, ends_after: int | None) -> None:
        self.steps: list[str] = []
        self._ends_after = ends_after

    def step(self, name: str) -> None:
        """Note a step that was taken; the last one is noted by nobody but this test."""
        self.steps.append(name)
        if len(self.steps) == self._ends_after:
            raise Kill

    def door(self, inner: object) -> Any:  # noqa: ANN401 - stands for whatever it wraps
        """Return ``inner`` with every call of it counted, once it is done."""
        return Door(self, inner)


class Door:
    """One of an agent's doors."""

    def __init__(self, life: Life, inner: object) -> None:
        self._life = life
        self._inner = inner

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the door leads to
        """Return a method that counts itself, or a value as it is."""
        value = getattr(self._inner, name)
        if name in {"wanted", "manifest", "fetch_adapter", "send_update", "train"}:

            async def awaited(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - passed on
                answer = await value(*args, **kwargs)
                self._life.step(name)
                return answer

            return awaited
        if name in {"keep_published", "keep_update"}:

            def called(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - passed on
                answer = value(*args, **kwargs)
                self._life.step(name)
                return answer

            return called
        return value


def ada(everybody: Federation, trainer: NoOpTrainer, folder: Path, life: Life) -> Agent:
    """Return a new agent of ada's on her folder: what a restarted process is."""
    client = client_of(everybody.transports["ada"])
    return make_agent(
        "ada",
        life.door(client),
        life.door(InProcess(trainer)),
        life.door(StateFolder(folder / "ada")),
        Status(),
        slm=SLM,
    )


async def finished(everybody: Federation) -> str:
    """Play the run to its end and return the digest of its last theta."""
    view = await everybody.finish(RUN)
    assert view.state is RunState.FINISHED
    assert view.published is not None
    return view.published.digest


async def test_an_agent_killed_between_any_two_steps_goes_on(tmp_path: Path, clock: ManualClock) -> None:
    """Killed after each of its steps, it resumes: same digests, and nothing that was kept is trained again."""
    async with federation(tmp_path / "whole", clock) as everybody:
        await everybody.start(RUN, terms_of())
        expected = await finished(everybody)
    killed_at: list[str] = []
    for ends_after in range(1, 100):
        folder, trainer, life = tmp_path / str(ends_after), NoOpTrainer(), Life(ends_after)
        trainers = {"ada": InProcess(trainer), "bob": InProcess(NoOpTrainer())}
        async with open_federation(folder, trainers, AddingCoTuner(SLM_LAYOUT, LLM_LAYOUT), clock) as everybody:
            await everybody.start(RUN, terms_of())
            everybody.agents["ada"] = ada(everybody, trainer, folder, life)
            try:
                digest = await finished(everybody)
            except Kill:
                everybody.agents["ada"] = ada(everybody, trainer, folder, Life(None))
                digest = await finished(everybody)
                killed_at.append(life.steps[-1])
            else:
                break
            assert digest == expected, f"killed after {life.steps}"
            # What was trained but not yet kept is lost, and only that.
            lost = life.steps[-1] == "train"
            assert trainer.trainings == 1 + lost, f"killed after {life.steps}"
            assert StateFolder(folder / "ada").published.digest == expected
    else:
        pytest.fail("the agent never lived to the end")
    assert {"wanted", "manifest", "fetch_adapter", "train", "keep_update", "send_update", "keep_published"} == {
        *killed_at
    }
