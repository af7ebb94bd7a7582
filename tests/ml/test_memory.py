import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from shared.errors import LoraTargetMissing, MemoryTooSmall, ModelUnreadable
from shared.ml import memory
from shared.ml.encoding import Encoded, EncodedChoices
from shared.ml.likelihood import MOST_ANSWER_TOKENS
from shared.ml.memory import (
    Estimate,
    Load,
    estimate,
    estimate_pair,
    evaluation_batches,
    largest_batch,
    require_memory,
)
from shared.protocol.terms import LoraTerms
from tests.support.federations import terms_of
from tests.support.tiny_models import FAMILIES, tiny_base, tiny_directory, tiny_lora

CPU = torch.device("cpu")
LOAD = Load(rows=4, tokens=32, answer_tokens=8)
WEIGHTS, TUNED, ACTIVATIONS, LOGITS = (
    "base weights",
    "LoRA weights, gradients and optimiser",
    "activations",
    "logits",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_directory(tmp_path_factory.mktemp("model"))


def parts(folder: Path, **changes: object) -> dict[str, int]:
    settings: dict[str, object] = {"dtype": "float32", "lora": LoraTerms(rank=4, alpha=8), "training": LOAD}
    return dict(estimate(folder, **(settings | changes)).parts)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", ["gpt2", "opt", *FAMILIES])
def test_weights_and_lora_are_counted_to_the_byte(family: str, tmp_path: Path):
    """In every family, from the configuration alone: there is no file of weights."""
    tiny_directory(tmp_path, family)
    (tmp_path / "model.safetensors").unlink()
    model = tiny_lora(family)
    tuned = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    frozen = sum(weight.numel() for weight in tiny_base(family).parameters())
    found = parts(tmp_path)
    assert found[WEIGHTS] == 4 * frozen
    assert found[TUNED] == 16 * tuned
    assert parts(tmp_path, dtype="bfloat16")[WEIGHTS] == 2 * frozen


def test_four_bits_hold_linear_modules_and_nothing_else(folder: Path):
    """Embeddings, head and norms stay as they are; scales are counted too."""
    model = tiny_base()
    linear = sum(
        module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    )
    others = sum(weight.numel() for weight in model.parameters()) - linear
    found = parts(folder, dtype="nf4")[WEIGHTS]
    assert 2 * others + linear / 2 < found < 2 * others + 0.53 * linear


@pytest.mark.parametrize(
    ("change", "grows"),
    [
        ({"training": Load(8, 32, 8)}, {ACTIVATIONS}),
        ({"training": Load(4, 64, 8)}, {ACTIVATIONS}),
        ({"training": Load(4, 32, 80)}, {LOGITS}),
        ({"lora": LoraTerms(rank=8, alpha=8)}, {TUNED}),
    ],
)
def test_what_is_larger_takes_more(folder: Path, change: dict[str, object], grows: set[str]):
    """Each knob moves the part that it belongs to, and no other."""
    before, after = parts(folder), parts(folder, **change)
    assert {name for name in before if after[name] > before[name]} == grows
    assert all(after[name] >= before[name] for name in before)


def test_computing_activations_again_takes_less(folder: Path):
    """That is what the setting is for; weights are what they are."""
    before, after = parts(folder), parts(folder, gradient_checkpointing=True)
    assert after[ACTIVATIONS] < before[ACTIVATIONS]
    assert (after[WEIGHTS], after[TUNED]) == (before[WEIGHTS], before[TUNED])


def test_the_largest_batch_is_of_the_longest_texts_and_answers():
    """Whatever order an epoch takes, no batch is larger."""
    encoded = [Encoded(tuple(range(length)), length - answer) for length, answer in ((5, 4), (9, 1), (7, 3))]
    assert largest_batch(encoded, 2) == Load(rows=2, tokens=9, answer_tokens=7)
    assert largest_batch(encoded, 8) == Load(rows=3, tokens=9, answer_tokens=8)
    assert largest_batch([], 8) == Load(rows=0, tokens=0, answer_tokens=0)


def completions(count: int, answer: int) -> list[EncodedChoices]:
    return [EncodedChoices((Encoded(tuple(range(answer + 8)), 8),), 0, (1,))] * count


def test_evaluation_takes_the_passes_that_it_makes():
    """So many answer tokens at once, however many examples there are; choices as rows of their own, and as trees."""
    found = evaluation_batches(completions(100, 200), CPU)
    assert max(load.answer_tokens for load in found) <= MOST_ANSWER_TOKENS
    assert sum(load.rows for load in found) == 2 * 100
    two_tokens = tuple(Encoded((*range(9), choice, choice), 9) for choice in range(4))
    rows, trees = [Load(32, 10, 64), Load(8, 10, 16)], [Load(10, 9 + 4, 10 * 5, masked=True)]
    assert evaluation_batches([EncodedChoices(two_tokens, 0, (1,) * 4)] * 10, CPU) == rows + trees


def test_evaluation_takes_the_passes_of_its_device():
    """A GPU's are larger: there are as many tokens of padding in them as it computes while it reads the weights."""
    examples = [EncodedChoices((Encoded(tuple(range(8 + 2 * one)), 7),), 0, (1,)) for one in range(20)]
    on_a_cpu, on_a_gpu = (
        max(load.rows * load.tokens for load in evaluation_batches(examples, torch.device(device)))
        for device in ("cpu", "cuda")
    )
    assert on_a_gpu > on_a_cpu


def test_what_trees_see_takes_a_number_for_each_pair_of_tokens(folder: Path):
    """In the base's own format; the mask is the whole pass's, padding included."""
    for dtype, number in (("float32", 4), ("bfloat16", 2)):
        without, masked = (
            parts(folder, dtype=dtype, evaluation=[Load(100, 32, 8, masked=masked)]) for masked in (False, True)
        )
        part = f"{ACTIVATIONS} of evaluation"
        assert masked[part] - without[part] == 100 * 32 * 32 * number


def test_what_is_trained_and_evaluated_takes_what_the_larger_of_both_takes(folder: Path):
    """One comes after the other, in the same memory."""
    small, large = (parts(folder, evaluation=[Load(rows, 32, 8)]) for rows in (1, 100))
    assert small == parts(folder)
    assert large.keys() == {WEIGHTS, TUNED, f"{ACTIVATIONS} of evaluation", f"{LOGITS} of evaluation", "libraries"}
    assert sum(large.values()) > sum(small.values())


def test_two_models_are_held_and_co_tuned_at_once_and_evaluated_one_after_the_other(folder: Path):
    """What takes most of that counts; each part says whose it is."""
    lora = LoraTerms()
    terms = terms_of(llm=str(folder), slm=str(folder), slm_lora=lora, llm_lora=lora)

    def pair(validation: Sequence[EncodedChoices]) -> dict[str, int]:
        encoded = [one.choices[0] for one in completions(2, 8)]
        found = estimate_pair(terms, encoded, validation, dtype="float32", gradient_checkpointing=False, device=CPU)
        return dict(found.parts)

    alone = parts(folder, lora=lora, training=Load(2, 16, 16))
    libraries = {"libraries": alone.pop("libraries")}
    both = {f"{model} {name}": size for name, size in alone.items() for model in ("LLM", "SLM")}
    assert pair(completions(2, 8)) == both | libraries
    evaluated = [name for name in pair(completions(1000, 8)) if "activations" in name or "logits" in name]
    assert evaluated == ["LLM activations of evaluation", "LLM logits of evaluation"]


def test_a_machine_that_is_too_small_is_told_what_for_and_what_to_do(monkeypatch: pytest.MonkeyPatch):
    """The sum, what is free, each part, and every setting that helps; exactly enough is enough."""
    needed = Estimate({"base weights": 13_500_000_000, "activations": 2_000_000_000})
    monkeypatch.setattr(memory, "free_bytes", lambda _: 15_499_999_999)
    with pytest.raises(MemoryTooSmall) as caught:
        require_memory(needed, CPU)
    assert str(caught.value).startswith(
        "about 15.50 GB of memory are needed on cpu and 15.50 GB are free (13.50 GB base weights, 2.00 GB activations)"
    )
    for help_ in ("bfloat16", "nf4", "gradient_checkpointing", "batch_size", "max_tokens", "smaller model"):
        assert help_ in str(caught.value)
    monkeypatch.setattr(memory, "free_bytes", lambda _: 15_500_000_000)
    require_memory(needed, CPU)


def test_what_cannot_be_tuned_is_told_before_it_is_loaded(folder: Path, tmp_path: Path):
    """A family without LoRA targets, a wrong target, and a configuration that nobody knows."""
    with pytest.raises(LoraTargetMissing, match="names no module"):
        parts(folder, lora=LoraTerms(targets=("nowhere",)))
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "nonesuch"}))
    with pytest.raises(ModelUnreadable, match="is not one of a causal language model"):
        parts(tmp_path)
