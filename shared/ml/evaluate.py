# ruff: noqa: N806 - tensors carry the suffix of their shape
"""How well a model answers: multiple choice by the likelihood of each answer's text (what lm-eval calls ``acc``).

Legend: N answer tokens of a batch, V entries of the tokenizer.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shared.errors import DataEmpty, LossNotFinite
from shared.ml.data import Encoded, Example, collate, encode
from shared.ml.losses import answer_labels, answer_logits


@dataclass(frozen=True)
class Evaluation:
    """What a model scored.

    accuracy: share of examples answered right, 0 to 1. chance: what guessing would score on the same examples.
    loss: cross-entropy of the right answers in nats, a mean over their tokens.
    correct: for each example in order, so that two models can be compared item by item.
    """

    accuracy: float
    loss: float
    examples: int
    chance: float
    correct: tuple[bool, ...]


def evaluate(
    model: PeftModel | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    *,
    batch_size: int,
    max_tokens: int,
    vocab_size: int,
) -> Evaluation:
    """Choose for each example the answer whose text has the largest summed log-likelihood; of equals, the first.

    Args:
        model: with LoRA or without; it is left in eval mode.
        tokenizer: the model's.
        examples: at least one.
        batch_size: sequences per forward pass, of which an example has one for each choice; only speed depends on it.
        max_tokens: longest prompt and answer.
        vocab_size: the tokenizer's length.

    Raises:
        DataEmpty: there is no example.
        ExampleTooLong: prompt and one of the choices exceed ``max_tokens``.
        LossNotFinite: a log-likelihood is NaN or infinite.
    """
    if not examples:
        raise DataEmpty("there is no example to evaluate on: check the validation file")
    sequences = [
        encode(tokenizer, example.prompt, choice, max_tokens=max_tokens)
        for example in examples
        for choice in example.choices
    ]
    scores = _log_likelihoods(model, sequences, batch_size=batch_size, vocab_size=vocab_size)
    correct: list[bool] = []
    right_scores: list[float] = []
    right_tokens = 0
    first = 0
    for example in examples:
        of_choices = scores[first : first + len(example.choices)]
        correct.append(of_choices.index(max(of_choices)) == example.answer)
        right = first + example.answer
        right_scores.append(scores[right])
        right_tokens += len(sequences[right].token_ids) - sequences[right].answer_start
        first += len(example.choices)
    return Evaluation(
        accuracy=sum(correct) / len(examples),
        loss=-math.fsum(right_scores) / right_tokens,
        examples=len(examples),
        chance=math.fsum(1 / len(example.choices) for example in examples) / len(examples),
        correct=tuple(correct),
    )


def _log_likelihoods(
    model: PeftModel | PreTrainedModel, sequences: Sequence[Encoded], *, batch_size: int, vocab_size: int
) -> list[float]:
    """Return the log-likelihood of each sequence's answer, summed over its tokens."""
    device = next(model.parameters()).device
    # Sequences of like length together: little padding. Longest first, so that a lack of memory shows at once.
    order = sorted(range(len(sequences)), key=lambda index: -len(sequences[index].token_ids))
    scores = [0.0] * len(sequences)
    model.eval()
    with torch.no_grad():
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = collate([sequences[index] for index in chosen], device)
            logits_NV = answer_logits(model, batch, vocab_size=vocab_size)
            minus_log_N = functional.cross_entropy(logits_NV, answer_labels(batch), reduction="none")
            row_N = batch.answer_mask_BT.nonzero()[:, 0]
            summed_B = torch.zeros(len(chosen), device=device).index_add_(0, row_N, minus_log_N)
            for index, summed in zip(chosen, summed_B.tolist(), strict=True):
                if not math.isfinite(summed):
                    raise LossNotFinite(
                        f"the log-likelihood of an answer is {-summed}: the model's weights are damaged or diverged"
                    )
                scores[index] = -summed
    return scores
