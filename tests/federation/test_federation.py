"""A whole federation in memory with the real models, as small as they can be."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel

from bench.federation import Federation, ManualClock, open_federation
from bench.no_op import InProcess
from services.client_agent import lora_trainer
from services.client_agent.holdout_report import reports
from services.client_agent.lora_trainer import LoraTrainer
from services.client_agent.state import StateFolder
from services.client_agent.trainer import Progress, Trained, Trainer, TrainingOrder
from services.coordinator.worker.model_pair import ModelPair
from shared.data.source import DataSource
from shared.errors import LossNotFinite
from shared.ml.adapters import adapter_tensors
from shared.ml.models import load_base
from shared.protocol.codec import decode, encode, read_file
from shared.protocol.digests import digest_of
from shared.protocol.messages import RoundView
from shared.protocol.rounds import RoundState, RunState, data_seed
from shared.protocol.terms import (
    CohortTerms,
    CotuningTerms,
    GateTerms,
    LoraTerms,
    OptimiserTerms,
    RunTerms,
    TrainingTerms,
)
from shared.protocol.work import PreparedDigests
from tests.support.tiny_models import tiny_directory

pytestmark = pytest.mark.anyio

RUN = "run"
AGENTS = ("ada", "bob")


@dataclass(frozen=True)
class World:
    """What lies on everybody's disks before a run: two base models, and data."""

    llm: Path
    slm: Path
    other: Path
    data: dict[str, Path]

    def terms(self, **changes: Any) -> RunTerms:  # noqa: ANN401 - fields differ in type
        """Return terms for two rounds of real, tiny training."""
        optimiser = OptimiserTerms(learning_rate=5e-3)
        cotuning = {"passes": 1, "batch_size": 4, "llm_optimiser": optimiser, "slm_optimiser": optimiser}
        fields: dict[str, Any] = {
            "name": "tiny",
            "aggregation": "PlaintextAggregation",
            "llm": str(self.llm),
            "slm": str(self.slm),
            "seed": 7,
            "rounds": 2,
            "slm_lora": LoraTerms(rank=2, alpha=4, dropout=0.1),
            "llm_lora": LoraTerms(rank=4, alpha=8, dropout=0.1),
            "training": TrainingTerms(epochs=1, batch_size=4, optimiser=optimiser, max_tokens=64),
            "cotuning": CotuningTerms(**(cotuning | changes.pop("cotuning", {}))),
            "cohort": CohortTerms(min_count=1, max_count=2, min_seconds=10, max_seconds=60),
            "gate": GateTerms(enabled=False),
        }
        return RunTerms(**{**fields, **changes})


