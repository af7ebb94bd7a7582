"""Base models, tokenizers and LoRA, built from flat arguments.

Knows how weights are held and which of them train. Knows nothing of data, losses, settings or the wire.
Weights are read from safetensors only, and code that came with a model is never run.
"""

import importlib.util
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)
from transformers.pytorch_utils import Conv1D

from shared.devices import DtypeName
from shared.errors import ConfigurationError, ContextTooShort, LoraTargetMissing, ModelUnreadable
from shared.ml.checkpoint import base_config, context_length, stored_tensors, tokenizer_files
from shared.ml.hub import model_directory
from shared.ml.library_errors import told_as
from shared.ml.process_group import ALONE, ProcessGroup
from shared.ml.seeding import seeded
from shared.ml.sharding import shard
from shared.protocol.lora import VISION
from shared.protocol.terms import LoraTerms

# The attention projections of each family: with rank 8 they give the parameter counts of the paper's Table 2.
_QKVO = ("q_proj", "k_proj", "v_proj", "o_proj")
_TARGETS: dict[str, tuple[str, ...]] = {
    "gpt2": ("c_attn",),
    "opt": ("q_proj", "k_proj", "v_proj", "out_proj"),  # PEFT would pass over an "o_proj" here without a word
    "llama": _QKVO,
    "mistral": _QKVO,
    "qwen2": _QKVO,
    "qwen3": _QKVO,
    "gemma": _QKVO,
    "gemma2": _QKVO,
    "gemma3": _QKVO,
    "gemma3_text": _QKVO,
}

# What old checkpoints hold beside their weights, and models now make themselves.
_NO_WEIGHTS = (".masked_bias", ".inv_freq")

_CAUSAL = frozenset(str(name) for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())


def base_directory(path: str | Path) -> Path:
    """Return the folder of the model at ``path``, which holds a causal language model by what it says of itself.

    Raises:
        ModelUnreadable: there is none, or it holds something else.
    """
    directory = model_directory(path)
    _require_causal(base_config(directory), name=str(path))
    return directory


