import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.federation import Federation, ManualClock, open_federation
from bench.no_op import InProcess, NoOpTrainer
from services.coordinator.context import Context
from services.coordinator.reconciling import reconciling
from services.coordinator.records import Round
from services.coordinator.rounds import Advanced
from services.coordinator.store import SqlStore
from services.coordinator.transaction import Transaction
from shared.errors import LeaseLost, RequestReplayed, StoreBusy
from shared.protocol.messages import RunView
from shared.protocol.rounds import ENDED_RUNS, RoundState, RunState
from shared.protocol.terms import CohortTerms, RunTerms
from tests.support.cotuners import AddingCoTuner
from tests.support.federations import AGENTS, LLM_LAYOUT, RUN, SLM_LAYOUT, begin, coordinator, lease, submit, terms_of

pytestmark = pytest.mark.anyio


class PowerCut(BaseException):
    """The coordinator dies here."""


class Mortal:
    """Lets the coordinator die right before one of its commits: with the files of the change, without its rows."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.commits = 0
        self.die_before: int | None = None
        real = SqlStore.write

        @contextmanager
        def write(store: SqlStore) -> Iterator[Transaction]:
            with real(store) as transaction:
                database = transaction._rows._connection.connection.driver_connection
                before = database.total_changes
                yield transaction
                if database.total_changes == before:
                    return  # nothing that a restart could miss
                self.commits += 1
                if self.commits == self.die_before:
                    raise PowerCut

        patch.setattr(SqlStore, "write", write)


def patient(rounds: int) -> RunTerms:
    """Return terms by which a round waits for both agents, however long a restart takes."""
    return terms_of(rounds=rounds, cohort=CohortTerms(min_count=2, max_count=2, min_seconds=999, max_seconds=999))


def results(everybody: Federation) -> list[tuple[Any, ...]]:
    """Return everything that a run decides: states, counts and digests of all rounds."""
    with everybody.context.store.read() as tx:
        run = tx.run(RUN)
        rounds = [
            (at.number, at.state, at.accepted, at.slm_adapter, at.aggregate, at.slm_candidate, at.llm_candidate)
            for at in tx.rounds(RUN)
        ]
        return [(run.state, run.slm_adapter, run.llm_adapter, run.published_round), *rounds]


class Household:
    """Everybody of a federation whose processes come and go while their folders and trainers stay."""

    def __init__(self, folder: Path, clock: ManualClock) -> None:
        self._folder = folder
        self.clock = clock
        self._trainers = {name: NoOpTrainer() for name in AGENTS}

    @property
    def trainings(self) -> int:
        """Return how often anybody trained."""
        return sum(trainer.trainings for trainer in self._trainers.values())

    def open(self) -> Any:  # noqa: ANN401 - a context manager
        """Start all processes on their folders."""
        trainers = {name: InProcess(trainer) for name, trainer in self._trainers.items()}
        return open_federation(self._folder, trainers, AddingCoTuner(SLM_LAYOUT, LLM_LAYOUT), self.clock)


async def played(household: Household, act: Callable[[Federation], Any], *, rounds: int = 2) -> list[tuple[Any, ...]]:
    """Play a run; a power cut ends all processes, which start again and finish."""
    try:
        async with household.open() as everybody:
            await act(everybody)
            await everybody.finish(RUN)
            return results(everybody)
    except PowerCut:
        async with household.open() as everybody:
            view = await everybody.operator.call("PUT", f"/v1/runs/{RUN}", RunView, body=patient(rounds))
            if view.state not in ENDED_RUNS:
                await everybody.start(RUN, patient(rounds))
                await everybody.finish(RUN)
            return results(everybody)


async def started(everybody: Federation) -> None:
    """Make and start the run."""
    await everybody.start(RUN, patient(2))


async def test_a_coordinator_that_restarts_in_any_state_goes_on(tmp_path: Path, clock: ManualClock) -> None:
    """Reopened in every state of a round, the run ends with the same digests as without any restart."""
    expected = await played(Household(tmp_path / "whole", clock), started)
    assert expected[0][0] is RunState.FINISHED
    household = Household(tmp_path / "torn", clock)
    seen: set[RoundState] = set()
    actions = (
        lambda f: asyncio.to_thread(f.context.rounds.reconcile),
        lambda f: f.work(),
        lambda f: f.agents["ada"].step(wait_seconds=0),
        lambda f: f.agents["bob"].step(wait_seconds=0),
    )
    async with household.open() as everybody:
        await started(everybody)
    for index in range(40):  # every process starts anew for every action, and dies after it
        async with household.open() as everybody:
            await actions[index % 4](everybody)
            with everybody.context.store.read() as tx:
                seen |= {current.state for current in tx.rounds(RUN)}
                if tx.run(RUN).state is RunState.FINISHED:
                    break
    async with household.open() as everybody:
        assert results(everybody) == expected
    assert {RoundState.OPEN, RoundState.AGGREGATED, RoundState.EVALUATING, RoundState.PUBLISHED} <= seen
    assert household.trainings == 4


async def test_a_coordinator_that_dies_at_any_commit_goes_on(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before each commit of a run, it ends with the same digests, and nobody trains twice."""

    async def start(everybody: Federation) -> None:
        await everybody.start(RUN, patient(1))

    mortal = Mortal(monkeypatch)
    expected = await played(Household(tmp_path / "whole", clock), start, rounds=1)
    commits = mortal.commits
    assert commits > 9
    for index in range(1, commits + 1):
        mortal.commits, mortal.die_before = 0, index
        household = Household(tmp_path / str(index), clock)
        assert await played(household, start, rounds=1) == expected, f"commit {index}"
        assert household.trainings == 2, f"commit {index}"


