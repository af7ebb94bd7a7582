"""`/healthz` of an agent, which a container's health check asks: whether it takes part, and if not why."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from bench.federation import ManualClock, client_of, make_agent, open_federation
from bench.no_op import InProcess, NoOpTrainer
from services.client_agent import agent
from services.client_agent.state import StateFolder
from services.client_agent.status import Status
from services.client_agent.status_page import create_status_page
from services.client_agent.trainer import Progress, Trained, TrainingOrder
from shared.credentials import BearerToken
from shared.errors import TrainerStopped
from shared.transport import Transport, WithoutSocket
from tests.support.agents import ADA
from tests.support.cotuners import AddingCoTuner
from tests.support.federations import LLM_LAYOUT, RUN, SLM_LAYOUT, terms_of

pytestmark = pytest.mark.anyio

WELL = (200, "ok")
NOTHING = {"assignment": None, "summons": None, "published": None}


class Enough(Exception):
    """Ends a loop that goes on for ever."""


async def health(status: Status) -> tuple[int, str]:
    """Ask for an agent's health as a health check does."""
    page = httpx.ASGITransport(app=create_status_page(status, ADA))
    async with httpx.AsyncClient(transport=page, base_url="http://page") as http:
        answer = await http.get("/healthz")
    return answer.status_code, answer.json()["status"]


async def run_against(
    coordinator: Callable[[httpx.Request], httpx.Response], status: Status, folder: Path, *, steps: int
) -> None:
    """Run an agent, which must not train, until a step fails or it asks for more than ``steps`` answers."""

    async def pause(seconds: float) -> None:
        if seconds != agent.LEAST_POLL_SECONDS:
            raise Enough

    left = iter(range(steps))

    async def answer(request: httpx.Request) -> httpx.Response:
        if next(left, None) is None:
            raise Enough
        return coordinator(request)

    async with httpx.AsyncClient(
        transport=WithoutSocket(httpx.MockTransport(answer)), base_url="http://coordinator"
    ) as client:
        transport = Transport(client, BearerToken(""), status.sent, patience_seconds=None, on_retry=status.retrying)
        with pytest.raises(Enough):
            await make_agent(
                "ada",
                client_of(transport),
                InProcess(NoOpTrainer()),
                StateFolder(folder),
                status,
                pause=pause,
                slm="slm",
            ).run()


async def test_an_agent_is_well_once_the_coordinator_has_answered(tmp_path: Path) -> None:
    """Its first question is answered at once, for only the next ones wait until something is wanted."""
    status, waits = Status(), []

    def coordinator(request: httpx.Request) -> httpx.Response:
        waits.append(float(request.url.params["wait_seconds"]))
        return httpx.Response(200, json=NOTHING)

    assert await health(status) == (503, "the coordinator has not answered since the agent started")
    await run_against(coordinator, status, tmp_path, steps=2)
    assert await health(status) == WELL
    assert waits == [0.0, agent.LONGEST_POLL_SECONDS]


async def test_a_token_that_is_refused_makes_an_agent_unwell(tmp_path: Path) -> None:
    """An answer alone is not enough."""
    status = Status()
    refusal = {"type": "about:blank", "title": "No", "status": 401, "detail": "who?", "code": "not_authenticated"}
    await run_against(lambda _: httpx.Response(401, json=refusal), status, tmp_path, steps=1)
    assert await health(status) == (503, "not_authenticated: who? (HTTP 401)")


async def test_a_coordinator_that_goes_away_makes_an_agent_unwell_until_it_is_back(tmp_path: Path) -> None:
    """From the first request that has to be sent again."""
    status, seen = Status(), []

    def coordinator(_: httpx.Request) -> httpx.Response:
        seen.append(status.unwell)
        if len(seen) == 2:
            raise httpx.ConnectError("refused")
        return httpx.Response(200, json=NOTHING)

    await run_against(coordinator, status, tmp_path, steps=4)
    assert seen[1] is seen[3] is None
    assert str(seen[2]).startswith("unreachable: http://coordinator/v1/wanted did not answer")
    assert await health(status) == WELL


async def test_a_failed_training_makes_an_agent_unwell_until_one_has_ended_well(
    tmp_path: Path, clock: ManualClock
) -> None:
    """Also while it trains again: a trainer that is killed after an hour, each time, is not well for that hour."""
    seen, trainer = [], NoOpTrainer()

    class KilledOnce:
        async def train(self, order: TrainingOrder, _: Callable[[Progress], None]) -> Trained:
            seen.append(await health(everybody.statuses["ada"]))
            if len(seen) == 1:
                raise TrainerStopped("killed")
            return trainer.train(order, lambda _: None)

    trainers = {"ada": KilledOnce(), "bob": InProcess(trainer)}
    async with open_federation(tmp_path, trainers, AddingCoTuner(SLM_LAYOUT, LLM_LAYOUT), clock) as everybody:
        await everybody.start(RUN, terms_of())
        await everybody.work()
        ada, status = everybody.agents["ada"], everybody.statuses["ada"]

        async def pause(_: float) -> None:
            seen.append(await health(status))
            raise Enough

        ada._pause = pause
        with pytest.raises(Enough):
            await ada.run()
        await ada.step(wait_seconds=0)
        killed = (503, "trainer_stopped: killed")
        assert seen == [WELL, killed, killed]
        assert await health(status) == WELL
