"""How much memory a model will take to tune, and whether this machine has it: said before anything is loaded.

An estimate from shapes alone, which was 0.84 to 1.6 times what was measured, and 0.92 to 1.11 times for a real model
(docs/adr/0010 has the reasons).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from shared.devices import DtypeName
from shared.errors import MemoryTooSmall, ModelUnreadable
from shared.ml.checkpoint import read_config
from shared.ml.encoding import Encoded, EncodedChoices
from shared.ml.evaluate import EVALUATION_BATCH
from shared.ml.free_memory import free_bytes
from shared.ml.hub import model_directory
from shared.ml.models import add_lora, require_causal
from shared.protocol.terms import LoraTerms, RunTerms

_GB = 1e9
_FLOAT32 = 4

# Of each LoRA weight, all float32: itself, its gradient, and AdamW's two moments.
_BYTES_A_LORA_WEIGHT = 4 * _FLOAT32

# NF4 with double quantisation: 4 bits a weight, 8 bits of scale for 64 of them, and 32 bits for 256 scales.
_BYTES_A_FOUR_BIT_WEIGHT = 0.5 + 1 / 64 + 4 / (64 * 256)

# What a layer keeps for the backward pass of each token. As wide as the model, and float32 whatever the base is,
# because norms and LoRA compute in it: inputs of both norms and of the four LoRA targets, dropout of these, q, k, v and
# the attention's output. As wide as the layer's widest module, in the base's own format: inside the feed-forward part.
_KEPT_OF_HIDDEN = 13
_KEPT_OF_WIDEST = 4

# Of a layer whose activations are computed again: its input, and the holes that the rest leaves between these in the
# C library's heap (docs/adr/0010).
_KEPT_OF_RECOMPUTED = 6

# Freed pieces that the allocator keeps because they do not fit what comes next, and what libraries make at their first
# step: both measured (docs/adr/0010).
_SLACK = 1.5
_FIRST_STEP = 100_000_000

# Copies of the answer's logits that live at once: the head's, as float32, log-softmax, and their gradients; in
# co-tuning also the peer's and the divergence.
TRAINING_LOGITS = 4
COTUNING_LOGITS = 8


@dataclass(frozen=True)
class Estimate:
    """Bytes by what they are for."""

    parts: Mapping[str, int]

    @property
    def total_bytes(self) -> int:
        """All of them."""
        return sum(self.parts.values())

    def __str__(self) -> str:
        return ", ".join(f"{size / _GB:.2f} GB {name}" for name, size in self.parts.items())


@dataclass(frozen=True)
class Load:
    """What goes through a model at once: sequences, the tokens of the longest, and all their answers' tokens."""

    rows: int
    tokens: int
    answer_tokens: int
    logits: int = TRAINING_LOGITS


def estimate(
    model: str | Path,
    *,
    dtype: DtypeName,
    lora: LoraTerms,
    training: Load,
    evaluation: Load | None = None,
    gradient_checkpointing: bool = False,
) -> Estimate:
    """Return what tuning a model will take, beside the process as it is before.

    Args:
        model: a folder in Hugging Face format, or a hub id.
        dtype: of the frozen base.
        lora: rank and targets.
        training: the largest step.
        evaluation: the largest batch without gradients, where the same process evaluates.
        gradient_checkpointing: whether activations are computed again for the backward pass.

    Raises:
        ModelUnreadable, LoraTargetMissing: the model is none that could be tuned.
    """
    base = _shapes(model)
    text = base.config.get_text_config()
    layers, hidden = int(text.num_hidden_layers), int(text.hidden_size)
    number = torch.float32.itemsize if dtype == "float32" else torch.bfloat16.itemsize
    linear = {id(module.weight): module for module in base.modules() if isinstance(module, torch.nn.Linear | Conv1D)}
    head: Any = base.get_output_embeddings()
    entries = int(head.weight.shape[0])
    widest = max(max(module.weight.shape) for module in linear.values() if module is not head)
    weights = 0.0
    for weight in base.parameters():
        four_bit = dtype == "nf4" and id(weight) in linear and linear[id(weight)] is not head
        weights += weight.numel() * (_BYTES_A_FOUR_BIT_WEIGHT if four_bit else number)
    with_lora = add_lora(base, rank=lora.rank, alpha=lora.alpha, dropout=lora.dropout, targets=lora.targets, seed=0)
    tuned = sum(weight.numel() for weight in with_lora.parameters() if weight.requires_grad)
    a_layer = _KEPT_OF_HIDDEN * hidden * _FLOAT32 + _KEPT_OF_WIDEST * widest * number
    kept = layers * _KEPT_OF_RECOMPUTED * hidden * number + a_layer if gradient_checkpointing else layers * a_layer
    activations: float = training.rows * training.tokens * kept
    logits = _logits(training, entries)
    if evaluation is not None:
        keys = int(getattr(text, "num_key_value_heads", text.num_attention_heads)) / int(text.num_attention_heads)
        cache = 2 * layers * hidden * keys * number
        activations = max(activations, evaluation.rows * evaluation.tokens * (cache + a_layer))
        logits = max(logits, _logits(evaluation, entries))
    return Estimate(
        {
            "base weights": round(weights),
            "LoRA weights, gradients and optimiser": tuned * _BYTES_A_LORA_WEIGHT,
            "activations": round(_SLACK * activations) + _FIRST_STEP,
            "logits": logits,
        }
    )


