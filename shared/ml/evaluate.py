"""How well a model answers: multiple choice by the likelihood of each answer's text (what lm-eval calls ``acc``).

A prompt goes through the model once for all of its choices: with four choices that is nearly four times as fast.

Legend: B sequences of a batch, T tokens, N answer tokens of a batch, V entries of the tokenizer.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile

import torch
from peft import PeftModel
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shared.data.examples import Example
from shared.errors import DataEmpty, LossNotFinite
from shared.ml.encoding import Encoded, collate, encode
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
    on_batch: Callable[[], None],
) -> Evaluation:
    """Choose for each example the answer whose text has the largest summed log-likelihood; of equals, the first.

    Args:
        model: with LoRA or without; it is left in eval mode.
        tokenizer: the model's.
        examples: at least one.
        batch_size: sequences per forward pass, of which an example has one for each choice; only speed depends on it.
        max_tokens: longest prompt and answer.
        vocab_size: the tokenizer's length.
        on_batch: called after each batch.

    Raises:
        DataEmpty: there is no example.
        ExampleTooLong: prompt and one of the choices exceed ``max_tokens``.
        LossNotFinite: a log-likelihood is NaN or infinite.
    """
    if not examples:
        raise DataEmpty("there is no example to evaluate on: check the validation file")
    sequences = [
        [encode(tokenizer, example.prompt, choice, max_tokens=max_tokens) for choice in example.choices]
        for example in examples
    ]
    scores = _log_likelihoods(model, sequences, batch_size=batch_size, vocab_size=vocab_size, on_batch=on_batch)
    correct: list[bool] = []
    right_scores: list[float] = []
    right_tokens = 0
    for example, choices, of_choices in zip(examples, sequences, scores, strict=True):
        correct.append(of_choices.index(max(of_choices)) == example.answer)
        right_scores.append(of_choices[example.answer])
        right_tokens += len(choices[example.answer].token_ids) - choices[example.answer].answer_start
    return Evaluation(
        accuracy=sum(correct) / len(examples),
        loss=-math.fsum(right_scores) / right_tokens,
        examples=len(examples),
        chance=math.fsum(1 / len(example.choices) for example in examples) / len(examples),
        correct=tuple(correct),
    )


def _log_likelihoods(
    model: PeftModel | PreTrainedModel,
    sequences: Sequence[Sequence[Encoded]],
    *,
    batch_size: int,
    vocab_size: int,
    on_batch: Callable[[], None],
) -> list[list[float]]:
    """Return the log-likelihood of each example's choices, summed over the tokens of the answer."""
    device = next(model.parameters()).device
    # Examples that share equally many tokens among their choices go together: then the shared part needs no padding,
    # and positions and sliding windows are those of the whole text.
    shared = [_shared_tokens(choices) for choices in sequences]
    order = sorted(range(len(sequences)), key=lambda index: shared[index])
    scores: list[list[float]] = [[] for _ in sequences]
    model.eval()
    with torch.no_grad():
        for length, group in groupby(order, key=lambda index: shared[index]):
            for chosen in _chunks(list(group), sequences, batch_size):
                summed = _score_together(
                    model, [sequences[index] for index in chosen], length, device=device, vocab_size=vocab_size
                )
                for index, score in zip(chosen, summed, strict=True):
                    scores[index] = score
                on_batch()
    return scores


def _score_together(
    model: PeftModel | PreTrainedModel,
    sequences: Sequence[Sequence[Encoded]],
    shared: int,
    *,
    device: torch.device,
    vocab_size: int,
) -> list[list[float]]:
    """Score examples whose choices have ``shared`` first tokens in common: those go through the model once."""
    counts = [len(choices) for choices in sequences]
    past = None
    if shared:
        prompts_BT = torch.tensor([choices[0].token_ids[:shared] for choices in sequences], device=device)
        past = model(input_ids=prompts_BT, use_cache=True, logits_to_keep=1).past_key_values
        rows = torch.arange(len(sequences)).repeat_interleave(torch.tensor(counts))
        past.batch_select_indices(rows.to(device))
    rest = [
        Encoded(choice.token_ids[shared:], choice.answer_start - shared) for choices in sequences for choice in choices
    ]
    batch = collate(rest, device)
    logits_NV = answer_logits(model, batch, vocab_size=vocab_size, past=past)
    minus_log_N = functional.cross_entropy(logits_NV, answer_labels(batch), reduction="none")
    row_N = batch.answer_mask_BT.nonzero()[:, 0]
    summed_B = -torch.zeros(len(rest), device=device).index_add_(0, row_N, minus_log_N)
    flat = iter(summed_B.tolist())
    scores = [[next(flat) for _ in range(count)] for count in counts]
    for score in (score for choices in scores for score in choices):
        if not math.isfinite(score):
            raise LossNotFinite(
                f"the log-likelihood of an answer is {score}: the model's weights are damaged or diverged"
            )
    return scores


def _shared_tokens(choices: Sequence[Encoded]) -> int:
    """How many first tokens all choices share, without the one that predicts the first answer token."""
    at_most = min(choice.answer_start for choice in choices) - 1
    columns = zip(*(choice.token_ids[:at_most] for choice in choices), strict=True)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def _chunks(indices: Sequence[int], sequences: Sequence[Sequence[Encoded]], batch_size: int) -> Iterator[list[int]]:
    """Cut a list of examples so that their choices are at most ``batch_size`` together, but at least one example."""
    chunk: list[int] = []
    rows = 0
    for index in indices:
        if chunk and rows + len(sequences[index]) > batch_size:
            yield chunk
            chunk, rows = [], 0
        chunk.append(index)
        rows += len(sequences[index])
    yield chunk
