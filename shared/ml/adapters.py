"""LoRA weights as named float32 arrays and back; the only file that knows how PEFT names them.

Reads and writes values, never shapes: what an adapter must look like is decided by the model it belongs to.
"""

import json
from typing import TypeAlias, cast

import numpy as np
import torch
from peft import PeftModel, get_peft_model_state_dict

from shared.errors import LoraMismatch
from shared.protocol.lora import AdapterConfig
from shared.protocol.tensors import Array, Tensors

JSON: TypeAlias = "str | int | float | bool | list[JSON] | dict[str, JSON] | None"


def adapter_tensors(model: PeftModel) -> dict[str, Array]:
    """Return copies of the LoRA weights, by the names that ``adapter_model.safetensors`` uses, in their order."""
    return {
        name: np.array(tensor.detach().to("cpu", torch.float32).numpy(), order="C", copy=True)
        for name, tensor in _weights(model).items()
    }


def adapter_layout(model: PeftModel) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the LoRA weights; meta tensors will do."""
    return {name: tuple(tensor.shape) for name, tensor in _weights(model).items()}


def load_adapter(model: PeftModel, tensors: Tensors) -> None:
    """Overwrite the model's LoRA weights, in place, with ``tensors``; if these do not fit, nothing is changed.

    Raises:
        LoraMismatch: a tensor is missing, unexpected, or has another shape or number format.
    """
    weights = _weights(model)
    if missing := sorted(weights.keys() - tensors.keys()):
        raise LoraMismatch(
            f"the adapter lacks {len(missing)} tensor(s) of the model, the first is {missing[0]!r}: {_ADVICE}"
        )
    if unexpected := sorted(tensors.keys() - weights.keys()):
        raise LoraMismatch(
            f"the adapter has {len(unexpected)} tensor(s) that the model does not, the first is {unexpected[0]!r}: "
            f"{_ADVICE}"
        )
    for name, weight in weights.items():
        if tensors[name].shape != tuple(weight.shape):
            raise LoraMismatch(
                f"tensor {name!r} of the adapter has shape {list(tensors[name].shape)} and the model's has "
                f"{list(weight.shape)}: {_ADVICE}"
            )
        if tensors[name].dtype != np.float32:
            raise LoraMismatch(
                f"tensor {name!r} of the adapter is {tensors[name].dtype} and must be float32: {_ADVICE}"
            )
    with torch.no_grad():
        for name, weight in weights.items():
            # A copy, because arrays over received bytes are read-only and torch warns of those.
            weight.copy_(torch.from_numpy(tensors[name].copy()))


def adapter_config(model: PeftModel, *, base_model: str) -> dict[str, JSON]:
    """Return the content of ``adapter_config.json``, the same for the same LoRA: what is not off, or PEFT's default.

    A folder with it and the tensors as ``adapter_model.safetensors`` is what ``PeftModel.from_pretrained`` loads.

    Args:
        model: with LoRA.
        base_model: what to name as the base: a hub id, or a path that means something to the reader.
    """
    fields = model.peft_config["default"].to_dict() | {"base_model_name_or_path": base_model, "inference_mode": True}
    said = {name: fields[name] for name in AdapterConfig.model_fields}
    # Through JSON and back: what cannot be written fails here and not in the caller's hands.
    return cast("dict[str, JSON]", json.loads(json.dumps(said, default=_plain, sort_keys=True)))


_ADVICE = "use the base model and the LoRA configuration of the run's manifest"


def _weights(model: PeftModel) -> dict[str, torch.Tensor]:
    """The LoRA weights themselves (not copies), by PEFT's names, sorted."""
    # Without False PEFT looks at the hub whether an embedding was resized.
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: state[name] for name in sorted(state)}


def _plain(value: object) -> list[str]:
    """Sets have no order of their own: give them one."""
    if isinstance(value, set | frozenset):
        return sorted(str(item) for item in value)
    raise TypeError(f"{type(value).__name__} has no place in adapter_config.json")
