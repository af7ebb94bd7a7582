"""The hold-out in a federation in memory: what is trained and measured for it, when, and what of it leaves."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from bench.federation import NOBODY, Federation, ManualClock, open_federation
from bench.no_op import InProcess, NoOpTrainer, shift_of
from services.client_agent.holdout import HoldOut
from services.client_agent.holdout_folder import BASE, PUBLISHED, RUNS_KEPT, STANDALONE, HoldOutFolder, Model
from services.client_agent.holdout_report import RunReport, reports
from services.client_agent.state import StateFolder
from services.client_agent.trainer import Answer, GaveWay, SpareTimeOrder, SpareTimeTrainer, StandaloneOrder
from shared.egress import Egress, TrafficCount
from shared.errors import BlobMissing, DataUnreadable, FedCoLLMError
from shared.protocol.codec import flat_numbers
from shared.protocol.digests import digest_of
from shared.protocol.manifest import Manifest
from shared.protocol.messages import Assignment
from shared.protocol.rounds import RunState, data_seed
from shared.protocol.terms import RunTerms
from tests.support.cotuners import AddingCoTuner
from tests.support.federations import LLM_LAYOUT, RUN, SLM_LAYOUT, terms_of
from tests.support.players import FOUR, SECURE

pytestmark = pytest.mark.anyio

TERMS = terms_of(rounds=2, share_aggregate=True)
ZEROS = np.zeros(14, np.float32)


class Recording:
    """Does what ``NoOpTrainer`` does in spare time, or what it is told instead, and keeps what was ordered."""

    def __init__(self, *instead: Answer | FedCoLLMError) -> None:
        self.orders: list[SpareTimeOrder] = []
        self._instead = list(instead)
        self._trainer = InProcess(NoOpTrainer())

    async def between(self, order: SpareTimeOrder) -> Answer:
        """Train or measure."""
        self.orders.append(order)
        if not self._instead:
            return await self._trainer.between(order)
        told = self._instead.pop(0)
        if isinstance(told, FedCoLLMError):
            raise told
        return told

    @property
    def seeds(self) -> list[int]:
        """Of the trainings."""
        return [order.seed for order in self.orders if isinstance(order, StandaloneOrder)]


def opened(
    tmp_path: Path,
    clock: ManualClock,
    spare_time: Mapping[str, SpareTimeTrainer] = NOBODY,
    losses: tuple[float, ...] = (),
) -> AbstractAsyncContextManager[Federation]:
    """Open a federation of which some agents have a hold-out."""
    trainers = {name: InProcess(NoOpTrainer()) for name in ("ada", "bob")}
    cotuner = AddingCoTuner(SLM_LAYOUT, LLM_LAYOUT, losses)
    return open_federation(tmp_path, trainers, cotuner, clock, spare_time=spare_time)


async def played(everybody: Federation, terms: RunTerms = TERMS, run_id: str = RUN) -> None:
    """Play a run to its end."""
    await everybody.start(run_id, terms)
    assert (await everybody.finish(run_id)).state is RunState.FINISHED


def report_in(folder: Path) -> RunReport:
    """Return the newest report of an agent."""
    return reports(folder).runs[0]


def seed_of(number: int, name: str = "ada") -> int:
    """Return the seed of an agent's training for a round."""
    return data_seed(RUN, 1, number, name)


def numbers(file: Path) -> np.ndarray:
    """Return the numbers of an adapter."""
    return flat_numbers(file.read_bytes(), SLM_LAYOUT)


async def test_a_run_is_measured_beside_training_alone(tmp_path: Path, clock: ManualClock) -> None:
    """All four in each round, and the standalone adapter is trained from theta^0 as often, with the run's seeds."""
    async with opened(tmp_path, clock, {"ada": (trainer := Recording())}) as everybody:
        await played(everybody)
    report, folder = report_in(tmp_path / "ada"), HoldOutFolder(tmp_path / "ada")
    assert [(one.round, one.trainings) for one in report.rounds] == [(1, 1), (2, 2)]
    assert report.zero_shot is not None
    assert all(one.standalone and one.aggregate and one.gain for one in report.rounds)
    assert (report.examples, report.chance, report.trouble) == (4, 0.25, None)
    assert trainer.seeds == [seed_of(1), seed_of(2)]
    expected = ZEROS + shift_of(seed_of(1)) + shift_of(seed_of(2))
    np.testing.assert_allclose(numbers(folder.adapter(RUN, Model(STANDALONE, 2))), expected, rtol=1e-6)
    assert folder.adapter(RUN, BASE) is None
    assert not (tmp_path / "bob" / "holdout").exists()


