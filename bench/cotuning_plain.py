"""Co-tuning as it is written down first: what ours is compared with.

Legend: B sequences of a batch, T tokens of the longest of them, V entries of the head, N answer tokens.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel
from torch.nn import functional

from shared.ml.encoding import Encoded
from shared.ml.optimiser import LoraOptimiser
from shared.protocol.terms import OptimiserTerms

IGNORED = -100


def random_batches(examples: Sequence[Encoded], batch_size: int, seed: int) -> list[list[Encoded]]:
    """Return an epoch of batches, of whatever lengths chance brings together."""
    order = list(examples)
    random.Random(seed).shuffle(order)  # noqa: S311 - an order of examples is no secret
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


@dataclass
class PlainLoop:
    """Two full forward passes, cross-entropy and KL divergence, two backward passes, two steps of our AdamW.

    picked: take the answers' logits before the losses. Else the losses are computed everywhere, and what is of no
    answer is left out of their means, as trainers do it that know labels alone.
    """

    llm: PeftModel
    slm: PeftModel
    optimiser: OptimiserTerms
    picked: bool = False

    def run(self, batches: Sequence[Sequence[Encoded]]) -> list[float]:
        """Take a step for each batch, with lambda = 1 and forward KL; return the losses L2 (Eq. 6)."""
        models = (self.llm, self.slm)
        optimisers = [LoraOptimiser(model, self.optimiser) for model in models]
        for model in models:
            model.train()
        losses = []
        for chosen in batches:
            token_ids_BT, mask_BT, labels_BT = self._padded(chosen)
            logits = [model(input_ids=token_ids_BT, attention_mask=mask_BT).logits[:, :-1] for model in models]
            pairs = ((logits[0], logits[1].detach()), (logits[1], logits[0].detach()))
            made = [self._loss(own_BTV, peer_BTV, labels_BT[:, 1:]) for own_BTV, peer_BTV in pairs]
            for loss in made:
                loss.backward()  # type: ignore[no-untyped-call]
            for optimiser in optimisers:
                optimiser.step("the plain loop")
            losses.append(math.fsum(float(loss.detach()) for loss in made))
        return losses

    def _padded(self, chosen: Sequence[Encoded]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        width = max(len(one.token_ids) for one in chosen)
        rows: list[tuple[list[int], list[int], list[int]]] = []
        for one in chosen:
            ids, padding = list(one.token_ids), width - len(one.token_ids)
            labels = [IGNORED] * one.answer_start + ids[one.answer_start :] + [IGNORED] * padding
            rows.append((ids + [0] * padding, [1] * len(ids) + [0] * padding, labels))
        ids_BT, mask_BT, labels_BT = torch.tensor(rows, device=self.llm.device).unbind(1)
        return ids_BT, mask_BT, labels_BT

    def _loss(self, own_BTV: torch.Tensor, peer_BTV: torch.Tensor, labels_BT: torch.Tensor) -> torch.Tensor:
        answers_BT = labels_BT != IGNORED
        if self.picked:
            own_NV, peer_NV, labels_N = own_BTV[answers_BT], peer_BTV[answers_BT], labels_BT[answers_BT]
            kl = functional.kl_div(
                own_NV.log_softmax(-1), peer_NV.log_softmax(-1), reduction="batchmean", log_target=True
            )
            return functional.cross_entropy(own_NV, labels_N) + kl
        task = functional.cross_entropy(own_BTV.flatten(0, 1), labels_BT.flatten(), ignore_index=IGNORED)
        kl_BTV = functional.kl_div(own_BTV.log_softmax(-1), peer_BTV.log_softmax(-1), reduction="none", log_target=True)
        return task + kl_BTV.sum(-1)[answers_BT].mean()
