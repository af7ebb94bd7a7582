import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from shared.errors import LoraTargetMissing, MemoryTooSmall, ModelUnreadable
from shared.ml import memory
from shared.ml.encoding import Encoded
from shared.ml.memory import (
    Estimate,
    Load,
    estimate,
    free_bytes,
    free_in_groups,
    largest_batch,
    require_memory,
    together,
)
from shared.protocol.terms import LoraTerms
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
        ({"evaluation": Load(400, 64, 80)}, {ACTIVATIONS, LOGITS}),
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


def test_models_that_are_there_at_once_add_up():
    """And each part says whose it is."""
    both = together(LLM=Estimate({"weights": 3}), SLM=Estimate({"weights": 2, "logits": 1}))
    assert both.parts == {"LLM weights": 3, "SLM weights": 2, "SLM logits": 1}
    assert both.total_bytes == 6


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


def test_this_machine_has_memory():
    """More than this very process may hold, and not more than there is."""
    assert 1_000_000 < free_bytes(CPU) < 1 << 50


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def version_2(root: Path) -> str:
    write(root / "a", memory__max="1000\n", memory__current="700\n", memory__stat="anon 400\ninactive_file 200\n")
    write(root / "a" / "b", memory__max="max\n", memory__current="700\n", memory__stat="")
    write(root)
    return "0::/a/b\n"


def version_2_in_a_container(root: Path) -> str:
    """The group's own folder is the root, whatever the machine calls it."""
    write(root, memory__max="1000\n", memory__current="700\n", memory__stat="inactive_file 200\n")
    return "0::/kubepods/pod1/../../elsewhere\n"


def version_1(root: Path) -> str:
    write(
        root / "memory" / "docker",
        memory__limit_in_bytes="1000",
        memory__usage_in_bytes="700",
        memory__stat="cache 5\ntotal_inactive_file 200\n",
    )
    return "9:cpu,cpuacct:/docker\n4:memory:/docker\n1:name=systemd:/docker\n"


@pytest.mark.parametrize("groups", [version_2, version_2_in_a_container, version_1])
def test_a_containers_limit_counts(groups: Callable[[Path], str], tmp_path: Path):
    """What is left under it, where pages of files that may be dropped are left too; a group without a limit is none."""
    (tmp_path / "own").write_text(groups(tmp_path / "groups"))
    assert free_in_groups(tmp_path / "own", tmp_path / "groups") == [500]


def test_a_machine_without_control_groups_has_no_such_limit(tmp_path: Path):
    """Neither has one without the files of them."""
    assert free_in_groups(tmp_path / "none", tmp_path) == []
    (tmp_path / "own").write_text("0::/a\n")
    assert free_in_groups(tmp_path / "own", tmp_path / "none") == []


def test_a_group_above_its_limit_has_nothing_left(tmp_path: Path):
    """And not less than nothing."""
    write(tmp_path / "groups", memory__max="1000", memory__current="1200", memory__stat="")
    (tmp_path / "own").write_text("0::/\n")
    assert free_in_groups(tmp_path / "own", tmp_path / "groups") == [0]


def test_what_cannot_be_tuned_is_told_before_it_is_loaded(folder: Path, tmp_path: Path):
    """A family without LoRA targets, a wrong target, and a configuration that nobody knows."""
    with pytest.raises(LoraTargetMissing, match="names no module"):
        parts(folder, lora=LoraTerms(targets=("nowhere",)))
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "nonesuch"}))
    with pytest.raises(ModelUnreadable, match="is not one of a causal language model"):
        parts(tmp_path)
