"""The least that training can cost, operations of matrix products and bytes of weights, and how near loops come to it.

With LoRA on frozen weights a step computes each product twice: forward, and for the gradient of its input. The weights'
own gradients are not wanted, and LoRA, norms, attention and losses are left out: they are small beside it.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel
from torch.utils.flop_counter import FlopCounterMode, flop_registry
from transformers import PreTrainedModel

_PASSES = 2
_LARGE = 2048
_TRIES = 5


@dataclass(frozen=True)
class Shape:
    """Weights that tokens are multiplied by: of all layers, and of the head; and the bytes of one of them."""

    body: int
    head: int
    bytes_a_weight: int

    def operations(self, tokens: int, head_tokens: int) -> int:
        """Of a step, an addition and a multiplication a weight: all tokens in the layers, some in the head."""
        return _PASSES * 2 * (self.body * tokens + self.head * head_tokens)

    def bytes_read(self, steps: int) -> int:
        """Of the weights, which are read once forward and once backward in each step."""
        return _PASSES * steps * (self.body + self.head) * self.bytes_a_weight


def shape_of(model: PreTrainedModel | PeftModel) -> Shape:
    """Return a model's without LoRA; embeddings are looked up and not multiplied, unless they are the head too."""
    head = model.get_output_embeddings().weight
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    frozen = [weight for weight in model.parameters() if not weight.requires_grad and weight.dim() > 1]
    body = sum(weight.numel() for weight in frozen if weight is not head and id(weight) not in embeddings)
    return Shape(body, head.numel(), head.element_size())


@dataclass(frozen=True)
class Machine:
    """What this machine reaches: operations a second of a large matrix product, bytes a second of a large sum."""

    operations: float
    bytes_read: float

    def least_seconds(self, operations: int, bytes_read: int) -> float:
        """Whichever of both takes longer."""
        return max(operations / self.operations, bytes_read / self.bytes_read)


def machine_of(device: torch.device, dtype: torch.dtype) -> Machine:
    """Measure it, the best of a few."""
    square = torch.ones(_LARGE, _LARGE, device=device, dtype=dtype)
    long = torch.ones(64, _LARGE, _LARGE // 2, device=device, dtype=dtype)  # more than any cache holds
    return Machine(
        operations=2 * _LARGE**3 / _best(lambda: square @ square, device),
        bytes_read=long.numel() * long.element_size() / _best(long.sum, device),
    )


@dataclass(frozen=True)
class Epoch:
    """What a loop has computed, and how long it took."""

    operations: int
    seconds: float


def operations_of(work: Callable[[], object]) -> int:
    """Do it, more slowly, and return the operations of its matrix products, those of LoRA and attention included."""
    counter = FlopCounterMode(display=False)
    aten = torch.ops.aten
    for uncounted, counted in (  # the same operations under other names, which the counter does not know
        (aten.addmm_, aten.addmm),
        (aten._scaled_dot_product_flash_attention_for_cpu, aten._scaled_dot_product_flash_attention),  # noqa: SLF001
        (
            aten._scaled_dot_product_flash_attention_for_cpu_backward,  # noqa: SLF001
            aten._scaled_dot_product_flash_attention_backward,  # noqa: SLF001
        ),
    ):
        counter.flop_registry[uncounted] = flop_registry[counted]
    with counter:
        work()
    return counter.get_total_flops()


def utilisation(
    machine: Machine, shapes: Sequence[Shape], sides: Mapping[str, Epoch], *, tokens: int, answers: int, steps: int
) -> Iterator[str]:
    """Yield the least that an epoch needs, and how near the loops come to it.

    Args:
        machine: where they ran.
        shapes: of the models, each of which takes all steps.
        sides: by name.
        tokens: from which others are predicted, without padding.
        answers: tokens that are predicted for a loss.
        steps: of the epoch.
    """
    needed = sum(shape.operations(tokens, answers) for shape in shapes)
    read = sum(shape.bytes_read(steps) for shape in shapes)
    yield (
        f"an epoch needs {needed / 1e12:.2f} T operations in matrix products and reads {read / 1e9:.0f} GB of weights; "
        f"at the {machine.operations / 1e9:.0f} G operations a second of a large product here, and "
        f"{machine.bytes_read / 1e9:.0f} GB a second, that is {machine.least_seconds(needed, read):.1f} seconds"
    )
    for name, epoch in sides.items():
        share, rate = (100 * of / machine.operations / epoch.seconds for of in (needed, epoch.operations))
        yield (
            f"  {name}: {share:.0f} % of these operations a second; with padding, LoRA, attention and what the head "
            f"does beside the answers it computes {epoch.operations / needed:.2f} times as many, at {rate:.0f} % of a "
            "large product's rate: smaller products, norms, losses and AdamW are the rest"
        )


def _best(work: Callable[[], object], device: torch.device) -> float:
    seconds = []
    for _ in range(_TRIES):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return min(seconds)
