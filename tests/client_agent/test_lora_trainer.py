import json
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from services.client_agent import lora_trainer
from services.client_agent.lora_trainer import LoraTrainer
from services.client_agent.trainer import (
    LocalEvaluation,
    Measured,
    MeasureOrder,
    Progress,
    StandaloneOrder,
    Trained,
    TrainingOrder,
)
from shared.data.examples import read_examples
from shared.data.source import DataSource
from shared.errors import (
    BaseModelMismatch,
    ContextTooShort,
    DataEmpty,
    DataUnreadable,
    ExampleTooLong,
    LoraMismatch,
    MemoryTooSmall,
    TokenizerMismatch,
    TooFewExamples,
)
from shared.ml import memory
from shared.ml.adapters import adapter_layout, adapter_tensors
from shared.ml.digests import base_model_digest, tokenizer_digest
from shared.ml.encoding import EncodedChoices, encode_choices
from shared.ml.evaluate import Evaluation, evaluate
from shared.ml.free_memory import free_bytes
from shared.ml.models import add_lora, load_with_lora
from shared.protocol.codec import encode
from shared.protocol.digests import digest_of
from shared.protocol.manifest import Manifest
from shared.protocol.terms import CohortTerms, LoraTerms, MaskingTerms, OptimiserTerms, TaskTerms, TrainingTerms
from tests.support.tiny_models import tiny_base, tiny_directory, tiny_tokenizer

LORA = LoraTerms(rank=2, alpha=4, dropout=0.1)
OTHER = digest_of(b"another model")


@dataclass(frozen=True)
class Site:
    """An agent's machine: its trainer, and the manifest and adapter that fit to it."""

    folder: Path
    trainer: LoraTrainer
    manifest: Manifest

    def train(self, on_progress: Callable[[Progress], None] = lambda _: None, **changes: Any) -> Trained:  # noqa: ANN401
        """Train by the manifest with some of its fields changed."""
        manifest = self.manifest.model_copy(update=changes)
        order = TrainingOrder(manifest=manifest, adapter=self.folder / "theta", into=self.folder / "update", seed=3)
        return self.trainer.train(order, on_progress)