def write_data(path: Path, start: int, count: int) -> Path:
    """Write examples: what colour a number has."""
    colours = ["red", "tan", "blue"]
    rows = (
        {"question": f"{number} is", "choices": colours, "answer": colours[number % 3]}
        for number in range(start, start + count)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The models and data of the tests below, on one thread."""
    folder, threads = tmp_path_factory.mktemp("world"), torch.get_num_threads()
    torch.set_num_threads(1)
    yield World(
        llm=tiny_directory(folder / "llm", seed=1),
        slm=tiny_directory(folder / "slm", seed=2),
        other=tiny_directory(folder / "other", seed=3),
        data={
            "ada": write_data(folder / "ada.jsonl", 0, 8),
            "bob": write_data(folder / "bob.jsonl", 8, 4),
            "auxiliary": write_data(folder / "auxiliary.jsonl", 20, 8),
            "validation": write_data(folder / "validation.jsonl", 40, 6),
        },
    )
    torch.set_num_threads(threads)


@asynccontextmanager
async def federated(
    folder: Path, world: World, clock: ManualClock, *, base_of_bob: Path | None = None, holding_out: Sequence[str] = ()
) -> AsyncIterator[Federation]:
    """Open a federation of the real trainer and the real co-tuner; hold-outs are the coordinator's validation set."""
    validation = DataSource(path=world.data["validation"])
    bases = {"ada": world.slm, "bob": base_of_bob or world.slm}
    trainers = {
        name: InProcess(
            LoraTrainer(
                slm=str(bases[name]),
                data=DataSource(path=world.data[name]),
                holdout=validation if name in holding_out else None,
                device="cpu",
                dtype="float32",
                digest_cache=folder / f"{name}.digests.json",
            )
        )
        for name in AGENTS
    }
    pair = ModelPair(
        auxiliary=DataSource(path=world.data["auxiliary"]),
        validation=validation,
        device="cpu",
        dtype="float32",
        digest_cache=folder / "worker.digests.json",
    )
    folder.mkdir(exist_ok=True)
    spare_time = {name: trainers[name] for name in holding_out}
    async with open_federation(folder, trainers, pair, clock, spare_time=spare_time) as everybody:
        yield everybody


@dataclass(frozen=True)
class Outcome:
    """What a run left behind, by name of what it is: the rounds' adapters and their blobs."""

    rounds: list[Any]
    blobs: dict[str, bytes]
    layouts: dict[str, dict[str, tuple[int, ...]]]
    weights: list[list[int]]
    held: dict[str, str]
    losses: list[dict[str, float]]
    updates: list[list[str]]

    def slm(self, digest: str) -> dict[str, np.ndarray]:
        """Return the tensors of an SLM adapter."""
        return decode(self.blobs[digest], self.layouts["slm"])


async def outcome(folder: Path, world: World, clock: ManualClock, terms: RunTerms) -> Outcome:
    """Play a run to its end."""
    async with federated(folder, world, clock) as everybody:
        await everybody.start(RUN, terms)
        view = await everybody.finish(RUN)
        assert view.state is RunState.FINISHED, view.reason
        with everybody.context.store.read() as tx:
            run, rounds = tx.run(RUN), tx.rounds(RUN)
            updates = [tx.updates(RUN, current.number) for current in rounds]
            evaluating = [e.detail for e in tx.events(RUN, after=0, limit=500) if e.kind == "round.evaluating"]
        named = {
            digest
            for at in rounds
            for digest in (at.slm_adapter, at.llm_adapter, at.aggregate, at.slm_candidate, at.llm_candidate)
        } | {update.digest for of_round in updates for update in of_round}
        return Outcome(
            rounds=rounds,
            blobs={digest: everybody.context.blobs.path(digest).read_bytes() for digest in named},
            layouts={"slm": run.prepared.slm.layout, "llm": run.prepared.llm.layout},
            weights=[[update.weight for update in of_round] for of_round in updates],
            held={name: StateFolder(folder / name).published.digest for name in AGENTS},
            losses=evaluating,
            updates=[[update.digest for update in of_round] for of_round in updates],
        )


@pytest.fixture(scope="module")
def cotuned(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A run of FedCoLLM: two agents, two rounds."""
    folder = tmp_path_factory.mktemp("cotuned")
    return folder, asyncio.run(outcome(folder / "run", world, ManualClock(), world.terms()))


async def test_what_an_agent_measures_is_what_the_worker_would_on_the_same_examples(
    cotuned: tuple[Path, Outcome], world: World, tmp_path: Path, clock: ManualClock
) -> None:
    """Base model, aggregate and published adapter of every round; and its run is the same as without a hold-out."""
    async with federated(tmp_path / "run", world, clock, holding_out=("ada",)) as everybody:
        await everybody.start(RUN, world.terms(share_aggregate=True))
        view = await everybody.finish(RUN)
        assert view.state is RunState.FINISHED, view.reason
        rounds = (await everybody.rounds(RUN)).rounds
    (report,) = reports(tmp_path / "run" / "ada").runs
    told = [(report.zero_shot, view.base_scores.slm)]
    for one, there in zip(report.rounds, rounds, strict=True):
        told += [(one.aggregate, there.scores.slm_aggregated), (one.published, there.scores.slm)]
        assert one.standalone.loss != one.published.loss
    for here, score in told:
        assert (here.accuracy, here.loss) == pytest.approx((score.accuracy, score.loss), rel=1e-5)
        assert here.accuracy_interval == pytest.approx(score.interval)
    assert view.published.digest == cotuned[1].held["ada"]


def mean_of(outcome_: Outcome, number: int) -> dict[str, np.ndarray]:
    """Return the weighted mean of a round's updates, in float64."""
    adapters = [outcome_.slm(digest) for digest in outcome_.updates[number]]
    return {
        name: np.average([adapter[name].astype(np.float64) for adapter in adapters], 0, outcome_.weights[number])
        for name in adapters[0]
    }


def test_two_rounds_are_trained_co_tuned_and_published(cotuned: tuple[Path, Outcome]) -> None:
    """Every round's adapters differ from the round's before, and all of it is evaluated."""
    _, result = cotuned
    assert [current.state for current in result.rounds] == [RoundState.PUBLISHED] * 2
    thetas = [result.rounds[0].slm_adapter, *(current.slm_candidate for current in result.rounds)]
    omegas = [result.rounds[0].llm_adapter, *(current.llm_candidate for current in result.rounds)]
    assert len({*thetas, *omegas, *(current.aggregate for current in result.rounds)}) == 8
    for current in result.rounds:
        for score in (current.scores.slm_aggregated, current.scores.slm, current.scores.llm):
            assert (score.examples, score.chance) == (6, pytest.approx(1 / 3))
    assert result.rounds[0].scores.slm.loss != result.rounds[0].scores.slm_aggregated.loss


def test_the_aggregate_is_the_mean_of_what_the_agents_trained(cotuned: tuple[Path, Outcome]) -> None:
    """The paper's unweighted mean, whatever the agents' numbers of examples."""
    _, result = cotuned
    assert result.weights == [[1, 1], [1, 1]]
    for number, current in enumerate(result.rounds):
        aggregate = result.slm(current.aggregate)
        for name, mean in mean_of(result, number).items():
            np.testing.assert_allclose(aggregate[name], mean, rtol=1e-5, atol=1e-8)


def test_omega_persists_over_rounds(cotuned: tuple[Path, Outcome]) -> None:
    """The second round co-tunes the LLM adapter that the first one left, and theta likewise."""
    first, second = cotuned[1].rounds
    assert second.llm_adapter == first.llm_candidate != first.llm_adapter
    assert second.slm_adapter == first.slm_candidate != first.slm_adapter


def test_every_agent_holds_the_last_theta(cotuned: tuple[Path, Outcome]) -> None:
    """At the end all organisations have the same SLM adapter: theta^T after co-tuning."""
    _, result = cotuned
    assert set(result.held.values()) == {result.rounds[-1].slm_candidate}
    assert result.rounds[-1].aggregate not in result.held.values()


def test_an_agents_folder_is_a_peft_adapter(cotuned: tuple[Path, Outcome], world: World) -> None:
    """``PeftModel.from_pretrained`` loads what the agent keeps, tensor by tensor."""
    folder, result = cotuned
    model = PeftModel.from_pretrained(
        load_base(str(world.slm), dtype="float32", device=torch.device("cpu")),
        folder / "run" / "ada" / "slm-adapter",
    )
    loaded = adapter_tensors(model)
    expected = result.slm(result.rounds[-1].slm_candidate)
    assert loaded.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(loaded[name], values)


async def test_the_same_seed_gives_the_same_bytes(cotuned: tuple[Path, Outcome], world: World, tmp_path: Path) -> None:
    """A whole federation twice: every update, aggregate, theta and omega is the same to the bit."""
    again = await outcome(tmp_path / "again", world, ManualClock(), world.terms())
    assert again.blobs == cotuned[1].blobs
    assert again.updates == cotuned[1].updates
    assert [current.scores for current in again.rounds] == [current.scores for current in cotuned[1].rounds]


async def test_another_seed_gives_other_bytes(cotuned: tuple[Path, Outcome], world: World, tmp_path: Path) -> None:
    """(Otherwise the test above would say nothing of the seed.)."""
    other = await outcome(tmp_path / "other", world, ManualClock(), world.terms(seed=8, rounds=1))
    assert not set(other.updates[0]) & set(cotuned[1].updates[0])


async def test_fedavg_is_the_same_engine_without_passes(
    cotuned: tuple[Path, Outcome], world: World, tmp_path: Path
) -> None:
    """With no pass theta is published as it was averaged, to the byte, and omega stays what it was."""
    result = await outcome(tmp_path / "run", world, ManualClock(), world.terms(cotuning={"passes": 0}))
    for current in result.rounds:
        assert current.slm_candidate == current.aggregate
        assert current.llm_candidate == current.llm_adapter == result.rounds[0].llm_adapter
    assert result.updates[0] == cotuned[1].updates[0]  # the agents' part of the first round is the same
    assert set(result.held.values()) == {result.rounds[-1].aggregate}


async def test_lambda_zero_is_the_same_engine_without_distillation(
    cotuned: tuple[Path, Outcome], world: World, tmp_path: Path
) -> None:
    """Both models still learn from D_a, but nothing of each other: other bytes than with lambda 1, from one start."""
    terms = world.terms(cotuning={"distillation_weight": 0.0}, rounds=1)
    result = await outcome(tmp_path / "run", world, ManualClock(), terms)
    first, with_lambda = result.rounds[0], cotuned[1].rounds[0]
    assert first.aggregate == with_lambda.aggregate
    assert first.slm_candidate not in {first.aggregate, with_lambda.slm_candidate}
    assert first.llm_candidate not in {first.llm_adapter, with_lambda.llm_candidate}


async def test_a_weighted_run_weights_by_the_agents_examples(
    cotuned: tuple[Path, Outcome], world: World, tmp_path: Path
) -> None:
    """Eight examples count twice as much as four."""
    result = await outcome(tmp_path / "run", world, ManualClock(), world.terms(weighting="examples", rounds=1))
    assert result.weights == [[8, 4]]
    assert result.updates[0] == cotuned[1].updates[0]
    aggregate = result.slm(result.rounds[0].aggregate)
    for name, mean in mean_of(result, 0).items():
        np.testing.assert_allclose(aggregate[name], mean, rtol=1e-5, atol=1e-8)
    assert result.rounds[0].aggregate != cotuned[1].rounds[0].aggregate


async def test_a_federation_goes_on_without_an_agent_whose_base_model_is_another(
    world: World, tmp_path: Path, clock: ManualClock
) -> None:
    """Its agent says so and never trains; the round closes with the rest, whose theta it could not use."""
    async with federated(tmp_path / "run", world, clock, base_of_bob=world.other) as everybody:
        await everybody.start(RUN, world.terms(rounds=1))
        await everybody.work()
        await everybody.agents["ada"].step(wait_seconds=0)
        bob = everybody.agents.pop("bob")
        pauses: list[float] = []

        async def pause(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 2:
                raise TimeoutError

        bob._pause = pause
        with pytest.raises(TimeoutError):
            await bob.run()
        status = everybody.statuses["bob"].view()
        assert status.error.startswith("base_model_mismatch: ")
        assert status.steps == 0
        assert not list((tmp_path / "run" / "bob" / "updates").iterdir())
        clock.advance(10)
        view = await everybody.finish(RUN)
        assert view.state is RunState.FINISHED
        assert (await everybody.rounds(RUN)).rounds[0].accepted == 1
        await bob.step(wait_seconds=0)
        assert StateFolder(tmp_path / "run" / "bob").published is None


async def test_an_agent_with_a_nan_loss_says_so_and_the_round_closes_without_it(
    world: World, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A diverged training is an error on the agent's page, never an update."""
    honest = lora_trainer.train_local

    def diverging(*args: Any, seed: int, **kwargs: Any) -> Any:  # noqa: ANN401 - passed on
        if seed == data_seed(RUN, world.terms().seed, 1, "bob"):
            with torch.no_grad():
                next(p for name, p in args[0].named_parameters() if "lora_B" in name).fill_(float("nan"))
        return honest(*args, seed=seed, **kwargs)

    monkeypatch.setattr(lora_trainer, "train_local", diverging)
    async with federated(tmp_path / "run", world, clock) as everybody:
        await everybody.start(RUN, world.terms(rounds=1))
        await everybody.work()
        await everybody.agents["ada"].step(wait_seconds=0)
        bob = everybody.agents.pop("bob")
        with pytest.raises(LossNotFinite):
            await bob.step(wait_seconds=0)
        clock.advance(10)
        assert (await everybody.finish(RUN)).state is RunState.FINISHED
        assert (await everybody.rounds(RUN)).rounds[0].accepted == 1


async def test_models_that_share_no_tokenizer_fail_the_run_with_the_reason(
    world: World, tmp_path: Path, clock: ManualClock
) -> None:
    """The operator reads that the pair does not fit before anybody has trained."""
    strange = tiny_directory(tmp_path / "strange", seed=4)
    tokenizer = json.loads((strange / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["!"], vocabulary["#"] = vocabulary["#"], vocabulary["!"]
    (strange / "tokenizer.json").write_text(json.dumps(tokenizer))
    async with federated(tmp_path / "run", world, clock) as everybody:
        await everybody.start(RUN, world.terms(llm=str(strange)))
        view = await everybody.finish(RUN)
    assert view.state is RunState.FAILED
    assert view.reason.startswith("prepare failed: tokenizer_mismatch")


def test_co_tuning_starts_from_the_adapters_that_it_is_given(world: World, tmp_path: Path) -> None:
    """The models stay between rounds, and nothing of what an earlier co-tuning, perhaps refused, left in them."""
    pair = ModelPair(
        auxiliary=DataSource(path=world.data["auxiliary"]),
        validation=DataSource(path=world.data["validation"]),
        device="cpu",
        dtype="float32",
        digest_cache=tmp_path / "digests.json",
    )
    files = {name: tmp_path / name for name in ("theta", "omega", "slm-1", "llm-1", "slm-2", "llm-2")}
    terms = world.terms()
    before = pair.prepare(terms, slm_into=files["theta"], llm_into=files["omega"], require_lease=lambda: None)
    prepared = PreparedDigests(
        tokenizer=before.tokenizer_digest, slm=before.slm.base_digest, llm=before.llm.base_digest
    )
    for again in ("1", "2"):
        pair.cotune(
            terms,
            prepared=prepared,
            seed=5,
            slm=files["theta"],
            llm=files["omega"],
            slm_into=files[f"slm-{again}"],
            llm_into=files[f"llm-{again}"],
            checkpoint=tmp_path / "kept",
            require_lease=lambda: None,
        )
    assert files["slm-1"].read_bytes() == files["slm-2"].read_bytes() != files["theta"].read_bytes()
    assert files["llm-1"].read_bytes() == files["llm-2"].read_bytes() != files["omega"].read_bytes()


class Poisoner:
    """Trains as its organisation would, and sends what was learnt ``strength`` times over."""

    def __init__(self, trainer: Trainer, strength: float) -> None:
        self.inner = trainer
        self._strength = strength

    async def train(self, order: TrainingOrder, on_progress: Callable[[Progress], None]) -> Trained:
        """Train, and poison the update."""
        trained = await self.inner.train(order, on_progress)
        before, after = (read_file(path, order.manifest.layout) for path in (order.adapter, order.into))
        poisoned = encode({name: before[name] + self._strength * (after[name] - before[name]) for name in before})
        order.into.write_bytes(poisoned)
        return trained.model_copy(update={"digest": digest_of(poisoned)})


async def first_round(everybody: Federation, world: World, strength: float) -> RoundView:
    """Play a round in which bob's update is poisoned, with the gate on."""
    bob = everybody.agents["bob"]
    bob._trainer = Poisoner(bob._trainer, strength)
    await everybody.start(RUN, world.terms(rounds=1, gate=GateTerms(tolerance=0.1)))
    while not (rounds := (await everybody.rounds(RUN)).rounds) or rounds[0].ended_at is None:
        await everybody.step()
    return rounds[0]


async def test_a_poisoned_update_that_spoils_the_adapter_stops_at_the_gate(
    world: World, tmp_path: Path, clock: ManualClock
) -> None:
    """Nobody is given the adapter, the reason is in the log, and the next round starts from what was there before."""
    async with federated(tmp_path / "run", world, clock) as everybody:
        first = await first_round(everybody, world, strength=-100)
        assert (first.state, "validation loss" in str(first.reason)) == (RoundState.REFUSED, True)
        assert {status.holding for status in everybody.statuses.values()} == {None}
        everybody.agents["bob"]._trainer = everybody.agents["bob"]._trainer.inner
        assert (await everybody.finish(RUN)).state is RunState.FINISHED
        with everybody.context.store.read() as tx:
            rounds = tx.rounds(RUN)
        assert rounds[-1].state is RoundState.PUBLISHED
        assert len({(current.slm_adapter, current.llm_adapter) for current in rounds}) == 1


async def test_a_poisoned_update_that_is_plausible_passes_the_gate(
    world: World, tmp_path: Path, clock: ManualClock
) -> None:
    """What docs/security.md says of poisoning: unlearning, as strongly as one learns, is not seen."""
    async with federated(tmp_path / "run", world, clock) as everybody:
        assert (await first_round(everybody, world, strength=-1)).state is RoundState.PUBLISHED