async def test_an_aggregation_that_was_torn_is_done_again(tmp_path: Path, clock: ManualClock) -> None:
    """A crash between the aggregate's file and its row leaves a file that nobody names, and the same aggregate."""
    expected = await played(Household(tmp_path / "whole", clock), started)

    async def torn(everybody: Federation) -> None:
        await started(everybody)
        await everybody.work()
        for agent in everybody.agents.values():
            await agent.step(wait_seconds=0)
        honest = everybody.context.rounds._plaintext.aggregate

        def aggregate(*args: Any) -> None:  # noqa: ANN401 - passed on
            honest(*args)
            raise PowerCut

        everybody.context.rounds._plaintext.aggregate = aggregate
        everybody.context.rounds.reconcile()

    assert await played(Household(tmp_path / "torn", clock), torn) == expected


def test_a_round_waits_as_long_as_its_coordinator_was_away(tmp_path: Path, clock: ManualClock) -> None:
    """Nobody could send meanwhile, so the round's clock starts again, as after a pause; what was stored counts."""
    with coordinator(tmp_path, clock) as context:
        begin(context, terms_of(cohort=CohortTerms(min_count=2, max_count=3, min_seconds=10, max_seconds=60)))
        submit(context, "ada")
    clock.advance(61)
    with coordinator(tmp_path, clock) as context:
        context.rounds.reconcile()
        assert [view.state for view in context.lifecycle.rounds(RUN).rounds] == [RoundState.OPEN]
        submit(context, "bob")
        clock.advance(10)
        context.rounds.reconcile()
        assert [(view.state, view.accepted) for view in context.lifecycle.rounds(RUN).rounds] == [
            (RoundState.AGGREGATED, 2)
        ]


@pytest.mark.parametrize("state", [RunState.RUNNING, RunState.PAUSED])
def test_a_worker_keeps_its_lease_while_its_coordinator_is_away(
    state: RunState, tmp_path: Path, clock: ManualClock
) -> None:
    """Its heartbeats could reach nobody: it has a whole lease's time to be heard of, and no longer."""
    with coordinator(tmp_path, clock) as context:
        begin(context)
        submit(context, "ada")
        submit(context, "bob")
        context.rounds.reconcile()
        granted = lease(context)
        context.work.heartbeat(granted.job_id, granted.token)
        if state is RunState.PAUSED:
            context.lifecycle.pause(RUN, actor="operator")
    clock.advance(31)
    with coordinator(tmp_path, clock) as context:
        context.lifecycle.start(RUN, actor="operator")
        clock.advance(29)
        context.rounds.reconcile()
        context.work.heartbeat(granted.job_id, granted.token)
        clock.advance(30)
        context.rounds.reconcile()
        with pytest.raises(LeaseLost):
            context.work.heartbeat(granted.job_id, granted.token)