async def test_what_is_measured_is_what_the_run_has_made(tmp_path: Path, clock: ManualClock) -> None:
    """The adapter that the agent holds, and the aggregate as the coordinator has it, to the byte."""
    async with opened(tmp_path, clock, {"ada": Recording()}) as everybody:
        await played(everybody)
        with everybody.context.store.read() as tx:
            last = tx.round(RUN, 2)
        kept = tmp_path / "ada" / "holdout" / RUN
        assert digest_of((kept / "aggregate-2").read_bytes()) == last.aggregate
        assert digest_of((kept / "published-2").read_bytes()) == last.slm_candidate
    assert sorted(file.name for file in kept.glob("*-[0-9]")) == ["aggregate-2", "published-2", "standalone-2"]


async def test_the_first_standalone_adapter_is_the_first_update(tmp_path: Path, clock: ManualClock) -> None:
    """The same data in the same order from the same adapter: what differs later is what the others have brought."""
    async with opened(tmp_path, clock, {"ada": Recording()}) as everybody:
        await everybody.start(RUN, terms_of())
        await everybody.step()
        update = StateFolder(tmp_path / "ada").update_file(RUN, 1).read_bytes()
        assert HoldOutFolder(tmp_path / "ada").adapter(RUN, Model(STANDALONE, 1)).read_bytes() == update


async def test_a_round_that_came_to_nothing_counts_for_nobody(tmp_path: Path, clock: ManualClock) -> None:
    """Its training is not in what was published, and so not in the standalone adapter either."""
    async with opened(tmp_path, clock, {"ada": (trainer := Recording())}, losses=(1.0, 9.0, 1.0)) as everybody:
        await played(everybody)
        assert [one.state for one in (await everybody.rounds(RUN)).rounds] == ["published", "refused", "published"]
    assert [(one.round, one.trainings) for one in report_in(tmp_path / "ada").rounds] == [(1, 1), (3, 2)]
    assert trainer.seeds == [seed_of(1), seed_of(2)]  # the second was trained before anybody knew


async def test_what_a_run_does_not_share_is_not_asked_for(tmp_path: Path, clock: ManualClock) -> None:
    """The report has the others, and says so."""
    async with opened(tmp_path, clock, {"ada": Recording()}) as everybody:
        await played(everybody, terms_of(rounds=2))
    report = report_in(tmp_path / "ada")
    assert not report.shares_aggregate
    assert [one.aggregate for one in report.rounds] == [None, None]
    assert all(one.gain for one in report.rounds)


async def test_a_restart_goes_on(tmp_path: Path, clock: ManualClock) -> None:
    """Of what was trained and measured nothing is done again; of what was not, nothing is left out."""
    lost = GaveWay()
    async with opened(tmp_path, clock, {"ada": (before := Recording(*[lost] * 100))}) as everybody:
        await everybody.start(RUN, TERMS)
        for _ in range(3):  # there is always something else to do
            everybody.context.rounds.reconcile()
            await everybody.work()
            for name in ("ada", "bob"):
                await everybody.agents[name].step(wait_seconds=0)
            await everybody.holdouts["ada"].step()
        assert before.seeds == []
    async with opened(tmp_path, clock, {"ada": (after := Recording())}) as everybody:
        await everybody.finish(RUN)
    assert after.seeds == [seed_of(1), seed_of(2)]
    async with opened(tmp_path, clock, {"ada": (again := Recording())}) as everybody:
        await everybody.step()
    assert again.orders == []
    assert report_in(tmp_path / "ada").shown.round == 2


async def leaving(
    folder: Path, terms: RunTerms, spare_time: Mapping[str, SpareTimeTrainer], monkeypatch: pytest.MonkeyPatch
) -> dict[str, list[tuple[Egress, int]]]:
    """Return all that agents send in a run, in order."""
    heard: dict[str, list[tuple[Egress, int]]] = {}
    real = TrafficCount.record

    def record(self: TrafficCount, request: Egress, *, to: str, head_bytes: int) -> None:
        heard.setdefault(names.get(id(self), ""), []).append((request, head_bytes))
        real(self, request, to=to, head_bytes=head_bytes)

    monkeypatch.setattr(TrafficCount, "record", record)
    trainers = {name: InProcess(NoOpTrainer()) for name in FOUR}
    cotuner, clock = AddingCoTuner(SLM_LAYOUT, LLM_LAYOUT), ManualClock()
    names: dict[int, str] = {}
    async with open_federation(folder, trainers, cotuner, clock, spare_time=spare_time) as everybody:
        names.update({id(status.sent): name for name, status in everybody.statuses.items()})
        await played(everybody, terms)
        return {name: heard[name] for name in FOUR}


