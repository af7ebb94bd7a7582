"""Models that libraries would load as something else without a word, or not at all, and what their users are told."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import MambaConfig, MambaForCausalLM, RwkvConfig, RwkvForCausalLM

from shared.errors import LoraTargetMissing, ModelUnreadable
from shared.ml.digests import base_model_digest
from shared.ml.memory import Load, estimate
from shared.ml.models import base_directory, load_base, load_tokenizer
from shared.protocol.terms import LoraTerms
from tests.support.tiny_models import FAMILIES, tiny_base, tiny_directory, tiny_lora

CPU = torch.device("cpu")
IDS_BT = torch.arange(8)[None]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_directory(tmp_path_factory.mktemp("models") / "llm")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy of a tiny model, to be spoilt."""
    return Path(shutil.copytree(original, tmp_path / "llm"))


def edit(folder: Path, **fields: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def add_tensors(folder: Path, **tensors: torch.Tensor) -> None:
    file = folder / "model.safetensors"
    save_file(load_file(file) | tensors, file, metadata={"format": "pt"})


def weights(folder: Path) -> None:
    load_base(folder, dtype="float32", device=CPU)


def memory(folder: Path) -> None:
    estimate(folder, dtype="float32", lora=LoraTerms(), training=Load(1, 8, 2))


EVERYBODY: tuple[Callable[[Path], object], ...] = (load_tokenizer, base_model_digest, weights, memory)


def refused(folder: Path, told: str, *, by: tuple[Callable[[Path], object], ...] = EVERYBODY) -> None:
    """Whoever asks first refuses."""
    for read in by:
        with pytest.raises(ModelUnreadable, match=told):
            read(folder)


def test_an_adapter_beside_a_model_is_not_loaded_with_it(folder: Path):
    """Transformers would add it, and no digest would tell; as in a folder that holds an adapter alone."""
    tiny_lora(spread=0.3).save_pretrained(folder)
    refused(
        folder, r"holds an adapter: merge it first with `adapters export --merged`, or move adapter_config\.json away"
    )
    (folder / "config.json").unlink()
    refused(folder, "holds an adapter")


@pytest.mark.parametrize("inside", [False, True], ids=["config", "text_config"])
def test_quantised_weights_are_refused(folder: Path, inside: bool):  # noqa: FBT001 - a parameter
    """Eight-bit floats would be read as they are, without their scales, and the model would talk nonsense."""
    quantised = {"quantization_config": {"quant_method": "fp8"}}
    edit(folder, **({"text_config": quantised} if inside else quantised))
    refused(folder, "are quantised already: name the unquantised model")


def test_weights_that_no_part_of_the_model_takes_are_refused(folder: Path):
    """Scales of weights that nobody said were quantised, or layers that a shortened configuration leaves out."""
    add_tensors(folder, **{"model.layers.0.mlp.up_proj.weight_scale_inv": torch.ones(1)})
    refused(folder, r"have 1 tensor\(s\) beside those of the model, the first is '.*weight_scale_inv'", by=(weights,))


@pytest.mark.parametrize("family", ["gpt2", "opt", *FAMILIES])
def test_what_old_checkpoints_hold_beside_their_weights_is_passed_over(family: str, tmp_path: Path):
    """Masks, rotary frequencies and a copy of a tied head are made anew; the model is the same, whatever its prefix."""
    tiny_directory(tmp_path, family)
    head = {} if family in {"llama", "mistral", "qwen3"} else {"lm_head.weight": tiny_base(family).lm_head.weight}
    beside = {
        "gpt2": {"transformer.h.0.attn.bias": torch.ones(1, 1, 4, 4), "transformer.h.0.attn.masked_bias": torch.ones(1)}
    }.get(family, {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)})
    add_tensors(tmp_path, **beside, **{name: tensor.clone() for name, tensor in head.items()})
    loaded = load_base(tmp_path, dtype="float32", device=CPU)
    assert torch.equal(loaded(IDS_BT).logits, tiny_base(family)(IDS_BT).logits)
    file, prefix = tmp_path / "model.safetensors", f"{loaded.base_model_prefix}."
    save_file({name.removeprefix(prefix): tensor for name, tensor in load_file(file).items()}, file, {"format": "pt"})
    bare = load_base(tmp_path, dtype="float32", device=CPU)
    assert torch.equal(bare(IDS_BT).logits, loaded(IDS_BT).logits)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (
            {"num_hidden_layers": "two"},
            r"is not one of a causal language model .*\(StrictDataclassFieldValidationError",
        ),
        ({"hidden_size": -1}, "is not one of a causal language model"),
        ({"model_type": "nonesuch"}, "is not one of a causal language model"),
        ({"model_type": ["llama"]}, "is not one of a causal language model"),
        ({"architectures": 5}, "holds a 5, and that is no causal language model"),
        (
            {"architectures": ["BertLMHeadModel"], "model_type": "bert"},
            "holds a BertLMHeadModel, and that is no causal",
        ),
        ({"architectures": None, "model_type": "roberta"}, "holds a roberta, and that is no causal language model"),
    ],
)
def test_a_configuration_of_something_else_is_told_as_such(folder: Path, fields: dict[str, object], told: str):
    """Whatever transformers raises; and BERT's relatives, which it loads as if they did not see what follows."""
    edit(folder, **fields)
    refused(folder, told, by=(load_tokenizer, base_model_digest, memory))


