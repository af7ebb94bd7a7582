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

from shared.ml.cotuning_checkpoint import CotuningCheckpoint
from shared.ml.encoding import Batch, Encoded, batches, collate
from shared.ml.losses import answer_labels, answer_log_probs, cross_entropy, distillation, where_peer_is_better
from shared.ml.micro_batches import MicroBatches
from shared.ml.optimiser import LoraOptimiser, finite
from shared.ml.process_group import ALONE, ProcessGroup
from shared.ml.seeding import derive_seed, random_state, restore_random_state, seeded
from shared.ml.train import steps_per_epoch
from shared.protocol.terms import CotuningTerms, OptimiserTerms


@dataclass(frozen=True)
class CotuneReport:
    """What co-tuning did: optimiser steps of each model, and means over these steps in nats per answer token.

    The losses are the cross-entropies alone, so that they compare between settings of lambda; the distillations are the
    divergences before lambda, 0.0 where none was computed. Everything is 0.0 if there was no step. ``micro_batch``
    is how many examples went through the models at once in the end, where memory did not suffice for a batch.
    """

    steps: int
    llm_loss: float
    slm_loss: float
    llm_distillation: float
    slm_distillation: float
    micro_batch: int | None = None


def cotune(
    llm: PeftModel,
    slm: PeftModel,
    examples: Sequence[Encoded],
    *,
    terms: CotuningTerms,
    seed: int,
    vocab_size: int,
    on_step: Callable[[int, int, float], None],
    group: ProcessGroup = ALONE,
    checkpoint: CotuningCheckpoint | None = None,
) -> CotuneReport:
    """Tune the LoRA weights of both models on the auxiliary data, in place, and leave both in eval mode.

    Order of the data and dropout depend on ``seed`` alone, dropout also on how many processes there are; the caller's
    random state is as before.

    Args:
        llm: f of the paper, with LoRA omega.
        slm: g of the paper, with LoRA theta.
        examples: D_a, with their right answers.
        terms: see there; the sequential schedule lets the LLM learn from the SLM that was just updated.
        seed: any integer.
        vocab_size: length of the tokenizer that both share; both heads are cut to it.
        on_step: called after each step with its number from 1, the number of all steps, and its loss L2 (Eq. 6).
        group: each of its processes computes a part of each batch, and ends with the same weights.
        checkpoint: what to go on from, if it was kept before, and to keep on the way.

    Raises:
        DataEmpty: there is no example, and at least one pass.
        LossNotFinite: a loss or gradient is NaN or infinite.
        MemoryTooSmall: memory runs out with one example at once.
    """
    if terms.passes == 0:
        llm.eval()
        slm.eval()
        return CotuneReport(steps=0, llm_loss=0.0, slm_loss=0.0, llm_distillation=0.0, slm_distillation=0.0)
    total = terms.passes * steps_per_epoch(len(examples), terms.batch_size)
    cotuning = _Cotuning(
        f=_Learner(llm, "LLM", terms.llm_optimiser, vocab_size),
        g=_Learner(slm, "SLM", terms.slm_optimiser, vocab_size),
        terms=terms,
        group=group,
    )
    own_seed = derive_seed(seed, group.rank, group.size) if group.rank else seed  # another dropout in each process
    steps = 0
    try:
        llm.train()
        slm.train()
        with ExitStack() as stack:
            for device in cotuning.devices:
                stack.enter_context(seeded(own_seed, device=device))
            made = cotuning.resume(checkpoint) if checkpoint else 0
            for one_pass in range(terms.passes):
                order = derive_seed(seed, one_pass)
                for chosen in batches(examples, batch_size=terms.batch_size, seed=order):
                    steps += 1
                    if steps <= made:
                        continue
                    loss = cotuning.step(chosen, f"step {steps} of {total}")
                    if checkpoint and checkpoint.is_due():
                        cotuning.keep(checkpoint, steps)
                    on_step(steps, total, loss)
    finally:
        llm.eval()
        slm.eval()
    means = {name: fsum(values) / steps for name, values in cotuning.measured.items()}
    return CotuneReport(steps=steps, **means, micro_batch=cotuning.micro_batches.micro_batch)


@dataclass
class _Learner:
    """One of the two models, its optimiser of this round, and what its steps measured."""

    model: PeftModel
    name: str
    terms: OptimiserTerms
    vocab_size: int
    losses: list[float] = field(default_factory=list)
    distillations: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.device: torch.device = next(self.model.parameters()).device
        self.optimiser = LoraOptimiser(self.model, self.terms)

    def log_probs(self, batch: Batch) -> torch.Tensor:
        return answer_log_probs(self.model, batch, vocab_size=self.vocab_size)

    def backward(
        self, own_NV: torch.Tensor, peer_NV: torch.Tensor, labels_N: torch.Tensor, terms: CotuningTerms, share: float
    ) -> tuple[float, float]:
        """Add a share of the gradient of L = CE + lambda KL (Eq. 6), which flows into this model alone; return both."""
        loss = cross_entropy(own_NV, labels_N)
        task, divergence = loss.item(), 0.0
        if terms.distillation_weight:
            selective = terms.distils == "where_peer_is_better"
            where_N = where_peer_is_better(own_NV, peer_NV, labels_N) if selective else None
            distilled = distillation(own_NV, peer_NV, terms.direction, where_N=where_N)
            divergence = distilled.item()
            loss = loss + terms.distillation_weight * distilled
        (share * loss).backward()  # type: ignore[no-untyped-call]
        return task, divergence

    def measured(self, step: Sequence[float], terms: CotuningTerms, what: str) -> float:
        """Write down what a step measured, as ``backward`` returned it, and return L."""
        task, divergence = step
        self.losses.append(finite(task, f"the cross-entropy of {what} of the {self.name}"))
        self.distillations.append(finite(divergence, f"the distillation of {what} of the {self.name}"))
        return task + terms.distillation_weight * divergence


