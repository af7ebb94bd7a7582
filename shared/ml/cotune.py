"""The coordinator's co-tuning of both models (Eq. 4 to 6, Alg. 1 server loop; the design's round step 4).

One plain function. The two models may be on different devices and have heads of different widths. Without passes it
changes nothing, which is FedAvg; with lambda = 0 no divergence is computed: both controls run through this same engine.

Legend: f the LLM and g the SLM (the paper's letters), N answer tokens of a batch, V entries of the tokenizer.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import fsum

import torch
from peft import PeftModel

from shared.ml.encoding import Batch, Encoded, batches, collate
from shared.ml.losses import answer_labels, answer_log_probs, cross_entropy, distillation, where_peer_is_better
from shared.ml.seeding import derive_seed, seeded
from shared.ml.train import finite, optimiser_step, steps_per_epoch
from shared.protocol.terms import CotuningTerms, OptimiserTerms


@dataclass(frozen=True)
class CotuneReport:
    """What co-tuning did: optimiser steps of each model, and means over these steps in nats per answer token.

    The losses are the cross-entropies alone, so that they compare between settings of lambda; the distillations are the
    divergences before lambda, 0.0 where none was computed. Everything is 0.0 if there was no step.
    """

    steps: int
    llm_loss: float
    slm_loss: float
    llm_distillation: float
    slm_distillation: float


def cotune(
    llm: PeftModel,
    slm: PeftModel,
    examples: Sequence[Encoded],
    *,
    terms: CotuningTerms,
    seed: int,
    vocab_size: int,
    on_step: Callable[[int, int, float], None],
) -> CotuneReport:
    """Tune the LoRA weights of both models on the auxiliary data, in place, and leave both in eval mode.

    Order of the data and dropout depend on ``seed`` alone; the caller's random state is as before.

    Args:
        llm: f of the paper, with LoRA omega.
        slm: g of the paper, with LoRA theta.
        examples: D_a, with their right answers.
        terms: see there; the sequential schedule lets the LLM learn from the SLM that was just updated.
        seed: any integer.
        vocab_size: length of the tokenizer that both share; both heads are cut to it.
        on_step: called after each step with its number from 1, the number of all steps, and its loss L2 (Eq. 6).

    Raises:
        DataEmpty: there is no example, and at least one pass.
        LossNotFinite: a loss or gradient is NaN or infinite.
    """
    if terms.passes == 0:
        llm.eval()
        slm.eval()
        return CotuneReport(steps=0, llm_loss=0.0, slm_loss=0.0, llm_distillation=0.0, slm_distillation=0.0)
    total = terms.passes * steps_per_epoch(len(examples), terms.batch_size)
    f = _Learner(llm, "LLM", terms.llm_optimiser, vocab_size)
    g = _Learner(slm, "SLM", terms.slm_optimiser, vocab_size)
    take_step = {"simultaneous": _simultaneous, "sequential": _sequential}[terms.schedule]
    steps = 0
    try:
        llm.train()
        slm.train()
        with ExitStack() as stack:
            for device in {f.device, g.device}:
                stack.enter_context(seeded(seed, device=device))
            for one_pass in range(terms.passes):
                order = derive_seed(seed, one_pass)
                for chosen in batches(examples, batch_size=terms.batch_size, seed=order):
                    steps += 1
                    on_step(steps, total, take_step(f, g, chosen, terms, f"step {steps} of {total}"))
    finally:
        llm.eval()
        slm.eval()
    return CotuneReport(
        steps=steps,
        llm_loss=fsum(f.losses) / steps,
        slm_loss=fsum(g.losses) / steps,
        llm_distillation=fsum(f.distillations) / steps,
        slm_distillation=fsum(g.distillations) / steps,
    )


@dataclass
class _Learner:
    """One of the two models, its optimiser of this round, and what its steps measured."""

    model: PeftModel
    name: str
    optimiser: OptimiserTerms
    vocab_size: int
    losses: list[float] = field(default_factory=list)
    distillations: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.device: torch.device = next(self.model.parameters()).device
        self.step_weights = optimiser_step(self.model, self.optimiser)

    def log_probs(self, batch: Batch) -> torch.Tensor:
        return answer_log_probs(self.model, batch, vocab_size=self.vocab_size)

    def backward(
        self, own_NV: torch.Tensor, peer_NV: torch.Tensor, labels_N: torch.Tensor, terms: CotuningTerms, what: str
    ) -> float:
        """Make the gradient of L = CE + lambda KL (Eq. 6), which flows into this model alone; return L."""
        loss = cross_entropy(own_NV, labels_N)
        task = finite(loss, f"the cross-entropy of {what} of the {self.name}")
        divergence = 0.0
        if terms.distillation_weight:
            selective = terms.distils == "where_peer_is_better"
            where_N = where_peer_is_better(own_NV, peer_NV, labels_N) if selective else None
            distilled = distillation(own_NV, peer_NV, terms.direction, where_N=where_N)
            divergence = finite(distilled, f"the distillation of {what} of the {self.name}")
            loss = loss + terms.distillation_weight * distilled
        loss.backward()  # type: ignore[no-untyped-call]
        self.losses.append(task)
        self.distillations.append(divergence)
        return task + terms.distillation_weight * divergence


def _simultaneous(f: _Learner, g: _Learner, chosen: Sequence[Encoded], terms: CotuningTerms, what: str) -> float:
    """Both updates from the values before the step (Alg. 1): one forward pass of each model; return L2."""
    batch_f, batch_g = _batches_for(f, g, chosen)
    f_NV, g_NV = f.log_probs(batch_f), g.log_probs(batch_g)
    loss_f = f.backward(f_NV, g_NV, answer_labels(batch_f), terms, what)
    loss_g = g.backward(g_NV, f_NV, answer_labels(batch_g), terms, what)
    f.step_weights(f"{what} of the LLM")
    g.step_weights(f"{what} of the SLM")
    return loss_f + loss_g


def _sequential(f: _Learner, g: _Learner, chosen: Sequence[Encoded], terms: CotuningTerms, what: str) -> float:
    """The SLM's update first, then the LLM's, whose peer is the updated SLM; return L2."""
    batch_f, batch_g = _batches_for(f, g, chosen)
    f_NV, g_NV = f.log_probs(batch_f), g.log_probs(batch_g)
    loss_g = g.backward(g_NV, f_NV, answer_labels(batch_g), terms, what)
    g.step_weights(f"{what} of the SLM")
    if terms.distillation_weight:
        with torch.no_grad():
            g_NV = g.log_probs(batch_g)
    loss_f = f.backward(f_NV, g_NV, answer_labels(batch_f), terms, what)
    f.step_weights(f"{what} of the LLM")
    return loss_f + loss_g


def _batches_for(f: _Learner, g: _Learner, chosen: Sequence[Encoded]) -> tuple[Batch, Batch]:
    """The same batch where each model is."""
    batch_f = collate(chosen, f.device)
    return batch_f, batch_f if g.device == f.device else collate(chosen, g.device)
