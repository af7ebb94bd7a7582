"""How much memory a model will take to tune, and whether this machine has it: said before anything is loaded.

An estimate from shapes alone, which was 0.92 to 1.14 times what was measured with real models, and 0.75 to 1.4 times
with tiny ones (docs/adr/0010 has the reasons).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from shared.devices import DtypeName
from shared.errors import MemoryTooSmall, ModelUnreadable
from shared.ml.encoding import Encoded, EncodedChoices
from shared.ml.evaluate import EVALUATION_BATCH
from shared.ml.free_memory import free_bytes
from shared.ml.library_errors import told_as
from shared.ml.likelihood import has_tree, passes
from shared.ml.models import add_lora, without_weights
from shared.ml.process_group import ALONE, ProcessGroup, share_of
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

# Freed pieces that the allocator keeps because they do not fit what comes next: measured (docs/adr/0010).
_SLACK = 1.5

# What is as large as the answer's logits and lives at once in a step: log-probabilities, the loss's gradient by them,
# and by the logits. Co-tuning makes one loss at a time, and has at most five for two models: the log-probabilities of
# both, the peer's probabilities, and the gradients of both terms. In evaluation they are logits and log-probabilities.
_LOGITS_OF_A_STEP = 3
_LOGITS_OF_EVALUATION = 2


@dataclass(frozen=True)
class Estimate:
    """Bytes by what they are for."""

    parts: Mapping[str, int]

    @property
    def total_bytes(self) -> int:
        """All of them."""
        return sum(self.parts.values())

    def __add__(self, other: "Estimate") -> "Estimate":
        """Return what is in memory where both are."""
        return Estimate({**self.parts, **other.parts})

    def __str__(self) -> str:
        return ", ".join(f"{size / _GB:.2f} GB {name}" for name, size in self.parts.items())

    def of(self, model: str) -> "Estimate":
        """Return the same with the model's name before each part."""
        return Estimate({f"{model} {name}": size for name, size in self.parts.items()})


# What libraries make at their first step, whatever the model: measured too.
_FIRST_STEP = Estimate({"libraries": 100_000_000})


@dataclass(frozen=True)
class Load:
    """What goes through a model at once: sequences, the tokens of the longest, and all their answers' tokens.

    masked: whether there is a mask, with a number for each pair of tokens of a sequence.
    """

    rows: int
    tokens: int
    answer_tokens: int
    masked: bool = False


@dataclass(frozen=True)
class Shape:
    """What decides how much a base model with LoRA takes; bytes of a token but for ``held`` and ``entries``.

    held: weights, gradients and the optimiser, all the time.
    kept: what all layers keep for the backward pass.
    layer: what one layer makes.
    number: one of the base's own format.
    entries: of the head.
    """

    held: Estimate
    kept: float
    layer: float
    number: int
    entries: int

    def training(self, load: Load) -> Estimate:
        """Return what a step takes beside what is held."""
        return self._passing(load, self.kept, _LOGITS_OF_A_STEP)

    def evaluation(self, loads: Sequence[Load]) -> Estimate:
        """Return what the largest of these batches takes beside what is held; nothing is kept for a backward pass."""
        found = (self._passing(load, self.layer, _LOGITS_OF_EVALUATION, " of evaluation") for load in loads)
        return max(found, key=lambda one: one.total_bytes, default=Estimate({}))

    def _passing(self, load: Load, a_token: float, logits: int, when: str = "") -> Estimate:
        tokens = load.rows * load.tokens
        mask = tokens * load.tokens * self.number if load.masked else 0
        return Estimate(
            {
                f"activations{when}": round(_SLACK * tokens * a_token) + mask,
                f"logits{when}": load.answer_tokens * self.entries * _FLOAT32 * logits,
            }
        )


def estimate(
    model: str | Path,
    *,
    dtype: DtypeName,
    lora: LoraTerms,
    training: Load,
    evaluation: Sequence[Load] = (),
    gradient_checkpointing: bool = False,
) -> Estimate:
    """Return what training a model will take, or evaluating it if that is more, beside the process as it is before.

    Args:
        model: a folder in Hugging Face format, or a hub id.
        dtype: of the frozen base.
        lora: rank and targets.
        training: the largest step.
        evaluation: the batches in which it is evaluated.
        gradient_checkpointing: whether activations are computed again for the backward pass.

    Raises:
        ModelUnreadable, LoraTargetMissing: the model is none that could be tuned.
    """
    shape = shape_of(model, dtype=dtype, lora=lora, gradient_checkpointing=gradient_checkpointing)
    working = max(shape.training(training), shape.evaluation(evaluation), key=lambda one: one.total_bytes)
    return shape.held + working + _FIRST_STEP


