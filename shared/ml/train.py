"""An agent's local training (Eq. 1, Alg. 1 client loop; the design's round step 2).

One plain function: fresh optimiser, constant learning rate, cross-entropy on the answer tokens. It does not read data,
move adapters or report to anyone but ``on_step``.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from peft import PeftModel

from shared.errors import DataEmpty
from shared.ml.encoding import Encoded, batches, collate
from shared.ml.losses import answer_labels, answer_log_probs, cross_entropy
from shared.ml.micro_batches import MicroBatches
from shared.ml.optimiser import LoraOptimiser, finite
from shared.ml.process_group import ALONE
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
        batch_size: examples per step, of like length (``encoding.batches``); one of an epoch may have fewer. Where
            memory does not suffice for so many at once, the step's gradient is added up in pieces.
        optimiser: of the LoRA weights.
        seed: any integer.
        vocab_size: the tokenizer's length.
        on_step: called after each step with its number from 1, the number of all steps, and its loss.

    Raises:
        DataEmpty: there is no example.
        LossNotFinite: a loss or gradient is NaN or infinite; the weights are those before that step.
        MemoryTooSmall: memory runs out with one example at once.
    """
    total = epochs * steps_per_epoch(len(examples), batch_size)
    device = next(model.parameters()).device
    adamw = LoraOptimiser(model, optimiser)
    micro_batches = MicroBatches(batch_size, group=ALONE, devices=[device])

    def add_gradient(piece: Sequence[Encoded], share: float) -> tuple[float]:
        batch = collate(piece, device)
        log_NV = answer_log_probs(model, batch, vocab_size=vocab_size)
        loss = cross_entropy(log_NV, answer_labels(batch))
        (share * loss).backward()  # type: ignore[no-untyped-call]
        return (loss.item(),)

    losses: list[float] = []
    model.train()
    try:
        with seeded(seed, device=device):
            for epoch in range(epochs):
                for chosen in batches(examples, batch_size=batch_size, seed=derive_seed(seed, epoch)):
                    what = f"step {len(losses) + 1} of {total}"
                    (loss,) = micro_batches.gradient(chosen, add_gradient, discard=adamw.discard)
                    losses.append(finite(loss, f"the loss of {what}"))
                    adamw.step(what)
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