def test_one_coordinator_owns_a_folder(tmp_path: Path, clock: ManualClock) -> None:
    """A second one on the same folder is refused while the first runs, and may have it afterwards."""
    with (
        coordinator(tmp_path, clock),
        pytest.raises(StoreBusy, match="another coordinator"),
        coordinator(tmp_path, clock),
    ):
        pass
    with coordinator(tmp_path, clock):
        pass


def test_a_start_sweeps_what_a_crash_left(tmp_path: Path, clock: ManualClock) -> None:
    """Half-written uploads of a coordinator that was killed are gone after its next start."""
    leftover = tmp_path / "blobs" / "incoming" / "half"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half")
    with coordinator(tmp_path, clock):
        assert not leftover.exists()


class Reconciler:
    """Reconciles badly at first."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self.passes = 0
        self.enough = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._ring = ring

    def advance(self) -> Advanced:
        """Fail twice, then work."""
        self.passes += 1
        self._ring()
        if self.passes < 3:
            raise ZeroDivisionError
        self._loop.call_soon_threadsafe(self.enough.set)
        return Advanced((), well=True)


async def test_the_reconciler_survives_an_exception(context: Context) -> None:
    """One bad pass does not end all passes, and a change wakes the next one at once."""
    engine = Reconciler(context.changes.ring)
    async with reconciling(replace(context, rounds=engine)):
        async with asyncio.timeout(0.9):  # less than its own second: the bell woke it
            await engine.enough.wait()


async def test_the_reconciler_ends_with_its_coordinator(context: Context) -> None:
    """Nothing reconciles a store that is being closed."""
    engine = Reconciler(lambda: None)
    async with reconciling(replace(context, rounds=engine)):
        while not engine.passes:
            await asyncio.sleep(0)
    passes = engine.passes
    context.changes.ring()
    await asyncio.sleep(0)
    assert engine.passes == passes


async def test_what_has_come_is_forgotten_in_time(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nonces of requests that are refused for their age by now do not stay for ever."""
    monkeypatch.setattr("services.coordinator.reconciling.FORGET_SECONDS", -1.0)
    nonces = context.admission._nonces
    nonces.remember("ada", "0123456789abcdef", until=0.0)
    async with reconciling(context), asyncio.timeout(5):
        while True:
            try:
                nonces.remember("ada", "0123456789abcdef", until=1e12)
            except RequestReplayed:
                await asyncio.sleep(0.01)
            else:
                break


class LongSum:
    """Adds up until it is overtaken by the end of its coordinator, or is not for a while."""

    def __init__(self) -> None:
        self.began, self.closed, self.ended = threading.Event(), threading.Event(), threading.Event()
        self.overtaken = False

    def advance(self) -> Advanced:
        """Find a sum that is due."""
        return Advanced((Round("run", 1, "", "", entered={}),), well=True)

    def add_up(self, _: Round) -> bool:
        """Work on a folder that must not be given up meanwhile."""
        self.began.set()
        self.overtaken = self.closed.wait(0.2)
        self.ended.set()
        return True


async def test_a_coordinator_that_is_stopped_ends_its_sum_first(context: Context) -> None:
    """Ctrl-C in the middle of an aggregation: the folder is given up when the thread is done with it, not before."""
    engine = LongSum()

    async def serve() -> None:
        try:
            async with reconciling(replace(context, rounds=engine)):
                await asyncio.to_thread(engine.began.wait)
                asyncio.current_task().cancel()  # Ctrl-C cancels at the next await, which is that of the block's end
        finally:
            engine.closed.set()

    await asyncio.wait([asyncio.create_task(serve())])
    await asyncio.to_thread(engine.ended.wait)
    assert not engine.overtaken
