import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from services.client_agent.trainer import Measured, MeasureOrder, StandaloneOrder
from shared.data.examples import read_examples
from shared.data.source import DataSource
from shared.errors import DataEmpty, DataUnreadable, MemoryTooSmall
from shared.ml import memory
from shared.ml.adapters import adapter_tensors
from shared.ml.encoding import encode_choices
from shared.ml.evaluate import evaluate
from shared.ml.models import add_lora
from shared.protocol.codec import encode
from shared.protocol.terms import TaskTerms
from tests.support.tiny_models import tiny_base, tiny_tokenizer
from tests.support.training_sites import Site, site_in, trainer_of


@pytest.fixture
def holding_out(tmp_path: Path) -> Iterator[Site]:
    """A machine on one thread with a hold-out: of its five examples one is trained on too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    site = site_in(tmp_path)
    own = (site.folder / "own.jsonl").read_text()
    also = json.dumps({"question": "3 is", "choices": ["blue", "red"], "answer": "red"})
    (site.folder / "holdout.jsonl").write_text(f"{own}{also}\n")
    yield replace(site, trainer=trainer_of(site.folder, holdout=DataSource(path=site.folder / "holdout.jsonl")))
    torch.set_num_threads(threads)


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
    steps = iter(range(2))
    with pytest.raises(_Enough):
        holding_out.trainer.measure(MeasureOrder(manifest=holding_out.manifest, adapter=None), give_way)
    assert not (holding_out.folder / "alone").exists()
    assert holding_out.train().digest == expected


def test_no_training_reads_the_hold_out(holding_out: Site) -> None:
    """Nobody waits for it: it is read where a run is first measured on it, and then once."""
    file = holding_out.folder / "holdout.jsonl"
    kept = file.read_text()
    file.unlink()
    holding_out.train()
    file.write_text(kept)
    found = measure(holding_out)
    assert len(found.right) == 4
    file.unlink()
    assert measure(holding_out) == found


def test_what_is_wrong_with_the_hold_out_is_told_where_it_is_used(
    holding_out: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All examples trained on, no file, or too little memory beside the model; what is mended is seen in the run."""
    file = holding_out.folder / "holdout.jsonl"
    kept = file.read_text()
    file.write_text((holding_out.folder / "data.jsonl").read_text())
    holding_out.train()
    with pytest.raises(DataEmpty, match=r"all examples of .*holdout\.jsonl are trained on too"):
        measure(holding_out)
    file.unlink()
    with pytest.raises(DataUnreadable, match=r"holdout\.jsonl"):
        measure(holding_out)
    rows = [{"question": "why " * 5, "choices": [f"{word} red" for word in "abcdefgh"], "answer": "a red"}] * 4
    file.write_text(kept + "".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(memory, "free_bytes", lambda _: 1_000_000)
    with pytest.raises(MemoryTooSmall, match=r"free \(\d\.\d\d GB activations of evaluation, \S+ GB logits of"):
        measure(holding_out)
    monkeypatch.undo()
    assert len(measure(holding_out).right) == 8
