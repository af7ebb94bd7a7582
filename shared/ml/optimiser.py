"""The optimiser of a model's LoRA weights: fresh each round, with clipped gradients, and a state that can be kept."""

import math
from collections.abc import Mapping

import torch
from peft import PeftModel

from shared.errors import LossNotFinite
from shared.ml.process_group import ALONE, ProcessGroup
from shared.protocol.terms import OptimiserTerms

_MOMENTS = ("exp_avg", "exp_avg_sq")


class LoraOptimiser:
    """AdamW over the weights of a model that require a gradient; its state begins empty."""

    def __init__(self, model: PeftModel, terms: OptimiserTerms) -> None:
        self._weights = [weight for weight in model.parameters() if weight.requires_grad]
        self._clip_norm = terms.clip_norm
        self._adamw = torch.optim.AdamW(
            self._weights,
            lr=terms.learning_rate,
            betas=(terms.beta1, terms.beta2),
            weight_decay=terms.weight_decay,
            fused=True,  # a third of the time on a CPU, where there are hundreds of small weights
        )
        self.discard()

    def discard(self) -> None:
        """Forget the gradients."""
        self._adamw.zero_grad()

    def step(self, what: str, *, group: ProcessGroup = ALONE) -> None:
        """Add up the gradients of all processes, clip them, step once, and forget them.

        Raises:
            LossNotFinite: the gradient is not finite; nothing has changed, and ``what`` names the step.
        """
        group.add_up([weight.grad for weight in self._weights if weight.grad is not None])
        norm = torch.nn.utils.clip_grad_norm_(self._weights, self._clip_norm)
        finite(norm.item(), f"the norm of the gradient of {what}")
        self._adamw.step()
        self.discard()

    def state(self) -> dict[str, torch.Tensor]:
        """Return the weights and AdamW's moments of them as they are, by names; zeros before the first step."""
        moments = self._adamw.state_dict()["state"]
        tensors = {}
        for number, weight in enumerate(self._weights):
            tensors[f"weight.{number}"] = weight.detach()
            for moment in _MOMENTS:
                found = moments.get(number, {}).get(moment)
                tensors[f"{moment}.{number}"] = torch.zeros_like(weight) if found is None else found
        return tensors

    def restore(self, tensors: Mapping[str, torch.Tensor], *, steps: int) -> None:
        """Put back a state after so many steps; names and shapes are those of ``state``."""
        with torch.no_grad():
            for number, weight in enumerate(self._weights):
                weight.copy_(tensors[f"weight.{number}"])
        moments = {
            number: {"step": torch.tensor(float(steps))} | {name: tensors[f"{name}.{number}"] for name in _MOMENTS}
            for number in range(len(self._weights))
        }
        self._adamw.load_state_dict({"state": moments, "param_groups": self._adamw.state_dict()["param_groups"]})
        self.discard()


def finite(number: float, what: str) -> float:
    """Return a number.

    Raises:
        LossNotFinite: it is NaN or infinite; ``what`` names it and its step.
    """
    if not math.isfinite(number):
        raise LossNotFinite(f"{what} is {number}: lower the learning rate, or look for damaged data or weights")
    return number
