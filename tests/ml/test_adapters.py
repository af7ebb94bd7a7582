import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.numpy import load_file, save_file

from shared.errors import LoraMismatch
from shared.ml.adapters import adapter_config, adapter_layout, adapter_tensors, load_adapter
from shared.protocol.lora import require_lora
from shared.protocol.tensors import Array, layout_of
from shared.protocol.terms import LoraTerms
from tests.support.tiny_models import tiny_base, tiny_lora

IDS = torch.arange(12)[None]
FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_what_we_write_is_what_peft_loads(family: str, tmp_path: Path):
    """Our JSON and tensors make a folder that PeftModel.from_pretrained turns into the same logits."""
    model = tiny_lora(family, spread=0.3)
    (tmp_path / "adapter_config.json").write_text(json.dumps(adapter_config(model, base_model="org/model")))
    save_file(adapter_tensors(model), tmp_path / "adapter_model.safetensors")
    loaded = PeftModel.from_pretrained(tiny_base(family), tmp_path).eval()
    assert torch.equal(loaded(IDS).logits, model(IDS).logits)
    assert not torch.equal(tiny_base(family)(IDS).logits, model(IDS).logits)


def test_names_are_those_that_peft_writes(tmp_path: Path):
    """The same keys, shapes and bytes as PEFT's own file."""
    model = tiny_lora(spread=0.3)
    model.save_pretrained(tmp_path)
    theirs, ours = load_file(tmp_path / "adapter_model.safetensors"), adapter_tensors(model)
    assert FIRST in ours
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


def test_tensors_are_float32_copies_in_sorted_order():
    """They do not change when training goes on, and the layout is theirs."""
    model = tiny_lora(spread=0.3)
    tensors = adapter_tensors(model)
    assert list(tensors) == sorted(tensors)
    assert all(tensor.dtype == np.float32 and tensor.flags.c_contiguous for tensor in tensors.values())
    assert adapter_layout(model) == layout_of(tensors)
    assert adapter_layout(model)[FIRST] == (4, 32)
    before = tensors[FIRST].copy()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1)
    assert np.array_equal(tensors[FIRST], before)


def test_an_adapter_goes_from_one_model_to_another_unchanged():
    """Loading is in place (an optimiser's weights stay the model's), and reading back gives the same bytes."""
    source, target = tiny_lora(seed=1, spread=0.3), tiny_lora(seed=2)
    weights = [id(weight) for weight in target.parameters()]
    tensors = adapter_tensors(source)
    for tensor in tensors.values():
        tensor.flags.writeable = False  # as arrays over received bytes are
    load_adapter(target, tensors)
    assert [id(weight) for weight in target.parameters()] == weights
    assert all(weight.requires_grad == ("lora_" in name) for name, weight in target.named_parameters())
    assert {name: tensor.tobytes() for name, tensor in adapter_tensors(target).items()} == {
        name: tensor.tobytes() for name, tensor in tensors.items()
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop(FIRST), rf"lacks 1 tensor\(s\) of the model, the first is '{FIRST}'"),
        (lambda tensors: tensors.update(more=tensors[FIRST]), r"has 1 tensor\(s\) that the model does not, .* 'more'"),
        (
            lambda tensors: tensors.update({FIRST: tensors[FIRST].T}),
            rf"'{FIRST}' .* \[32, 4\] and the model's has \[4, 32",
        ),
        (lambda tensors: tensors.update({FIRST: tensors[FIRST].astype(np.float64)}), "is float64 and must be float32"),
    ],
    ids=["missing", "unexpected", "shape", "dtype"],
)
def test_an_adapter_that_does_not_fit_changes_nothing(change: Callable[[dict[str, Array]], object], message: str):
    """The first difference is named, and no tensor was written before it was found."""
    model = tiny_lora(seed=1)
    before = adapter_tensors(model)
    tensors = adapter_tensors(tiny_lora(seed=2, spread=0.3))
    change(tensors)
    with pytest.raises(LoraMismatch, match=message):
        load_adapter(model, tensors)
    after = adapter_tensors(model)
    assert all(np.array_equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("family", ["llama", "qwen3", "opt", "gpt2", "gemma3"])
def test_what_a_worker_hands_in_is_plain_lora(family: str):
    """So that its manifest is signed, and its adapters are kept, whatever the family of its model."""
    model = tiny_lora(family)
    lora = LoraTerms(rank=4, alpha=8, dropout=0.0)
    require_lora(adapter_config(model, base_model="here"), adapter_layout(model), lora)


def test_the_configuration_is_the_same_text_for_the_same_lora():
    """Sets are sorted and everything is JSON, so its digest means something."""
    texts = {json.dumps(adapter_config(tiny_lora(seed=seed), base_model="here")) for seed in range(3)}
    assert len(texts) == 1
    config = json.loads(texts.pop())
    assert config["target_modules"] == ["k_proj", "o_proj", "q_proj", "v_proj"]
    assert (config["r"], config["lora_alpha"], config["task_type"], config["peft_type"]) == (4, 8, "CAUSAL_LM", "LORA")
    assert (config["base_model_name_or_path"], config["inference_mode"]) == ("here", True)
    assert adapter_config(tiny_lora("gpt2"), base_model="here")["fan_in_fan_out"] is True
