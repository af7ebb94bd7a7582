import json
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from services.client_agent import lora_trainer
from services.client_agent.lora_trainer import LoraTrainer
from services.client_agent.trainer import Progress, Trained, TrainingOrder
from shared.data.source import DataSource
from shared.errors import (
    BaseModelMismatch,
    ContextTooShort,
    ExampleTooLong,
    LoraMismatch,
    MemoryTooSmall,
    TokenizerMismatch,
)
from shared.ml import memory
from shared.ml.adapters import adapter_layout, adapter_tensors
from shared.ml.digests import base_model_digest, tokenizer_digest
from shared.ml.free_memory import free_bytes
from shared.ml.models import add_lora, load_with_lora
from shared.protocol.codec import encode
from shared.protocol.digests import digest_of
from shared.protocol.messages import Manifest
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


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A machine with a tiny SLM and ten examples, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    base = tiny_directory(tmp_path / "slm")
    rows = ({"question": f"{number} is", "choices": ["red", "blue"], "answer": "red"} for number in range(10))
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = add_lora(tiny_base(), rank=2, alpha=4, dropout=0.1, targets=None, seed=0)
    (tmp_path / "theta").write_bytes(encode(adapter_tensors(model)))
    manifest = Manifest(
        run_id="run",
        run_name="run",
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
    )
    trainer = LoraTrainer(
        slm=str(base),
        data=DataSource(path=tmp_path / "data.jsonl"),
        device="cpu",
        dtype="float32",
        digest_cache=tmp_path / "digests.json",
    )
    yield Site(tmp_path, trainer, manifest)
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
    saving = LoraTrainer(
        slm=str(site.folder / "slm"),
        data=DataSource(path=site.folder / "data.jsonl"),
        device="cpu",
        dtype="float32",
        digest_cache=site.folder / "digests.json",
        gradient_checkpointing=True,
    )
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
    saving = LoraTrainer(
        slm=str(site.folder / "slm"),
        data=DataSource(path=site.folder / "data.jsonl"),
        device="cpu",
        dtype="bfloat16",
        digest_cache=site.folder / "digests.json",
        gradient_checkpointing=True,
    )
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
