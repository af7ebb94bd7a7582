import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.numpy import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from shared.adapter_folder import WEIGHTS, write_adapter_config
from shared.errors import FedCoLLMError, LoraMismatch, LoraTargetMissing, ModelUnreadable
from shared.ml.adapters import adapter_config, adapter_tensors
from shared.ml.merge import merge
from tests.support.tiny_models import tiny_directory, tiny_lora


def adapter_directory(folder: Path, model: PeftModel) -> Path:
    """Write the model's LoRA as a PEFT directory."""
    folder.mkdir()
    save_file(adapter_tensors(model), folder / WEIGHTS)
    write_adapter_config(folder, adapter_config(model, base_model="base"))
    return folder


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "qwen2"])
def test_a_merged_model_answers_as_base_and_adapter_do(family: str, tmp_path: Path):
    """It is loaded without PEFT, gives the same logits, and its tokenizer is the base model's."""
    base, tuned = tiny_directory(tmp_path / "base", family), tiny_lora(family, spread=0.5)
    merge(str(base), adapter_directory(tmp_path / "adapter", tuned), tmp_path / "merged", show_progress=False)

    ids = torch.tensor([AutoTokenizer.from_pretrained(tmp_path / "merged")("a red b")["input_ids"]])
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(merged(input_ids=ids).logits, tuned(input_ids=ids).logits)
    with tuned.disable_adapter():
        assert not torch.allclose(merged(input_ids=ids).logits, tuned(input_ids=ids).logits, atol=1e-2)


def other_family(folder: Path) -> tuple[Path, Path]:
    return tiny_directory(folder / "base", "gpt2"), adapter_directory(folder / "adapter", tiny_lora())


def other_size(folder: Path) -> tuple[Path, Path]:
    return tiny_directory(folder / "base"), adapter_directory(folder / "adapter", tiny_lora(hidden=64))


def no_weights(folder: Path) -> tuple[Path, Path]:
    adapter = adapter_directory(folder / "adapter", tiny_lora())
    (adapter / WEIGHTS).write_bytes(b"no safetensors")
    return tiny_directory(folder / "base"), adapter


def no_base(folder: Path) -> tuple[Path, Path]:
    return folder, adapter_directory(folder / "adapter", tiny_lora())


def many_tensors(folder: Path) -> tuple[Path, Path]:
    adapter = adapter_directory(folder / "adapter", tiny_lora())
    tensors = b",".join(b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % number for number in range(40_000))
    (adapter / WEIGHTS).write_bytes(struct.pack("<Q", len(tensors) + 2) + b"{" + tensors + b"}")
    return tiny_directory(folder / "base"), adapter


def half_precision(folder: Path) -> tuple[Path, Path]:
    adapter = adapter_directory(folder / "adapter", tiny_lora())
    header = b'{"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}'
    (adapter / WEIGHTS).write_bytes(struct.pack("<Q", len(header)) + header + bytes(2))
    return tiny_directory(folder / "base"), adapter


def with_setting(folder: Path, **odd: object) -> tuple[Path, Path]:
    model = tiny_lora()
    adapter = adapter_directory(folder / "adapter", model)
    write_adapter_config(adapter, adapter_config(model, base_model="base") | odd)
    return tiny_directory(folder / "base"), adapter


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (other_family, LoraTargetMissing),
        (other_size, LoraMismatch),
        (no_weights, ModelUnreadable),
        (no_base, ModelUnreadable),
        (many_tensors, ModelUnreadable),
        (half_precision, ModelUnreadable),
        (partial(with_setting, layer_replication=[[0, 2]] * 1000), ModelUnreadable),
        (partial(with_setting, megatron_config={"a": 1}, megatron_core="antigravity"), ModelUnreadable),
        (partial(with_setting, init_lora_weights="pissa"), ModelUnreadable),
    ],
)
def test_what_does_not_fit_is_refused(
    make: Callable[[Path], tuple[Path, Path]], error: type[FedCoLLMError], tmp_path: Path
):
    """A wrong base model is never merged into something that loads and answers badly."""
    base, adapter = make(tmp_path)
    with pytest.raises(error):
        merge(str(base), adapter, tmp_path / "merged", show_progress=False)
    assert not (tmp_path / "merged").exists()
