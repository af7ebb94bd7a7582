"""Real processes over real sockets, killed in the middle; training moves bytes only (bench/round_processes.py)."""

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from bench.round import SETTINGS, check_aggregates
from examples.demo.processes import LocalFederation, local_federation
from shared.protocol.messages import EventList, RoundList, RunView
from shared.protocol.rounds import ENDED_RUNS, RunState
from shared.transport import Transport

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(100)]

COMMAND = [sys.executable, "-m", "bench.round_processes"]
RUN = "/v1/runs/bench"
PLAIN, _ = SETTINGS
AGENTS = PLAIN.agents
ROUNDS = 4


@pytest.fixture(autouse=True)
def _no_waiting_between_retries() -> None:
    """Wait between retries here: the processes take real time to come back."""


async def start_agent(federation: LocalFederation, name: str) -> None:
    await federation.start_agent(name, [*COMMAND, "agent"], slm="none", data=Path(os.devnull), allow_plaintext=True)


async def start_everything(federation: LocalFederation, stack: AsyncExitStack) -> Transport:
    await federation.start_coordinator()
    operator = await stack.enter_async_context(federation.operator())
    await federation.start_worker([*COMMAND, "worker"], auxiliary=Path(os.devnull), validation=Path(os.devnull))
    for name in AGENTS:
        await start_agent(federation, name)
    await operator.call("PUT", RUN, RunView, body=PLAIN.terms(ROUNDS))
    await operator.call("POST", f"{RUN}/start", RunView)
    await federation.sign(operator, "bench", PLAIN.terms(ROUNDS))
    return operator


async def reach(operator: Transport, kind: str, count: int) -> None:
    """Wait until the run's log has this many events of a kind."""
    after = 0
    while count > 0:
        page = await operator.call("GET", f"{RUN}/events", EventList, params={"after": after, "wait_seconds": 10})
        after = page.last
        count -= sum(event.kind == kind for event in page.events)


async def finished(operator: Transport) -> RunView:
    after = 0
    while (run := await operator.call("GET", RUN, RunView)).state not in ENDED_RUNS:
        page = await operator.call("GET", f"{RUN}/events", EventList, params={"after": after, "wait_seconds": 10})
        after = page.last
    return run


async def kill(federation: LocalFederation, name: str) -> None:
    """SIGKILL a process and everything that it started."""
    process = federation.processes.running.pop(name)
    os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


async def until_held(folder: Path, digest: str) -> None:
    """Wait until every agent holds the adapter."""
    for name in AGENTS:
        while digest not in (folder / name / "published.json").read_text():
            await asyncio.sleep(0.05)


async def test_a_run_survives_the_kill_of_each_of_its_processes(tmp_path: Path):
    """Coordinator, worker and an agent are killed in different rounds: nothing is lost, nothing is counted twice."""
    async with local_federation(tmp_path, AGENTS) as federation, AsyncExitStack() as stack:
        operator = await start_everything(federation, stack)

        await reach(operator, "update.accepted", 1)
        await kill(federation, "coordinator")
        await federation.start_coordinator()
        await reach(operator, "round.published", 1)
        await kill(federation, AGENTS[0])
        await start_agent(federation, AGENTS[0])
        await reach(operator, "round.cotuning", 2)
        await kill(federation, "worker")
        await federation.start_worker([*COMMAND, "worker"], auxiliary=Path(os.devnull), validation=Path(os.devnull))

        run = await finished(operator)
        assert run.state is RunState.FINISHED
        views = (await operator.call("GET", f"{RUN}/rounds", RoundList)).rounds
        assert run.published is not None
        await until_held(tmp_path, run.published.digest)
        check_aggregates(tmp_path, PLAIN, views)


async def test_a_polite_kill_leaves_one_whole_database_file(tmp_path: Path):
    """SIGTERM, which is what service managers send, ends a coordinator as Ctrl-C does."""
    async with local_federation(tmp_path, AGENTS) as federation:
        await federation.start_coordinator()
        async with federation.operator() as operator:
            await operator.call("PUT", RUN, RunView, body=PLAIN.terms(ROUNDS))
        process = federation.processes.running.pop("coordinator")
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    assert [file.name for file in (tmp_path / "coordinator").glob("coordinator.db*")] == ["coordinator.db"]