async def test_a_kill_between_a_measurement_and_its_report_is_made_up_for(tmp_path: Path, clock: ManualClock) -> None:
    """What was measured last is in the report of the next start, although nothing is measured any more."""
    async with opened(tmp_path, clock, {"ada": Recording()}) as everybody:
        await played(everybody)
    before = report_in(tmp_path / "ada")
    HoldOutFolder(tmp_path / "ada").write_report(RUN, before.model_copy(update={"rounds": before.rounds[:1]}))
    async with opened(tmp_path, clock, {"ada": (trainer := Recording())}) as everybody:
        await everybody.step()
    assert report_in(tmp_path / "ada").rounds == before.rounds
    assert not trainer.orders


@pytest.mark.parametrize(("aggregation", "rounds"), [("PlaintextAggregation", 2), ("SecureAggregation", 1)])
async def test_nothing_more_leaves_than_the_question_for_the_aggregate(
    aggregation: str, rounds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Request by request with equal lines, sizes and bodies, in order; masked bodies are never equal."""
    terms = terms_of(**{**SECURE, "aggregation": aggregation}, rounds=rounds, share_aggregate=True)
    without = await leaving(tmp_path / "without", terms, {}, monkeypatch)
    having = await leaving(tmp_path / "with", terms, {"ada": Recording()}, monkeypatch)
    asked = [request for request, _ in having["ada"] if request.target.endswith("/aggregate")]
    assert [(one.method, one.target, one.bytes) for one in asked] == [
        ("GET", f"/v1/runs/{RUN}/rounds/{number + 1}/aggregate", 0) for number in range(rounds)
    ]
    having["ada"] = [one for one in having["ada"] if one[0] not in asked]
    secret = aggregation == "SecureAggregation"  # keys and masks are made anew each time
    for name in FOUR:
        for (one, head), (other, other_head) in zip(having[name], without[name], strict=True):
            assert (one.method, one.target, one.bytes, head) == (other.method, other.target, other.bytes, other_head)
            assert secret or one.digest == other.digest


async def test_what_goes_wrong_is_told_and_stops_nobody(tmp_path: Path, clock: ManualClock) -> None:
    """The agent takes part; the report says what it was, and goes on when it has been put right."""
    async with opened(tmp_path, clock, {"ada": Recording(DataUnreadable("no such file"))}) as everybody:
        await everybody.start(RUN, TERMS)
        everybody.context.rounds.reconcile()
        await everybody.work()
        await everybody.agents["ada"].step(wait_seconds=0)
        holdout = everybody.holdouts["ada"]
        holdout.wait()
        async with doing(holdout):
            await until(lambda: reports(tmp_path / "ada").runs)
            assert report_in(tmp_path / "ada").trouble == "data_unreadable: no such file"
            assert report_in(tmp_path / "ada").zero_shot is None
            assert everybody.statuses["ada"].view().error is None
            holdout.take_part(assignment_of(everybody), everybody.context.lifecycle.manifest(RUN).manifest)
            holdout.wait()
            await until(lambda: report_in(tmp_path / "ada").zero_shot is not None)
            assert report_in(tmp_path / "ada").trouble is None


async def test_there_is_no_spare_time_from_a_rounds_beginning_until_its_update_is_handed_in(
    tmp_path: Path, clock: ManualClock
) -> None:
    """Whatever is to be done waits until the agent does."""
    async with opened(tmp_path, clock, {"ada": (trainer := Recording())}) as everybody:
        await everybody.start(RUN, TERMS)
        everybody.context.rounds.reconcile()
        await everybody.work()
        holdout = everybody.holdouts["ada"]
        await everybody.agents["ada"].step(wait_seconds=0)
        async with doing(holdout):
            for _ in range(20):
                await asyncio.sleep(0)
            assert trainer.orders == []
            await everybody.agents["ada"].step(wait_seconds=0)
            await until(lambda: trainer.seeds)


async def test_an_aggregate_that_does_not_come_is_done_without(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked for once; the rest of the report is whole."""
    async with opened(tmp_path, clock, {"ada": Recording()}) as everybody:
        asked = []

        def gone(agent: str, run_id: str, number: int) -> None:
            asked.append((agent, run_id, number))
            raise BlobMissing("it is gone")

        monkeypatch.setattr(everybody.context.rounds, "aggregate_path", gone)
        await played(everybody)
        await everybody.step()
    assert asked == [("ada", RUN, 1), ("ada", RUN, 2)]
    assert [(one.aggregate, one.gain is None) for one in report_in(tmp_path / "ada").rounds] == [(None, False)] * 2


async def test_with_other_examples_all_is_measured_anew(tmp_path: Path, clock: ManualClock) -> None:
    """What was scored on others cannot be compared; what was trained can."""
    async with opened(tmp_path, clock, {"ada": Recording()}) as everybody:
        await played(everybody)
        folder = HoldOutFolder(tmp_path / "ada")
        other = folder.measured(RUN)[BASE].model_copy(update={"examples": digest_of(b"others")})
        (tmp_path / "ada" / "holdout" / RUN / "measured-base-0.json").unlink()
        folder.keep_measured(RUN, BASE, other)
        assert list(folder.measured(RUN)) == [BASE]
    async with opened(tmp_path, clock, {"ada": (trainer := Recording())}) as everybody:
        everybody.holdouts["ada"].wait()
        while await everybody.holdouts["ada"].step():
            pass
    assert trainer.seeds == []
    assert {one.round for one in report_in(tmp_path / "ada").rounds} == {2}
    assert report_in(tmp_path / "ada").shown.gain is not None


async def test_what_was_damaged_is_made_again(tmp_path: Path, clock: ManualClock) -> None:
    """A note that cannot be read is none, and no measurement is believed that is none."""
    async with opened(tmp_path, clock, {"ada": Recording()}) as everybody:
        await played(everybody)
    folder, of_run = HoldOutFolder(tmp_path / "ada"), tmp_path / "ada" / "holdout" / RUN
    (of_run / "measured-base-0.json").write_bytes(b"{")
    assert BASE not in folder.measured(RUN)
    assert not folder.has(RUN, BASE)
    folder.draft(RUN).write_bytes(b"half")
    assert not folder.keep(RUN, Model(STANDALONE, 3), digest_of(b"whole"))
    (of_run / "run.json").write_bytes(b"{")
    assert folder.note(RUN) is None


async def test_adapters_are_kept_of_a_few_runs(tmp_path: Path, clock: ManualClock) -> None:
    """Reports of all; and a run by another manifest under the same name is another run."""
    async with opened(tmp_path, clock, {"ada": Recording()}) as everybody:
        await played(everybody, terms_of())
    folder = HoldOutFolder(tmp_path / "ada")
    note = folder.note(RUN)
    names = [f"run-{number}" for number in range(RUNS_KEPT)]
    for name in names:
        take_part(folder, note.manifest.model_copy(update={"run_id": name}))
        folder.draft(name).write_bytes(b"an adapter")
        assert folder.keep(name, Model(STANDALONE, 1), digest_of(b"an adapter"))
    assert (folder.newest_run(), folder.newest(RUN, PUBLISHED)) == (names[-1], None)
    assert [folder.newest(name, STANDALONE) for name in names] == [Model(STANDALONE, 1)] * RUNS_KEPT
    assert report_in(tmp_path / "ada").run_id == RUN
    assert folder.measured(RUN)
    take_part(folder, note.manifest.model_copy(update={"seed": 7}), number=4)
    assert [one.round for one in folder.note(RUN).rounds] == [4]
    assert not folder.measured(RUN)


def take_part(folder: HoldOutFolder, manifest: Manifest, number: int = 1) -> None:
    """Begin a round."""
    digest = digest_of(b"theta")
    folder.take_part(Assignment(run_id=manifest.run_id, round=number, manifest=digest, adapter=digest), manifest)


def assignment_of(everybody: Federation) -> Assignment:
    """Return the round that waits, as Bob is told it."""
    assignment = everybody.context.rounds.wanted("bob").assignment
    assert assignment is not None
    return assignment


@asynccontextmanager
async def doing(holdout: HoldOut) -> AsyncIterator[None]:
    """Let it do what is to be done while the block runs."""
    task = asyncio.create_task(holdout.run())
    try:
        yield
    finally:
        task.cancel()


async def until(there: Callable[[], object]) -> None:
    """Wait until something is there."""
    async with asyncio.timeout(10):
        while not there():
            await asyncio.sleep(0)