def trainer_of(folder: Path, **settings: Any) -> LoraTrainer:  # noqa: ANN401 - settings differ in type
    """Return a trainer of the model and the data in a folder."""
    usual: dict[str, Any] = {"device": "cpu", "dtype": "float32", "digest_cache": folder / "digests.json"}
    data = DataSource(path=folder / "data.jsonl")
    return LoraTrainer(slm=str(folder / "slm"), data=data, **(usual | settings))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A machine with a tiny SLM and ten examples, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    base = tiny_directory(tmp_path / "slm")
    rows = ({"question": f"{number} is", "choices": ["red", "blue"], "answer": "red"} for number in range(10))
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = ({"question": f"{word} is", "choices": ["red", "blue"], "answer": "blue"} for word in ("a", "b", "c", "d"))
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    model = add_lora(tiny_base(), rank=2, alpha=4, dropout=0.1, targets=None, seed=0)
    (tmp_path / "theta").write_bytes(encode(adapter_tensors(model)))
    manifest = Manifest(
        federation="clinics",
        run_id="run",
        run_name="run",
        seed=1,
        llm_digest=digest_of(b"llm"),
        slm_digest=base_model_digest(base),
        tokenizer_digest=tokenizer_digest(tiny_tokenizer()),
        slm_lora=LORA,
        layout=adapter_layout(model),
        adapter_config={},
        task=TaskTerms(),
        training=TrainingTerms(epochs=1, batch_size=4, optimiser=OptimiserTerms(learning_rate=1e-2), max_tokens=64),
        weighting="unweighted",
        aggregation="PlaintextAggregation",
        cohort=CohortTerms(min_count=1, max_count=2, min_seconds=0, max_seconds=1),
        masking=MaskingTerms(),
        evaluation_examples=0,
    )
    yield Site(tmp_path, trainer_of(tmp_path), manifest)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_training_takes_the_manifests_epochs(site: Site, epochs: int) -> None:
    """Ten examples in fours are three steps an epoch, each of them told; the update is another adapter."""
    seen: list[Progress] = []
    trained = site.train(seen.append, training=site.manifest.training.model_copy(update={"epochs": epochs}))
    assert [(progress.step, progress.steps) for progress in seen] == [
        (step, 3 * epochs) for step in range(1, 3 * epochs + 1)
    ]
    assert (trained.steps, trained.examples) == (3 * epochs, 10)
    update = (site.folder / "update").read_bytes()
    assert digest_of(update) == trained.digest != digest_of((site.folder / "theta").read_bytes())


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"tokenizer_digest": OTHER}, TokenizerMismatch, f"the tokenizer of .* and the run's is {OTHER}"),
        ({"slm_digest": OTHER}, BaseModelMismatch, f"the base model .* and the run's is {OTHER}"),
        ({"slm_lora": LORA.model_copy(update={"rank": 4})}, LoraMismatch, "does not give the manifest's 16 tensors"),
        ({"slm_lora": LORA.model_copy(update={"targets": ("q_proj",)})}, LoraMismatch, "the manifest's 16 tensors"),
    ],
)
def test_nothing_is_trained_on_a_machine_that_is_not_the_runs(
    site: Site, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    """What differs is named, and there is no update; the same machine trains for a manifest that fits."""
    with pytest.raises(error, match=message):
        site.train(**changes)
    assert not (site.folder / "update").exists()
    site.train()
    assert (site.folder / "update").exists()


def test_nothing_is_trained_beyond_the_models_context(site: Site) -> None:
    """A run whose texts may be longer than what the SLM takes in is refused before the first step."""
    with pytest.raises(ContextTooShort, match=r"may have 129 tokens, and the base model .*slm takes 128"):
        site.train(training=site.manifest.training.model_copy(update={"max_tokens": 129}))


def test_activations_that_are_computed_again_change_no_byte(site: Site) -> None:
    """The setting is this machine's own: nobody can tell from its update, dropout included."""
    kept = site.train().digest
    saving = trainer_of(site.folder, gradient_checkpointing=True)
    assert Site(site.folder, saving, site.manifest).train().digest == kept


def test_the_model_is_held_and_estimated_as_the_agents_settings_say(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number format, and whether activations are computed again; it learns the tokenizer's entries alone."""
    asked: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}

    def recorded(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - passed on
            asked[name] = args, kwargs
            return real(*args, **kwargs)

        return call

    for name in ("estimate", "train_local"):
        monkeypatch.setattr(lora_trainer, name, recorded(name, getattr(lora_trainer, name)))
    saving = trainer_of(site.folder, dtype="bfloat16", gradient_checkpointing=True)
    Site(site.folder, saving, site.manifest).train()
    _, estimated = asked["estimate"]
    assert (estimated["dtype"], estimated["gradient_checkpointing"]) == ("bfloat16", True)
    (model, _), training = asked["train_local"]
    assert training["vocab_size"] == len(tiny_tokenizer()) == 260
    assert {weight.dtype for weight in model.parameters() if not weight.requires_grad} == {torch.bfloat16}
    assert any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def test_a_model_that_does_not_fit_into_memory_is_refused_before_it_is_loaded(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the run's own batch and the texts that are here; no weight was read."""
    monkeypatch.setattr(memory, "free_bytes", lambda _: 1_000_000)
    monkeypatch.setattr(lora_trainer, "load_with_lora", lambda *_, **__: pytest.fail("a model was loaded"))
    with pytest.raises(MemoryTooSmall, match=r"and 0\.00 GB are free \(.* GB base weights, .* GB activations"):
        site.train()


def test_another_runs_model_is_let_go_before_the_next_is_loaded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two models at once may be more than the machine has memory for; rounds of one run load nothing.

    Memory is asked for when the old model is gone: else a machine that is large enough would refuse the second run.
    """
    loaded: list[weakref.ref[Any]] = []
    alive: list[int] = []

    def measure(device: torch.device) -> int:
        free = free_bytes(device)
        alive.append(sum(model() is not None for model in loaded))
        return free

    def load(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - passed on
        tuned = load_with_lora(*args, **kwargs)
        loaded.append(weakref.ref(tuned.get_base_model()))
        return tuned

    monkeypatch.setattr(memory, "free_bytes", measure)
    monkeypatch.setattr(lora_trainer, "load_with_lora", load)
    for run in ("one", "one", "other"):
        site.train(run_id=run)
    assert (alive, len(loaded)) == ([0, 0], 2)


def test_a_run_says_what_becomes_of_completions_that_are_too_long(site: Site) -> None:
    """They are left out, and the weight that an agent may have is of those that it trained on; or it stops."""
    rows = ({"prompt": f"{number} is", "answer": "red" * (40 if number < 3 else 1)} for number in range(10))
    (site.folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = TaskTerms(kind="completion", template="{question}")
    with pytest.raises(ExampleTooLong, match=r"data\.jsonl, line 1: "):
        site.train(task=task)
    trained = site.train(task=task.model_copy(update={"too_long": "leave_out"}))
    assert (trained.examples, trained.steps) == (7, 2)


@pytest.fixture
def evaluating(site: Site) -> Site:
    """The same machine, with four examples that are not trained on."""
    return replace(site, trainer=trainer_of(site.folder, evaluation=DataSource(path=site.folder / "own.jsonl")))


def test_a_rounds_adapter_is_evaluated_before_it_is_trained(evaluating: Site) -> None:
    """As it came, on as many examples as the run asks for; the update is the same, to the byte, as without."""
    trained = evaluating.train(evaluation_examples=4)
    model = add_lora(tiny_base(), rank=2, alpha=4, dropout=0.1, targets=None, seed=0)
    examples = read_examples(DataSource(path=evaluating.folder / "own.jsonl"), TaskTerms())
    encoded = encode_choices(tiny_tokenizer(), examples, max_tokens=64)
    expected = evaluate(model, encoded, batch_size=32, vocab_size=260, on_batch=lambda: None)
    assert trained.evaluation is not None
    assert (trained.evaluation.correct, trained.evaluation.total) == (sum(expected.correct), 4)
    assert trained.evaluation.loss == pytest.approx(4 * expected.loss, rel=1e-6)
    assert (trained.examples, trained.digest) == (10, evaluating.train().digest)


def test_of_completions_it_is_the_share_of_tokens_that_counts(
    evaluating: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the coordinator's scores, where no completion must be right as a whole: 61 % of four are 2.44."""
    found = Evaluation(
        accuracy=0.61,
        accuracy_norm=0.61,
        loss=2.0,
        examples=4,
        chance=0.0,
        interval=None,
        correct=(False,) * 4,
        correct_norm=(False,) * 4,
        log_likelihoods=((-2.0,),) * 4,
        predicted=(1,) * 4,
    )
    monkeypatch.setattr(lora_trainer, "evaluate", lambda *_, **__: found)
    told = evaluating.train(evaluation_examples=4).evaluation
    assert told == LocalEvaluation(loss=8.0, correct=2, total=4)


def test_nothing_is_evaluated_where_the_run_does_not_ask_for_it(evaluating: Site) -> None:
    """Nor is the file read, so that what is wrong with it stops nobody."""
    (evaluating.folder / "own.jsonl").unlink()
    assert evaluating.train().evaluation is None
    with pytest.raises(DataUnreadable, match=r"own\.jsonl"):
        evaluating.train(evaluation_examples=4)


def test_as_many_examples_as_the_run_asks_for_are_drawn_anew_each_round(
    evaluating: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of those that are here, none twice, and whatever the seed of the round, which others know."""
    seen: list[frozenset[EncodedChoices]] = []

    def recorded(model: Any, examples: Sequence[EncodedChoices], **settings: Any) -> Any:  # noqa: ANN401 - passed on
        seen.append(frozenset(examples))
        return evaluate(model, examples, **settings)

    monkeypatch.setattr(lora_trainer, "evaluate", recorded)
    for _ in range(20):  # with six pairs to draw, all alike once in 6^19 times
        evaluating.train(evaluation_examples=2)
    assert {len(drawn) for drawn in seen} == {2}
    assert len(set(seen)) > 1


def test_an_agent_without_enough_examples_of_its_own_takes_no_part(site: Site, evaluating: Site) -> None:
    """Its part in the sum would be smaller than the others', who could be told apart the more easily."""
    with pytest.raises(TooFewExamples, match=r"evaluate on 4 examples .*: to take part, set evaluation\.path"):
        site.train(evaluation_examples=4)
    with pytest.raises(TooFewExamples, match=r"evaluate on 5 examples .*own\.jsonl has 4 that fit: .* add examples"):
        evaluating.train(evaluation_examples=5)
    (site.folder / "own.jsonl").write_text(
        "".join(json.dumps({"prompt": "x" * (100 * (number < 1)) + "y", "answer": "z"}) + "\n" for number in range(4))
    )
    task = TaskTerms(kind="completion", template="{question}", too_long="leave_out")
    (site.folder / "data.jsonl").write_text(json.dumps({"prompt": "x", "answer": "y"}))
    with pytest.raises(TooFewExamples, match=r"has 3 that fit"):
        evaluating.train(evaluation_examples=4, task=task)


def test_what_evaluation_takes_is_estimated_before_a_model_is_loaded(
    evaluating: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is more than a step of the training."""
    rows = [{"question": "why " * 5, "choices": [f"{word} red" for word in "abcdefgh"], "answer": "a red"}] * 4
    (evaluating.folder / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(memory, "free_bytes", lambda _: 1_000_000)
    with pytest.raises(MemoryTooSmall, match=r"GB activations of evaluation, .* GB logits of evaluation"):
        evaluating.train(evaluation_examples=4)


@pytest.fixture
def holding_out(site: Site) -> Site:
    """The same machine with a hold-out: of its five examples one is trained on too."""
    own = (site.folder / "own.jsonl").read_text()
    also = json.dumps({"question": "3 is", "choices": ["blue", "red"], "answer": "red"})
    (site.folder / "holdout.jsonl").write_text(f"{own}{also}\n")
    return replace(site, trainer=trainer_of(site.folder, holdout=DataSource(path=site.folder / "holdout.jsonl")))


def measure(site: Site, adapter: Path | None = None) -> Measured:
    """Measure an adapter on the hold-out."""
    return site.trainer.measure(MeasureOrder(manifest=site.manifest, adapter=adapter), lambda: None)


def test_an_adapter_is_measured_example_by_example(holding_out: Site) -> None:
    """On those of the hold-out that are not trained on, with what any other evaluation says of them."""
    examples = read_examples(DataSource(path=holding_out.folder / "own.jsonl"), TaskTerms())
    encoded = encode_choices(tiny_tokenizer(), examples, max_tokens=64)
    model = add_lora(tiny_base(), rank=2, alpha=4, dropout=0.1, targets=None, seed=0)
    expected = evaluate(model, encoded, batch_size=32, vocab_size=260, on_batch=lambda: None)
    found = measure(holding_out)
    assert (found.left_out, found.chance, found.completions) == (1, 0.5, False)
    assert found.right == tuple(map(int, expected.correct))
    assert found.losses == pytest.approx([-of[1] for of in expected.log_likelihoods])
    assert sum(found.losses) / sum(found.tokens) == pytest.approx(expected.loss)
    holding_out.train()
    assert measure(holding_out, holding_out.folder / "update").losses != found.losses
    assert measure(holding_out) == found


def test_completions_are_measured_token_by_token(holding_out: Site) -> None:
    """How many of each answer's tokens are the most likely ones, of how many."""
    for name in ("data", "holdout"):
        rows = ({"prompt": f"{name} {number}", "answer": "red" * (number + 1)} for number in range(3))
        (holding_out.folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = TaskTerms(kind="completion", template="{question}")
    found = measure(replace(holding_out, manifest=holding_out.manifest.model_copy(update={"task": task})))
    assert (found.completions, found.chance, found.left_out) == (True, 0.0, 0)
    assert found.tokens == (1, 3, 5)
    assert all(0 <= right <= tokens for right, tokens in zip(found.right, found.tokens, strict=True))


def test_a_standalone_training_begins_from_theta_0(holding_out: Site) -> None:
    """From the adapter that a worker makes of the run's seed, to the byte; and evaluates nothing for the run."""
    model = add_lora(tiny_base(), rank=2, alpha=4, dropout=0.1, targets=None, seed=holding_out.manifest.seed)
    (holding_out.folder / "theta").write_bytes(encode(adapter_tensors(model)))
    in_the_run = holding_out.train()
    order = StandaloneOrder(manifest=holding_out.manifest, adapter=None, into=holding_out.folder / "alone", seed=3)
    assert holding_out.trainer.train_alone(order, lambda: None).digest == in_the_run.digest


class _Enough(Exception):
    """Somebody else has come."""


def test_what_gave_way_leaves_nothing_behind(holding_out: Site) -> None:
    """After a training or a measurement that was broken off, a round's update is the same to the byte."""
    expected = holding_out.train().digest
    steps = iter(range(2))

    def give_way() -> None:
        if next(steps, None) is None:
            raise _Enough

    order = StandaloneOrder(manifest=holding_out.manifest, adapter=None, into=holding_out.folder / "alone", seed=9)
    with pytest.raises(_Enough):
        holding_out.trainer.train_alone(order, give_way)
    steps = iter(range(1))
    with pytest.raises(_Enough):
        holding_out.trainer.measure(MeasureOrder(manifest=holding_out.manifest, adapter=None), give_way)
    assert not (holding_out.folder / "alone").exists()
    assert holding_out.train().digest == expected


def test_what_is_wrong_with_the_hold_out_keeps_nobody_from_training(
    holding_out: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is not there, one whose examples are all trained on, or too little memory: told where it is used."""
    file = holding_out.folder / "holdout.jsonl"
    kept = file.read_text()
    file.write_text((holding_out.folder / "data.jsonl").read_text())
    holding_out.train()
    with pytest.raises(DataEmpty, match=r"all examples of .*holdout\.jsonl are trained on too"):
        measure(holding_out)
    file.unlink()
    gone = replace(holding_out, manifest=holding_out.manifest.model_copy(update={"run_id": "next"}))
    gone.train()
    with pytest.raises(DataUnreadable, match=r"holdout\.jsonl"):
        measure(gone)
    rows = [{"question": "why " * 5, "choices": [f"{word} red" for word in "abcdefgh"], "answer": "a red"}] * 4
    file.write_text(kept + "".join(json.dumps(row) + "\n" for row in rows))
    large = replace(holding_out, manifest=holding_out.manifest.model_copy(update={"run_id": "large"}))
    needed = []
    real = lora_trainer.require_memory

    def too_small(estimate: memory.Estimate, device: torch.device) -> None:
        needed.append(estimate.total_bytes)
        if estimate.total_bytes > needed[0]:
            raise MemoryTooSmall("no room")
        real(estimate, device)

    monkeypatch.setattr(lora_trainer, "require_memory", too_small)
    large.train()
    with pytest.raises(MemoryTooSmall):
        measure(large)