def test_an_encoder_that_was_made_a_decoder_is_one(folder: Path):
    """Then each of its tokens sees those before it alone."""
    edit(folder, architectures=["BertLMHeadModel"], model_type="bert", is_decoder=True)
    assert base_directory(folder) == folder


@pytest.mark.parametrize(
    "content",
    ['{"version": "1.0"}', "", '{"model": {"type": "BPE", "vocab": {}, "merges": [["zz", "qq"]]}}'],
    ids=["nothing in it", "empty", "merges of nothing"],
)
def test_a_damaged_tokenizer_is_told_as_such(folder: Path, content: str):
    """The library raises bare exceptions."""
    (folder / "tokenizer.json").write_text(content)
    refused(folder, r"no tokenizer can be loaded from .*: put its tokenizer\.json there", by=(load_tokenizer,))


def test_a_tokenizer_in_sentencepieces_own_format_is_told_what_to_make_of_it(folder: Path):
    """Another library reads that, which is not needed here."""
    (folder / "tokenizer.json").rename(folder / "tokenizer.model")
    refused(folder, r"where sentencepiece is installed.* writes a tokenizer\.json", by=(load_tokenizer,))


def test_a_name_that_no_file_can_have_is_told_so():
    """Whoever pastes something else by mistake."""
    refused(Path("a" * 300), "File name too long")


def test_a_family_without_attention_is_estimated(tmp_path: Path):
    """Its configuration says nothing of heads."""
    RwkvForCausalLM(RwkvConfig(vocab_size=264, hidden_size=32, num_hidden_layers=2)).save_pretrained(tmp_path)
    found = estimate(tmp_path, dtype="float32", lora=LoraTerms(targets=("key",)), training=Load(1, 8, 2))
    assert found.parts["activations"] > 0


def test_modules_that_peft_will_not_wrap_are_told_with_its_reason(tmp_path: Path):
    """It has its own opinion of some families."""
    MambaForCausalLM(MambaConfig(vocab_size=264, hidden_size=32, num_hidden_layers=2)).save_pretrained(tmp_path)
    with pytest.raises(LoraTargetMissing, match=r"cannot go on out_proj of MambaForCausalLM.*incompatible with Mamba"):
        estimate(tmp_path, dtype="float32", lora=LoraTerms(targets=("out_proj",)), training=Load(1, 8, 2))
