"""An agent's local training (Eq. 1, Alg. 1 client loop; the design's round step 2), and the optimiser step it shares.

One plain function: fresh optimiser, constant learning rate, cross-entropy on the answer tokens. It does not read data,
move adapters or report to anyone but ``on_step``.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel

from shared.errors import DataEmpty, LossNotFinite
from shared.ml.encoding import Encoded, batches, collate
from shared.ml.losses import answer_labels, answer_log_probs, cross_entropy
from shared.ml.seeding import derive_seed, seeded
from shared.protocol.terms import OptimiserTerms


@dataclass(frozen=True)
class TrainReport:
    """What local training did: optimiser steps, and losses in nats per answer token (0.0 if there was no step).

    mean_loss: over the steps, each counting alike.
    """

    steps: int
    first_loss: float
    last_loss: float
    mean_loss: float


def train_local(
    model: PeftModel,
    examples: Sequence[Encoded],
    *,
    epochs: int,
    batch_size: int,
    optimiser: OptimiserTerms,
    seed: int,
    vocab_size: int,
    on_step: Callable[[int, int, float], None],
) -> TrainReport:
    """Train the model's LoRA weights on ``examples``, in place, and leave it in eval mode.

    Order of the data and dropout depend on ``seed`` alone; the caller's random state is as before.

    Args:
        model: with LoRA; only weights that require a gradient change.
        examples: with their right answers.
        epochs: E of Alg. 1.
        batch_size: examples per step, of like length (``encoding.batches``); one of an epoch may have fewer.
        optimiser: of the LoRA weights.
        seed: any integer.
        vocab_size: the tokenizer's length.
        on_step: called after each step with its number from 1, the number of all steps, and its loss.

    Raises:
        DataEmpty: there is no example.
        LossNotFinite: a loss or gradient is NaN or infinite; the weights are those before that step.
    """
    total = epochs * steps_per_epoch(len(examples), batch_size)
    device = next(model.parameters()).device
    step_weights = optimiser_step(model, optimiser)
    losses: list[float] = []
    model.train()
    try:
        with seeded(seed, device=device):
            for epoch in range(epochs):
                for chosen in batches(examples, batch_size=batch_size, seed=derive_seed(seed, epoch)):
                    batch = collate(chosen, device)
                    log_NV = answer_log_probs(model, batch, vocab_size=vocab_size)
                    loss = cross_entropy(log_NV, answer_labels(batch))
                    what = f"step {len(losses) + 1} of {total}"
                    losses.append(finite(loss, f"the loss of {what}"))
                    loss.backward()  # type: ignore[no-untyped-call]
                    step_weights(what)
                    on_step(len(losses), total, losses[-1])
    finally:
        model.eval()
    if not losses:
        return TrainReport(steps=0, first_loss=0.0, last_loss=0.0, mean_loss=0.0)
    return TrainReport(len(losses), losses[0], losses[-1], math.fsum(losses) / len(losses))


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Return how many optimiser steps one pass over the examples takes.

    Raises:
        DataEmpty: there is no example.
    """
    if examples == 0:
        raise DataEmpty("there is no example to train on: check the data file and how it was split")
    return math.ceil(examples / batch_size)


def optimiser_step(model: PeftModel, optimiser: OptimiserTerms) -> Callable[[str], None]:
    """Return a function that clips the gradients of the model's LoRA weights, steps once, and clears them.

    Its optimiser state begins empty and ends with it: that is the fresh start of each round. The function takes what to
    call the step in an error, and raises LossNotFinite, before it changes anything, if the gradient is not finite.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    adamw = torch.optim.AdamW(
        weights,
        lr=optimiser.learning_rate,
        betas=(optimiser.beta1, optimiser.beta2),
        weight_decay=optimiser.weight_decay,
        fused=True,  # a third of the time on a CPU, where there are hundreds of small weights
    )
    adamw.zero_grad()

    def step(what: str) -> None:
        norm = torch.nn.utils.clip_grad_norm_(weights, optimiser.clip_norm)
        finite(norm, f"the norm of the gradient of {what}")
        adamw.step()
        adamw.zero_grad()

    return step


def finite(value: torch.Tensor, what: str) -> float:
    """Return a scalar tensor as a number.

    Raises:
        LossNotFinite: it is NaN or infinite; ``what`` names the value and its step.
    """
    number = float(value.detach())
    if not math.isfinite(number):
        raise LossNotFinite(f"{what} is {number}: lower the learning rate, or look for damaged data or weights")
    return number
