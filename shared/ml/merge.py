"""A base model and an adapter as one Hugging Face model, which anything loads that loads the base model."""

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.numpy import load_file
from transformers.utils import logging as transformers_log

from shared.adapter_folder import CONFIG, WEIGHTS, require_short_header
from shared.errors import LoraTargetMissing, ModelUnreadable
from shared.ml.adapters import load_adapter
from shared.ml.library_errors import told_as
from shared.ml.models import load_base, load_tokenizer


def merge(base: str, adapter: Path, into: Path, *, show_progress: bool) -> None:
    """Write the model at ``base`` with the PEFT directory ``adapter`` added to its weights, and its tokenizer.

    The weights are float32 whatever those of ``base`` are: rounding the sum would lose a part of what was trained.

    Raises:
        ModelUnreadable: the base model or the adapter cannot be loaded.
        LoraTargetMissing: the adapter is for modules that the base model does not have.
        LoraMismatch: the adapter's tensors are not those that its configuration gives with this base model.
    """
    if not show_progress:
        transformers_log.disable_progress_bar()
    with told_as(ModelUnreadable, f"{adapter} is no PEFT directory: it needs {CONFIG} and {WEIGHTS}"):
        config = LoraConfig.from_pretrained(str(adapter))
        require_short_header(adapter / WEIGHTS)
        tensors = load_file(adapter / WEIGHTS)
    _require_plain(config, adapter / CONFIG)
    tokenizer = load_tokenizer(base)
    model = load_base(base, dtype="float32", device=torch.device("cpu"))
    config.base_model_name_or_path = model.name_or_path  # PEFT warns of another: an adapter is named by its digest here
    with told_as(
        LoraTargetMissing,
        f"the adapter in {adapter} is for modules that {base!r} does not have: name the base model that it was made "
        "for",
    ):
        tuned = get_peft_model(model, config)
    load_adapter(tuned, tensors)
    tuned.merge_and_unload().save_pretrained(into)
    tokenizer.save_pretrained(into)


def _require_plain(config: LoraConfig, file: Path) -> None:
    """Raise ModelUnreadable if an adapter wants more of its base model than to be added to it.

    Such settings import modules, read other files, or repeat layers as often as they like.
    """
    odd = [name for name in ("layer_replication", "megatron_config") if getattr(config, name)]
    odd += [] if isinstance(config.init_lora_weights, bool) else ["init_lora_weights"]
    if odd:
        raise ModelUnreadable(f"{file} sets {' and '.join(odd)}, which the merge does not follow: merge it with PEFT")