def estimate_pair(
    terms: RunTerms,
    auxiliary: Sequence[Encoded],
    validation: Sequence[EncodedChoices],
    *,
    dtype: DtypeName,
    gradient_checkpointing: bool,
) -> Estimate:
    """Return what a run's two models take at once, co-tuned on ``auxiliary`` and evaluated on ``validation``.

    Raises:
        ModelUnreadable, LoraTargetMissing: as ``estimate``.
    """
    training = largest_batch(auxiliary, terms.cotuning.batch_size, logits=COTUNING_LOGITS)
    evaluation = largest_batch([one for example in validation for one in example.choices], EVALUATION_BATCH)
    needed = {
        name: estimate(
            model,
            dtype=dtype,
            lora=lora,
            training=training,
            evaluation=evaluation,
            gradient_checkpointing=gradient_checkpointing,
        )
        for name, model, lora in (("LLM", terms.llm, terms.llm_lora), ("SLM", terms.slm, terms.slm_lora))
    }
    return together(**needed)


def largest_batch(encoded: Sequence[Encoded], batch_size: int, *, logits: int = TRAINING_LOGITS) -> Load:
    """Return a batch that is as large as any of ``encoded`` can become."""
    answers = sorted((len(one.token_ids) - one.answer_start for one in encoded), reverse=True)
    rows = min(batch_size, len(encoded))
    return Load(rows, max((len(one.token_ids) for one in encoded), default=0), sum(answers[:rows]), logits)


def together(**models: Estimate) -> Estimate:
    """Return what several models take that are in memory at once."""
    return Estimate({f"{model} {name}": size for model, one in models.items() for name, size in one.parts.items()})


def require_memory(needed: Estimate, device: torch.device) -> None:
    """Check that this machine has the memory that an estimate asks for.

    Raises:
        MemoryTooSmall: it has not; the message lists what the memory is for.
    """
    free = free_bytes(device)
    if needed.total_bytes > free:
        raise MemoryTooSmall(
            f"about {needed.total_bytes / _GB:.2f} GB of memory are needed on {device} and {free / _GB:.2f} GB are "
            f"free ({needed}): set dtype to bfloat16 or nf4, set gradient_checkpointing, lower the run's "
            "batch_size or max_tokens, choose a smaller model, or free memory"
        )


def _logits(load: Load, entries: int) -> int:
    return load.answer_tokens * entries * _FLOAT32 * load.logits


def _shapes(model: str | Path) -> PreTrainedModel:
    """The model without any weights: torch's meta device knows shapes only."""
    directory = model_directory(model)
    require_causal(read_config(directory), name=str(model))
    try:
        config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
        with torch.device("meta"):
            base = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (OSError, ValueError, TypeError, KeyError, ImportError) as error:
        raise ModelUnreadable(
            f"the config.json of {str(model)!r} is not one of a causal language model that this release's transformers "
            f"knows ({type(error).__name__}): choose another model"
        ) from error
    base.requires_grad_(requires_grad=False)
    return base