def read_configuration(path: str | Path) -> PreTrainedConfig:
    """Return transformers' configuration of the model at ``path``, which says what its ``config.json`` leaves out.

    Raises:
        ModelUnreadable: there is none, or transformers cannot use it.
    """
    directory = base_directory(path)
    with _understood(path):
        return AutoConfig.from_pretrained(directory, trust_remote_code=False)


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer of the model at ``path``; it need not have a pad token.

    Raises:
        ModelUnreadable: there is no tokenizer, or it cannot give the character span of a token.
    """
    directory = base_directory(path)
    read_configuration(path)  # of which a tokenizer is made as well: what is wrong with it is not the tokenizer's fault
    names = [file.name for file in tokenizer_files(directory)]
    advice = "put its tokenizer.json there"
    if "tokenizer.model" in names and "tokenizer.json" not in names:
        advice = (
            "its tokenizer.model alone is not read: where sentencepiece is installed, load it with transformers' "
            "AutoTokenizer, and save_pretrained writes a tokenizer.json"
        )
    with told_as(ModelUnreadable, f"no tokenizer can be loaded from {str(path)!r}: {advice}"):
        tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
    if not tokenizer.is_fast:
        raise ModelUnreadable(
            f"the tokenizer of {str(path)!r} cannot tell which characters a token stands for, and the answer's tokens "
            "are found by that: convert it to a tokenizer.json"
        )
    return tokenizer


def load_base(path: str | Path, *, dtype: DtypeName, device: torch.device) -> PreTrainedModel:
    """Return the causal language model at ``path``, frozen and in eval mode.

    Args:
        path: a folder in Hugging Face format, or a hub id.
        dtype: of the frozen weights; with nf4 those of the linear modules have four bits (QLoRA, arXiv 2305.14314),
            and the others are bfloat16. LoRA weights are float32 whatever this is.
        device: where the weights go.

    Raises:
        ModelUnreadable: configuration or weights are missing, damaged, or not those of a causal language model.
    """
    computing = torch.float32 if dtype == "float32" else torch.bfloat16
    directory = base_directory(path)
    stored_tensors(directory)  # transformers' own messages do not say which file is missing or cut short
    with told_as(
        ModelUnreadable,
        f"no causal language model can be loaded from {str(path)!r}: it needs config.json and weights as safetensors",
    ):
        model, report = AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=computing,
            quantization_config=_four_bits(computing) if dtype == "nf4" else None,
            device_map={"": device},  # straight to the device: this machine may have less memory than its GPU
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    # transformers fills what a checkpoint lacks with random numbers, passes over what it has beside, and goes on.
    if absent := sorted(report["missing_keys"]):
        raise ModelUnreadable(
            f"the weights at {str(path)!r} lack {len(absent)} tensor(s) of the model, the first is {absent[0]!r}: "
            "fetch the model again"
        )
    if foreign := sorted(name for name in report["unexpected_keys"] if not name.endswith(_NO_WEIGHTS)):
        raise ModelUnreadable(
            f"the weights at {str(path)!r} have {len(foreign)} tensor(s) beside those of the model, the first is "
            f"{foreign[0]!r}: they are quantised, or not those of its config.json: name the unquantised model, or "
            "fetch it again"
        )
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # On such processors bitsandbytes would pack the weights anew when they first evaluate, for a kernel without
            # a backward pass: what is trained after that gets wrong gradients, with a warning at most.
            module.support_avx512bf16_for_cpu = False
    model.requires_grad_(requires_grad=False)
    model.eval()
    return model


def without_weights(path: str | Path) -> PreTrainedModel:
    """Return the model at ``path`` as torch's meta device holds it, which knows shapes only; frozen.

    Raises:
        ModelUnreadable: as ``read_configuration``.
    """
    config = read_configuration(path)
    with _understood(path), torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    model.requires_grad_(requires_grad=False)
    return model


def _understood(path: str | Path) -> AbstractContextManager[None]:
    return told_as(
        ModelUnreadable,
        f"the config.json of {str(path)!r} is not one of a causal language model that this release's transformers "
        "knows: choose another model, or fetch it again",
    )


def _four_bits(dtype: torch.dtype) -> BitsAndBytesConfig:
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def load_with_lora(
    path: str | Path,
    *,
    lora: LoraTerms,
    seed: int,
    max_tokens: int,
    dtype: DtypeName,
    device: torch.device,
    gradient_checkpointing: bool,
    group: ProcessGroup = ALONE,
) -> PeftModel:
    """Return the model at ``path`` as a run tunes it: frozen, with LoRA that changes nothing yet.

    Args:
        path: a folder in Hugging Face format, or a hub id.
        lora: the run's, for this model.
        seed: of the A matrices.
        max_tokens: of the run's longest text.
        dtype: as in ``load_base``.
        device: as in ``load_base``.
        gradient_checkpointing: compute activations again for the backward pass.
        group: where it is sharded, each of its processes holds a part of the base model.

    Raises:
        ModelUnreadable, LoraTargetMissing, ContextTooShort: the model cannot be tuned so.
    """
    base = load_base(path, dtype=dtype, device=torch.device("cpu") if group.sharded else device)
    require_context(base.config.to_dict(), name=str(path), max_tokens=max_tokens)
    model = add_lora(base, rank=lora.rank, alpha=lora.alpha, dropout=lora.dropout, targets=lora.targets, seed=seed)
    if gradient_checkpointing:
        recompute_activations(model)
    if group.sharded:
        shard(model, group=group, device=device)
    return model


def _require_causal(config: Mapping[str, Any], *, name: str) -> None:
    """Check that a model's ``config.json`` is that of a causal language model, where it says what it is.

    Raises:
        ModelUnreadable: it is not. Transformers would load a BERT, say, and let each token see those that follow.
    """
    named, family = config.get("architectures") or [], str(config.get("model_type"))
    architectures = [str(one) for one in named] if isinstance(named, list) else [str(named)]
    sees_all = family in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not config.get("is_decoder")
    if sees_all or (architectures and not _CAUSAL.intersection(architectures)):
        raise ModelUnreadable(
            f"{name!r} holds a {(architectures or [family])[0]}, and that is no causal language model, or none that "
            "this release's transformers knows: choose one that predicts the next token (...ForCausalLM)"
        )


def recompute_activations(model: PeftModel) -> None:
    """Keep only each layer's input for the backward pass and compute the rest again there, in far less memory.

    It is slower; the gradients are the same, dropout included.
    """
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})


def require_context(config: Mapping[str, Any], *, name: str, max_tokens: int) -> None:
    """Check that texts of ``max_tokens`` fit into what a model takes in, where its configuration says how much.

    Raises:
        ContextTooShort: they do not. GPT-2 would end in an index error, and others go on and answer badly.
    """
    context = context_length(config)
    if context is not None and max_tokens > context:
        raise ContextTooShort(
            f"the run's texts may have {max_tokens} tokens, and the base model {name} takes {context}: "
            "lower the run's max_tokens, or choose a base model with a longer context"
        )


def lora_targets(model_type: str) -> tuple[str, ...]:
    """Return the names of the modules that get LoRA in this family (``config.model_type``).

    Raises:
        LoraTargetMissing: the family is not in the table.
    """
    if model_type not in _TARGETS:
        raise LoraTargetMissing(
            f"no LoRA targets are known for the model family {model_type!r} (known: {', '.join(sorted(_TARGETS))}): "
            "name the target modules in the run's LoRA configuration"
        )
    return _TARGETS[model_type]


def add_lora(
    base: PreTrainedModel, *, rank: int, alpha: int, dropout: float, targets: Sequence[str] | None, seed: int
) -> PeftModel:
    """Wrap ``base`` with LoRA of the given rank; afterwards only the LoRA weights train.

    The weights are float32, and a function of ``seed`` and the shapes alone: the B matrices are zero, the A matrices
    are drawn on the CPU whatever the device of ``base``. The caller's random state is as before.

    Args:
        base: a frozen model; it is changed in place. Meta tensors will do.
        rank: rows of A, columns of B.
        alpha: as PEFT means it: the update is B A times alpha / rank.
        dropout: probability, on the input of A, while training.
        targets: last parts of names of the language model's modules; None takes those of the model's family.
        seed: of the A matrices.

    Raises:
        LoraTargetMissing: a target names no linear module, or PEFT has no LoRA for it; no target is passed over.
    """
    names = tuple(targets) if targets is not None else lora_targets(base.config.model_type)
    transposed = _require_targets(base, names)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=list(names),
        # Only where there is something to exclude: else PEFT warns.
        exclude_modules=VISION if any(re.fullmatch(VISION, name) for name, _ in base.named_modules()) else None,
        bias="none",
        fan_in_fan_out=transposed,
    )
    cannot = (
        f"LoRA cannot go on {', '.join(names)} of {type(base).__name__}: name other target modules in the run's LoRA"
    )
    with told_as(LoraTargetMissing, cannot), seeded(seed, device=torch.device("cpu")):
        return get_peft_model(base, config)


def _require_targets(base: PreTrainedModel, targets: Iterable[str]) -> bool:
    """Check that each target names linear modules; return whether these keep their weights transposed (GPT-2)."""
    found: set[bool] = set()
    for target in targets:
        modules = [
            module
            for name, module in base.named_modules()
            if f".{name}".endswith(f".{target}") and not re.fullmatch(VISION, name)
        ]
        if not modules:
            raise LoraTargetMissing(
                f"the LoRA target {target!r} names no module of {type(base).__name__}: "
                "correct the target modules of the run's LoRA configuration"
            )
        for module in modules:
            if not isinstance(module, torch.nn.Linear | Conv1D):
                raise LoraTargetMissing(
                    f"the LoRA target {target!r} names a {type(module).__name__} of {type(base).__name__}, "
                    "and LoRA goes on linear modules only: correct the target modules of the run's LoRA configuration"
                )
            found.add(isinstance(module, Conv1D))
    if not found:
        raise LoraTargetMissing("the list of LoRA targets is empty: name at least one module")
    if len(found) > 1:
        raise LoraTargetMissing(
            "the LoRA targets mix Linear and Conv1D modules, and PEFT has one setting for both: choose one kind"
        )
    return found.pop()


def pick_device(name: str) -> torch.device:
    """Return the device called ``name`` (cpu, cuda, cuda:1); "auto" is CUDA where this machine has it, else the CPU.

    Raises:
        ConfigurationError: the name is no device that this project runs on, or this machine does not have it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigurationError(f"{name!r} is no device: set it to auto, cpu, cuda or cuda:N") from error
    # Others (Apple's mps, say) have their own random state, which `seeding` does not know.
    if device.type not in {"cpu", "cuda"}:
        raise ConfigurationError(f"training on {name!r} is not supported: set the device to auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigurationError(
            f"this machine has {torch.cuda.device_count()} CUDA device(s), and {name!r} is none of them: "
            "set the device to auto, or check the driver and the PyTorch build"
        )
    return device


def require_dtype(dtype: DtypeName) -> None:
    """Check that this machine can hold a model so, before one is asked for.

    Raises:
        ConfigurationError: it cannot.
    """
    if dtype == "nf4" and importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigurationError(
            "dtype is nf4, and the package that holds a model in four bits is not installed: `pip install "
            "bitsandbytes` (into the image of a container: docs/models.md), or set dtype to bfloat16 or float32"
        )
