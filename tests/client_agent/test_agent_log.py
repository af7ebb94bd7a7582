"""What an agent that is well logs: enough to see that it takes part, and nothing of its data."""

import subprocess
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bench.federation import ManualClock, client_of, make_agent, open_federation
from bench.no_op import InProcess, NoOpTrainer
from services.client_agent.state import StateFolder
from services.client_agent.status import Status
from services.client_agent.trainer import Trained, TrainingOrder
from shared.backoff import Backoff
from shared.errors import RemoteProblem
from shared.protocol.messages import Wanted
from shared.protocol.terms import CohortTerms
from tests.support.cotuners import AddingCoTuner
from tests.support.federations import LLM_LAYOUT, RUN, SLM_LAYOUT, adapter, federation, terms_of

pytestmark = pytest.mark.anyio


class SlowTrainer:
    """Trains nothing, for 90 seconds by the clock."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._inner = InProcess(NoOpTrainer())

    async def train(self, order: TrainingOrder, on_progress: object) -> Trained:
        """Take the time that it takes."""
        self._clock.advance(90)
        return await self._inner.train(order, on_progress)


async def test_a_round_can_be_followed_in_the_agents_log(tmp_path: Path, clock: ManualClock) -> None:
    """That it takes part, how long it trained, what it sent, which adapter it holds; no loss and no example."""
    trainers = {"ada": SlowTrainer(clock)}
    async with open_federation(tmp_path, trainers, AddingCoTuner(SLM_LAYOUT, LLM_LAYOUT), clock) as everybody:
        everybody.agents["ada"] = make_agent(
            "ada",
            client_of(everybody.transports["ada"]),
            trainers["ada"],
            StateFolder(tmp_path / "ada"),
            everybody.statuses["ada"],
            slm="slm",
            clock=clock,
        )
        with capture_logs() as lines:
            await everybody.start(RUN, terms_of())
            view = await everybody.finish(RUN)
    told = [line for line in lines if line["event"].startswith("agent.")]
    of_round = {"run_id": RUN, "round": 1, "log_level": "info"}
    assert told == [
        {"event": "agent.takes_part", **of_round},
        {
            "event": "agent.plaintext",
            "run_id": RUN,
            "log_level": "warning",
            "detail": "the coordinator can read this agent's updates",
        },
        {"event": "agent.trained", **of_round, "steps": told[2]["steps"], "seconds": 90.0},
        {"event": "agent.sent", **of_round, "bytes": len(adapter(0.0))},
        {"event": "agent.holds", **of_round, "digest": view.published.digest},
    ]


async def test_what_fails_for_hours_is_a_line_an_hour(tmp_path: Path, clock: ManualClock) -> None:
    """With how often it has failed; what fails after something went well is told at once."""
    answers = iter([*[RemoteProblem("not_a_member", 403, "it is over")] * 181, None, RemoteProblem("x", 500, "y")])

    class Refusing:
        async def wanted(self, *_: object, **__: object) -> Wanted:
            if (problem := next(answers)) is not None:
                raise problem
            return Wanted(assignment=None, published=None, second_at=clock())

    async def pause(seconds: float) -> None:
        clock.advance(seconds)

    slowest = Backoff(60.0, 60.0, lambda: 1.0)
    state, status = StateFolder(tmp_path), Status(clock=clock)
    agent = make_agent(
        *("ada", Refusing(), InProcess(NoOpTrainer()), state, status), pause=pause, clock=clock, backoff=slowest
    )
    with capture_logs() as lines, pytest.raises((StopAsyncIteration, RuntimeError)):
        await agent.run()
    told = [(line["event"], line.get("code"), line["times"]) for line in lines]
    hourly = [("agent.failed", "not_a_member", times) for times in (1, 61, 121, 181)]
    assert told == [*hourly, ("agent.runs_twice", None, 1), ("agent.failed", "x", 1)]


async def test_with_whom_an_agent_masks_is_told_to_its_organisation(tmp_path: Path, clock: ManualClock) -> None:
    """An operator could certify members that nobody runs; who knows whom there should be can see that."""
    cohort = CohortTerms(min_count=3, max_count=3, min_seconds=10, max_seconds=60)
    async with federation(tmp_path, clock, agents=("ada", "bob", "cleo")) as everybody:
        await everybody.start(RUN, terms_of(aggregation="SecureAggregation", cohort=cohort))
        with capture_logs() as lines:
            await everybody.finish(RUN)
    assert [line["members"] for line in lines if line["event"] == "agent.masks"] == ["ada, bob, cleo"] * 3


def test_what_a_library_will_change_one_day_is_no_line_of_a_services_log() -> None:
    """It is for that library's developers: nobody who runs a service can mend it."""
    program = (
        "import warnings; from shared.logs import log_to_stderr; log_to_stderr(); warnings.warn('x', FutureWarning)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)  # noqa: S603
    assert ended.stderr == ""