class _Cotuning:
    """Both learners and what their steps share."""

    def __init__(self, *, f: _Learner, g: _Learner, terms: CotuningTerms, group: ProcessGroup) -> None:
        self._f, self._g = f, g
        self._terms = terms
        self._group = group
        self.devices = [f.device] if f.device == g.device else [f.device, g.device]
        self.micro_batches = MicroBatches(terms.batch_size, group=group, devices=self.devices)
        self.step = {"simultaneous": self._simultaneous, "sequential": self._sequential}[terms.schedule]
        self.measured = {
            "llm_loss": f.losses,
            "slm_loss": g.losses,
            "llm_distillation": f.distillations,
            "slm_distillation": g.distillations,
        }

    def _simultaneous(self, chosen: Sequence[Encoded], what: str) -> float:
        """Both updates from the values before the step (Alg. 1): one forward pass of each model; return L2."""
        f, g, terms = self._f, self._g, self._terms

        def of_both(piece: Sequence[Encoded], share: float) -> tuple[float, ...]:
            batch_f, batch_g = _batches_for(f, g, piece)
            f_NV, g_NV = f.log_probs(batch_f), g.log_probs(batch_g)
            return (
                *f.backward(f_NV, g_NV, answer_labels(batch_f), terms, share),
                *g.backward(g_NV, f_NV, answer_labels(batch_g), terms, share),
            )

        found = self.micro_batches.gradient(chosen, of_both, discard=self._discard)
        loss = f.measured(found[:2], terms, what) + g.measured(found[2:], terms, what)
        f.optimiser.step(f"{what} of the LLM", group=self._group)
        g.optimiser.step(f"{what} of the SLM", group=self._group)
        return loss

    def _sequential(self, chosen: Sequence[Encoded], what: str) -> float:
        """The SLM's update first, then the LLM's, whose peer is the updated SLM; return L2.

        One forward pass of the LLM does for both, where the batch goes through at once; in pieces there is a second
        one, because all of them would not fit. If memory runs out in the second half, the first is not made again.
        """
        f, g, terms = self._f, self._g, self._terms
        kept: list[torch.Tensor] = []

        def of_slm(piece: Sequence[Encoded], share: float) -> tuple[float, float]:
            batch_f, batch_g = _batches_for(f, g, piece)
            at_once = len(self.micro_batches.cut(chosen)) == 1
            with torch.set_grad_enabled(at_once):
                f_NV = f.log_probs(batch_f)
            if at_once:
                kept.append(f_NV)
            return g.backward(g.log_probs(batch_g), f_NV, answer_labels(batch_g), terms, share)

        def of_llm(piece: Sequence[Encoded], share: float) -> tuple[float, float]:
            batch_f, batch_g = _batches_for(f, g, piece)
            f_NV = kept.pop() if kept else f.log_probs(batch_f)
            g_NV = f_NV  # nothing is distilled of it where lambda is 0
            if terms.distillation_weight:
                with torch.no_grad():
                    g_NV = g.log_probs(batch_g)
            return f.backward(f_NV, g_NV, answer_labels(batch_f), terms, share)

        def discard() -> None:
            kept.clear()
            self._discard()

        loss = g.measured(self.micro_batches.gradient(chosen, of_slm, discard=discard), terms, what)
        g.optimiser.step(f"{what} of the SLM", group=self._group)
        loss += f.measured(self.micro_batches.gradient(chosen, of_llm, discard=discard), terms, what)
        f.optimiser.step(f"{what} of the LLM", group=self._group)
        return loss

    def _discard(self) -> None:
        self._f.optimiser.discard()
        self._g.optimiser.discard()

    def keep(self, checkpoint: CotuningCheckpoint, steps: int) -> None:
        """Write down all that the next step depends on."""
        checkpoint.keep(self._state(), steps=steps, micro_batch=self.micro_batches.micro_batch, measured=self.measured)

    def resume(self, checkpoint: CotuningCheckpoint) -> int:
        """Go back to where the co-tuning was when it was kept last; return how many steps that are."""
        found = checkpoint.find(self._state())
        if found is None:
            return 0
        progress, tensors = found
        for name, learner in (("llm", self._f), ("slm", self._g)):
            own = {key.removeprefix(f"{name}."): one for key, one in tensors.items() if key.startswith(f"{name}.")}
            learner.optimiser.restore(own, steps=progress.steps)
        for name, values in self.measured.items():
            values[:] = progress.measured[name]
        if progress.micro_batch is not None:
            self.micro_batches.reduce_to(progress.micro_batch)
        random = [tensors[f"random.{self._group.rank}.{number}"] for number in range(len(random_state(self.devices)))]
        restore_random_state(random, self.devices)
        return progress.steps

    def _state(self) -> dict[str, torch.Tensor]:
        state: dict[str, torch.Tensor] = {}
        for name, learner in (("llm", self._f), ("slm", self._g)):
            state |= {f"{name}.{key}": tensor for key, tensor in learner.optimiser.state().items()}
        for number, own in enumerate(random_state(self.devices)):
            for rank, content in enumerate(self._group.from_all(own.numpy().tobytes())):
                state[f"random.{rank}.{number}"] = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        return state


def _batches_for(f: _Learner, g: _Learner, chosen: Sequence[Encoded]) -> tuple[Batch, Batch]:
    """The same batch where each model is."""
    batch_f = collate(chosen, f.device)
    return batch_f, batch_f if g.device == f.device else collate(chosen, g.device)