def estimate_pair(
    terms: RunTerms,
    auxiliary: Sequence[Encoded],
    validation: Sequence[EncodedChoices],
    *,
    dtype: DtypeName,
    gradient_checkpointing: bool,
    device: torch.device,
    group: ProcessGroup = ALONE,
) -> Estimate:
    """Return what a run's two models take in each process, co-tuned on ``auxiliary`` and evaluated on ``validation``.

    Both are held and co-tuned at once, and evaluated one after the other: what takes most of that counts.

    Raises:
        ModelUnreadable, LoraTargetMissing: as ``estimate``.
    """
    llm, slm = (
        shape_of(model, dtype=dtype, lora=lora, gradient_checkpointing=gradient_checkpointing, group=group)
        for model, lora in ((terms.llm, terms.llm_lora), (terms.slm, terms.slm_lora))
    )
    step = largest_batch(auxiliary, share_of(terms.cotuning.batch_size, group))
    scored = evaluation_batches(validation, device)
    working = (
        llm.training(step).of("LLM") + slm.training(step).of("SLM"),
        llm.evaluation(scored).of("LLM"),
        slm.evaluation(scored).of("SLM"),
    )
    return llm.held.of("LLM") + slm.held.of("SLM") + max(working, key=lambda one: one.total_bytes) + _FIRST_STEP


def shape_of(
    model: str | Path,
    *,
    dtype: DtypeName,
    lora: LoraTerms,
    gradient_checkpointing: bool,
    group: ProcessGroup = ALONE,
) -> Shape:
    """Return what decides how much a model takes in each process of a group; its weights are not read.

    Raises:
        ModelUnreadable, LoraTargetMissing: as ``estimate``.
    """
    base = without_weights(model)
    number = torch.float32.itemsize if dtype == "float32" else torch.bfloat16.itemsize
    linear = {id(module.weight): module for module in base.modules() if isinstance(module, torch.nn.Linear | Conv1D)}
    with told_as(
        ModelUnreadable, f"what {str(model)!r} takes cannot be told from its config.json: choose another model"
    ):
        text = base.config.get_text_config()
        layers, hidden = int(text.num_hidden_layers), int(text.hidden_size)
        head: Any = base.get_output_embeddings()
        entries = int(head.weight.shape[0])
        widest = max(max(module.weight.shape) for module in linear.values() if module is not head)
    weights = 0.0
    for weight in base.parameters():
        four_bit = dtype == "nf4" and id(weight) in linear and linear[id(weight)] is not head
        weights += weight.numel() * (_BYTES_A_FOUR_BIT_WEIGHT if four_bit else number)
    if group.sharded:
        # A process holds its part of the layers, and at work all of what is outside of them.
        outside = {id(weight): weight for part in (base.get_input_embeddings(), head) for weight in part.parameters()}
        whole = number * sum(weight.numel() for weight in outside.values())
        weights = whole + (weights - whole) / group.size
    with_lora = add_lora(base, rank=lora.rank, alpha=lora.alpha, dropout=lora.dropout, targets=lora.targets, seed=0)
    tuned = sum(weight.numel() for weight in with_lora.parameters() if weight.requires_grad)
    layer = _KEPT_OF_HIDDEN * hidden * _FLOAT32 + _KEPT_OF_WIDEST * widest * number
    return Shape(
        held=Estimate(
            {
                "base weights": round(weights),
                "LoRA weights, gradients and optimiser": tuned * _BYTES_A_LORA_WEIGHT,
            }
        ),
        kept=layers * _KEPT_OF_RECOMPUTED * hidden * number + layer if gradient_checkpointing else layers * layer,
        layer=layer,
        number=number,
        entries=entries,
    )


def largest_batch(encoded: Sequence[Encoded], batch_size: int) -> Load:
    """Return a batch that is as large as any of ``encoded`` can become."""
    answers = sorted((len(one.token_ids) - one.answer_start for one in encoded), reverse=True)
    rows = min(batch_size, len(encoded))
    return Load(rows, max((len(one.token_ids) for one in encoded), default=0), sum(answers[:rows]))


def evaluation_batches(examples: Sequence[EncodedChoices], device: torch.device) -> list[Load]:
    """Return the passes in which a worker or an agent evaluates there, whether its model takes trees or not."""
    sequences = [example.choices for example in examples]
    return [
        Load(
            rows=len(rows),
            tokens=max(len(row.token_ids) for row in rows),
            answer_tokens=sum(len(row.heads) for row in rows),
            masked=has_tree(rows),
        )
        for longest_tree in (0, math.inf)
        for rows in passes(sequences, EVALUATION_BATCH, longest_tree=longest_tree, device=device.type)
    ]


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
