"""The losses of the paper (Eq. 4 and 5), and the log-probabilities they need; functions of tensors alone.

Legend: B sequences, T tokens, D hidden width, N answer tokens of the whole batch (in the order of the batch), V entries
of the tokenizer. Every loss is a mean per answer token, so that lambda (Eq. 6) means the same for any batch.
"""

from typing import Any, Literal, TypeAlias

import torch
from peft import PeftModel
from torch.nn import functional
from transformers import PreTrainedModel

from shared.errors import TokenizerMismatch
from shared.ml.encoding import Batch

Direction: TypeAlias = Literal["forward", "reverse"]


def answer_log_probs(model: PeftModel | PreTrainedModel, batch: Batch, *, vocab_size: int) -> torch.Tensor:
    """Return the log-probabilities of what may stand at each answer token: ``log_NV``, as ``log_probs_at`` does.

    The last token of the longest text predicts nothing and does not go through the model. There is no attention mask:
    padding is on the right of all that counts, where a causal model does not look, and kernels are faster without.

    Raises:
        TokenizerMismatch: the head is narrower than the tokenizer.
    """
    # The logits at position i predict token i + 1: the mask moves one to the left.
    rows_N, columns_N = batch.answer_mask_BT[:, 1:].nonzero(as_tuple=True)
    return log_probs_at(model, batch.token_ids_BT[:, :-1], rows_N, columns_N, vocab_size=vocab_size)


def log_probs_at(
    model: PeftModel | PreTrainedModel,
    token_ids_BT: torch.Tensor,
    rows_N: torch.Tensor,
    columns_N: torch.Tensor,
    *,
    vocab_size: int,
    **named: torch.Tensor,
) -> torch.Tensor:
    """Return the log-probabilities of the next token at chosen places: ``log_NV``, float32, on the model's device.

    The head runs there only; [B, T, V] is never made. The model's own forward does the rest, so whatever a family does
    to its logits after the head (a soft-cap, a scale) is done here too.

    Args:
        model: a causal language model, with LoRA or without.
        token_ids_BT: on the model's device.
        rows_N: of the chosen places.
        columns_N: of the chosen places.
        vocab_size: the tokenizer's length; wider heads are cut to it before the softmax.
        named: more of what the model's forward takes.

    Raises:
        TokenizerMismatch: the head is narrower than the tokenizer.
    """
    base = model.get_base_model() if isinstance(model, PeftModel) else model

    def keep_needed(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        hidden_BTD = inputs[0]
        return (hidden_BTD[rows_N, columns_N].unsqueeze(0),)

    # A hook in front of the head, because `logits_to_keep` takes the same positions for all sequences, and calling
    # backbone and head by hand would repeat each family's own forward.
    head: Any = base.get_output_embeddings()
    hook = head.register_forward_pre_hook(keep_needed)
    try:
        logits_NV = model(input_ids=token_ids_BT, use_cache=False, **named).logits.squeeze(0)
    finally:
        hook.remove()
    if logits_NV.shape[-1] < vocab_size:
        raise TokenizerMismatch(
            f"the head of {type(base).__name__} has {logits_NV.shape[-1]} outputs and the tokenizer {vocab_size} "
            "entries: use the model's own tokenizer"
        )
    return functional.log_softmax(logits_NV[:, :vocab_size], dim=-1, dtype=torch.float32)


def answer_labels(batch: Batch) -> torch.Tensor:
    """Return the answer tokens, ``labels_N``, in the order of ``answer_log_probs``."""
    return batch.token_ids_BT[:, 1:][batch.answer_mask_BT[:, 1:]]


def cross_entropy(log_NV: torch.Tensor, labels_N: torch.Tensor) -> torch.Tensor:
    """Return the task loss (Eq. 4; for a client Eq. 1), a mean per answer token, in nats."""
    return functional.nll_loss(log_NV, labels_N)


def distillation(
    own_NV: torch.Tensor, peer_NV: torch.Tensor, direction: Direction, *, where_N: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the divergence between both models' next-token distributions (Eq. 5), a mean per answer token, in nats.

    Eq. 5 leaves the direction open: "forward" is KL(peer || own), "reverse" is KL(own || peer). The peer is a constant
    in either: no gradient reaches it (Eq. 6 differentiates each loss by its own adapter only).

    Args:
        own_NV: log-probabilities of the model that learns.
        peer_NV: those of the other, on any device.
        direction: see above.
        where_N: the answer tokens that count, bool; left out all do. At the others the divergence counts as 0.
    """
    peer_NV = peer_NV.detach().to(own_NV.device)
    first, second = (peer_NV, own_NV) if direction == "forward" else (own_NV, peer_NV)
    tokens = len(own_NV)
    if where_N is not None:
        first, second = first[where_N], second[where_N]
    # Divided by N alone; "mean" would divide by V as well.
    return functional.kl_div(second, first, reduction="sum", log_target=True) / tokens


def where_peer_is_better(own_NV: torch.Tensor, peer_NV: torch.Tensor, labels_N: torch.Tensor) -> torch.Tensor:
    """Return at which answer tokens the peer finds the right one likelier than the model that learns: bool [N]."""
    labels_N1 = labels_N[:, None]
    better_N1 = peer_NV.detach().to(own_NV.device).gather(1, labels_N1) > own_NV.detach().gather(1, labels_N1)
    return better_N1.squeeze(1)
