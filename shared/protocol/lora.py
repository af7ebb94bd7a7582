"""What ``adapter_config.json`` may say, which organisations load with PEFT: plain LoRA, and nothing else.

PEFT's file has settings that import modules, read other files, add weights of their own or repeat layers. Whoever sends
one says none of them: neither agents nor operators write down, or sign, a file that does.
"""

import re
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, ValidationError

from shared.errors import LoraMismatch
from shared.protocol.tensors import Layout
from shared.protocol.terms import LoraTerms

# What Gemma 3's larger models see pictures with has projections of the same names, and has no part in any of this.
VISION = r".*\bvision_tower\..*"

ModuleName: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.]{1,256}$")]


class AdapterConfig(BaseModel):
    """The settings that there may be, in PEFT's names; what is left out has PEFT's default, which is off."""

    peft_type: Literal["LORA"]
    task_type: Literal["CAUSAL_LM"]
    base_model_name_or_path: Annotated[str, Field(max_length=1024)] | None
    inference_mode: Literal[True]
    peft_version: Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z.+]{1,64}$")]
    r: int
    lora_alpha: int
    lora_dropout: float
    target_modules: Annotated[list[ModuleName], Field(min_length=1, max_length=1024)]
    exclude_modules: Annotated[str, StringConstraints(pattern=f"^{re.escape(VISION)}$")] | None = None
    fan_in_fan_out: bool
    bias: Literal["none"]
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def read_adapter_config(said: dict[str, JsonValue]) -> AdapterConfig:
    """Return what a file is to say.

    Raises:
        LoraMismatch: it says more than plain LoRA; the first setting that does is named.
    """
    try:
        return AdapterConfig.model_validate(said)
    except ValidationError as error:
        first = error.errors()[0]
        raise LoraMismatch(
            f"{first['loc'][0]} of an adapter's configuration is not that of plain LoRA ({first['msg']}): "
            "do not use it, and ask who made it"
        ) from None


def require_lora(said: dict[str, JsonValue], layout: Layout, lora: LoraTerms) -> None:
    """Raise LoraMismatch unless an adapter's configuration and its layout are what the terms' LoRA says.

    How large the model's modules are is not in the terms: whoever has the model compares that.
    """
    config = read_adapter_config(said)
    for name, here, wanted in (
        ("r", config.r, lora.rank),
        ("lora_alpha", config.lora_alpha, lora.alpha),
        ("lora_dropout", config.lora_dropout, lora.dropout),
        ("target_modules", sorted(config.target_modules), sorted(lora.targets or config.target_modules)),
    ):
        if here != wanted:
            raise LoraMismatch(
                f"{name} of an adapter's configuration is {here}, and the terms of its LoRA say {wanted}"
            )
    for name, shape in layout.items():
        module, _, factor = name.rpartition(".lora_")
        rank = {"A.weight": shape[:1], "B.weight": shape[1:2]}.get(factor)
        targeted = any(f".{module}".endswith(f".{target}") for target in config.target_modules)
        if rank != (lora.rank,) or not targeted:
            raise LoraMismatch(
                f"tensor {name!r} of shape {list(shape)} is no factor of rank {lora.rank} for one of "
                f"{', '.join(config.target_modules)}"
            )
