"""An agent's machine, whose trainer trains a tiny model."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.client_agent.lora_trainer import LoraTrainer
from services.client_agent.trainer import Progress, Trained, TrainingOrder
from shared.data.source import DataSource
from shared.ml.adapters import adapter_layout, adapter_tensors
from shared.ml.digests import base_model_digest, tokenizer_digest
from shared.ml.models import add_lora
from shared.protocol.codec import encode
from shared.protocol.digests import digest_of
from shared.protocol.manifest import Manifest
from shared.protocol.terms import CohortTerms, LoraTerms, MaskingTerms, OptimiserTerms, TaskTerms, TrainingTerms
from tests.support.tiny_models import tiny_base, tiny_directory, tiny_tokenizer

LORA = LoraTerms(rank=2, alpha=4, dropout=0.1)


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


def site_in(folder: Path) -> Site:
    """Return a machine with a tiny SLM, ten examples, and four more that it may evaluate on."""
    base = tiny_directory(folder / "slm")
    rows = ({"question": f"{number} is", "choices": ["red", "blue"], "answer": "red"} for number in range(10))
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = ({"question": f"{word} is", "choices": ["red", "blue"], "answer": "blue"} for word in ("a", "b", "c", "d"))
    (folder / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    model = add_lora(tiny_base(), rank=2, alpha=4, dropout=0.1, targets=None, seed=0)
    (folder / "theta").write_bytes(encode(adapter_tensors(model)))
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
    return Site(folder, trainer_of(folder), manifest)
