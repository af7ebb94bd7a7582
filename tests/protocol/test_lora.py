"""What `adapter_config.json` may say: plain LoRA (docs/security.md, "By which means")."""

import pytest
from pydantic import JsonValue

from bench.no_op import lora_of
from shared.errors import LoraMismatch
from shared.protocol.lora import VISION, read_adapter_config, require_lora
from shared.protocol.tensors import Layout
from shared.protocol.terms import LoraTerms

LORA = LoraTerms(rank=8, alpha=16, dropout=0.1, targets=("v_proj", "attn.q_proj"))
LAYOUT = {
    f"base_model.model.layers.{layer}.attn.{target}.lora_{factor}.weight": shape
    for layer in range(2)
    for target in ("q_proj", "v_proj")
    for factor, shape in (("A", (8, 32)), ("B", (16, 8)))
}
CONFIG = lora_of(LAYOUT, LORA) | {"target_modules": ["attn.q_proj", "v_proj"]}
FIRST = "base_model.model.layers.0.attn.q_proj"


def test_plain_lora_is_what_the_terms_say():
    """With the order of targets left open, and the targets too where the terms leave them to the model's family."""
    for terms in (LORA, LORA.model_copy(update={"targets": None})):
        require_lora(CONFIG, LAYOUT, terms)
    assert read_adapter_config(CONFIG | {"exclude_modules": VISION}).exclude_modules == VISION


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("auto_mapping", {"base_model_class": "Evil", "parent_library": "evil"}),
        ("auto_mapping", None),
        ("megatron_core", "evil.module"),
        ("layer_replication", [[0, 2]] * 1000),
        ("modules_to_save", ["lm_head"]),
        ("init_lora_weights", "pissa"),
        ("a_setting_of_next_year", 1),
        ("peft_type", "LOHA"),
        ("task_type", "FEATURE_EXTRACTION"),
        ("inference_mode", False),
        ("bias", "all"),
        ("r", "8"),
        ("fan_in_fan_out", "no"),
        ("target_modules", "(a+)+$"),
        ("target_modules", ["(a+)+$"]),
        ("target_modules", []),
        ("exclude_modules", "(a+)+$"),
        ("peft_version", "../.."),
        ("base_model_name_or_path", "x" * 1025),
    ],
)
def test_anything_else_is_refused_by_its_name(name: str, value: JsonValue):
    """What imports a module, reads a file, adds weights or is a pattern to match reaches nobody's PEFT."""
    with pytest.raises(LoraMismatch, match=rf"^{name} of an adapter's configuration is not that of plain LoRA"):
        read_adapter_config(CONFIG | {name: value})


def test_nothing_may_be_missing():
    """PEFT would take its own default, which is not what the terms say."""
    for name in CONFIG.keys() - {"exclude_modules"}:
        with pytest.raises(LoraMismatch, match=f"^{name} of"):
            read_adapter_config({key: value for key, value in CONFIG.items() if key != name})


@pytest.mark.parametrize(
    ("name", "value"), [("r", 4), ("lora_alpha", 32), ("lora_dropout", 0.2), ("target_modules", ["q_proj", "v_proj"])]
)
def test_another_lora_than_the_terms_is_refused(name: str, value: JsonValue):
    """What differs is named, with both values."""
    with pytest.raises(LoraMismatch, match=rf"^{name} of an adapter's configuration is .*, and the terms"):
        require_lora(CONFIG | {name: value}, LAYOUT, LORA)


@pytest.mark.parametrize(
    "other",
    [
        {f"{FIRST}.lora_A.weight": (4, 32)},
        {f"{FIRST}.lora_B.weight": (16, 4)},
        {f"{FIRST}.lora_B.weight": (8,)},
        {f"{FIRST}.weight": (8, 8)},
        {f"{FIRST}.lora_A.bias": (8, 8)},
        {"base_model.model.lm_head.lora_A.weight": (8, 32)},
        {"base_model.model.layers.0.attn.vv_proj.lora_A.weight": (8, 32)},
    ],
)
def test_a_layout_of_anything_but_the_terms_lora_is_refused(other: Layout):
    """A coordinator cannot have trained, or be sent, more than factors of the rank, for the targets, of the terms."""
    with pytest.raises(LoraMismatch, match=r"is no factor of rank 8 for one of attn\.q_proj, v_proj"):
        require_lora(CONFIG, {**LAYOUT, **other}, LORA)
