"""How well a model answers: multiple choice by the likelihood of each answer's text, as lm-evaluation-harness does it.

A prompt goes through the model once for all of its choices: with four choices that is nearly four times as fast.
A completion, whose only choice is its answer, is measured token by token instead.

Legend: B sequences of a batch, T tokens, N answer tokens of a batch, V entries of the tokenizer.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice, takewhile

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from shared.errors import DataEmpty, LossNotFinite
from shared.ml.encoding import Encoded, EncodedChoices, collate
from shared.ml.intervals import ratio_interval, share_interval
from shared.ml.losses import answer_labels, answer_log_probs, log_probs

# Sequences of a batch, where a worker or an agent evaluates: what memory takes is counted with it.
EVALUATION_BATCH = 32

# Of one batch. A token's logits are as many floats as the tokenizer has entries: 1,024 of 150,000 are 0.6 GB.
MOST_ANSWER_TOKENS = 1024


@dataclass(frozen=True)
class Evaluation:
    """What a model scored.

    accuracy: 0 to 1. Of multiple choice, the share of examples answered right (lm-eval's ``acc``). Of completions, the
    share of the answers' tokens that are the model's most likely ones, each after the right ones before it.
    accuracy_norm: the same of multiple choice, where a log-likelihood is divided by the characters of its answer, for
    long texts are unlikely (lm-eval's ``acc_norm``); the accuracy itself of completions, where nothing is chosen.
    chance: what guessing would score on the same examples; 0 for completions.
    loss: cross-entropy of the right answers in nats, a mean over their tokens.
    interval: of the accuracy, over examples of this kind (``intervals``); None where one example says too little.
    correct, correct_norm: for each example in order, so that two models can be compared item by item; a completion is
    if each of its tokens is.
    log_likelihoods: for each example in order, of each choice, in nats.
    predicted: for each example in order, how many tokens of its right answer are the model's most likely ones.
    """

    accuracy: float
    accuracy_norm: float
    loss: float
    examples: int
    chance: float
    interval: tuple[float, float] | None
    correct: tuple[bool, ...]
    correct_norm: tuple[bool, ...]
    log_likelihoods: tuple[tuple[float, ...], ...]
    predicted: tuple[int, ...]


def evaluate(
    model: PeftModel | PreTrainedModel,
    examples: Sequence[EncodedChoices],
    *,
    batch_size: int,
    vocab_size: int,
    on_batch: Callable[[], None],
) -> Evaluation:
    """Choose for each example the answer whose text has the largest summed log-likelihood; of equals, the first.

    Completions are predicted token by token instead; examples are either all of one kind or all of the other.

    Args:
        model: with LoRA or without; it is left in eval mode.
        examples: at least one, all of the same kind.
        batch_size: sequences per forward pass, of which an example has one for each choice; only speed depends on it.
        vocab_size: the tokenizer's length.
        on_batch: called after each batch.

    Raises:
        DataEmpty: there is no example.
        LossNotFinite: a log-likelihood is NaN or infinite.
    """
    if not examples:
        raise DataEmpty("there is no example to evaluate on: check the validation file")
    scores = _scores(
        model, [one.choices for one in examples], batch_size=batch_size, vocab_size=vocab_size, on_batch=on_batch
    )
    right = [of_choices[example.answer] for example, of_choices in zip(examples, scores, strict=True)]
    tokens = sum(score.tokens for score in right)
    loss = -math.fsum(score.log_likelihood for score in right) / tokens
    log_likelihoods = tuple(tuple(score.log_likelihood for score in of_choices) for of_choices in scores)
    predicted = tuple(score.predicted for score in right)
    if all(len(one.choices) == 1 for one in examples):
        accuracy = sum(predicted) / tokens
        whole = tuple(score.predicted == score.tokens for score in right)
        return Evaluation(
            accuracy=accuracy,
            accuracy_norm=accuracy,
            loss=loss,
            examples=len(examples),
            chance=0.0,
            interval=ratio_interval(predicted, [score.tokens for score in right]),
            correct=whole,
            correct_norm=whole,
            log_likelihoods=log_likelihoods,
            predicted=predicted,
        )
    correct = tuple(
        _first_best(of_choices) == example.answer for example, of_choices in zip(examples, log_likelihoods, strict=True)
    )
    correct_norm = tuple(
        _first_best([one / length for one, length in zip(of_choices, example.characters, strict=True)])
        == example.answer
        for example, of_choices in zip(examples, log_likelihoods, strict=True)
    )
    return Evaluation(
        accuracy=sum(correct) / len(examples),
        accuracy_norm=sum(correct_norm) / len(examples),
        loss=loss,
        examples=len(examples),
        chance=math.fsum(1 / len(one.choices) for one in examples) / len(examples),
        interval=share_interval(sum(correct), len(examples)),
        correct=correct,
        correct_norm=correct_norm,
        log_likelihoods=log_likelihoods,
        predicted=predicted,
    )


def _first_best(values: Sequence[float]) -> int:
    return values.index(max(values))


@dataclass(frozen=True)
class _Score:
    """One answer: its log-likelihood, and how many of its tokens the model itself would have predicted."""

    log_likelihood: float
    predicted: int
    tokens: int


def _scores(
    model: PeftModel | PreTrainedModel,
    sequences: Sequence[Sequence[Encoded]],
    *,
    batch_size: int,
    vocab_size: int,
    on_batch: Callable[[], None],
) -> list[list[_Score]]:
    """Score each example's choices, over the tokens of the answer."""
    device = next(model.parameters()).device
    scores: list[list[_Score]] = [[] for _ in sequences]
    model.eval()
    with torch.no_grad():
        for shared, chosen in batches(sequences, batch_size):
            summed = _score_together(
                model, [sequences[index] for index in chosen], shared, device=device, vocab_size=vocab_size
            )
            for index, score in zip(chosen, summed, strict=True):
                scores[index] = score
            on_batch()
    return scores


def batches(sequences: Sequence[Sequence[Encoded]], batch_size: int) -> Iterator[tuple[int, list[int]]]:
    """Yield which examples go through a model at once, and how many first tokens the choices of each have in common.

    Examples that share equally many tokens among their choices go together: then the shared part needs no padding,
    and positions and sliding windows are those of the whole text.
    """
    shared = [_shared_tokens(choices) for choices in sequences]
    order = sorted(
        range(len(sequences)), key=lambda index: (shared[index], _padded_tokens(sequences[index], shared[index]))
    )
    for length, group in groupby(order, key=lambda index: shared[index]):
        for chosen in _chunks(list(group), sequences, batch_size):
            yield length, chosen


def _score_together(
    model: PeftModel | PreTrainedModel,
    sequences: Sequence[Sequence[Encoded]],
    shared: int,
    *,
    device: torch.device,
    vocab_size: int,
) -> list[list[_Score]]:
    """Score examples whose choices have ``shared`` first tokens in common: those go through the model once.

    The last of them predicts where the choices part, so that answers of one token cost nothing more.
    """
    choices = [(example, choice) for example, of in enumerate(sequences) for choice in of]
    likelihoods_B = torch.zeros(len(choices), device=device)
    predicted_B = torch.zeros(len(choices), device=device)
    numbers = partial(torch.tensor, dtype=torch.int64, device=device)

    def count(log_NV: torch.Tensor, labels_N: torch.Tensor, rows_N: torch.Tensor) -> None:
        likelihoods_B.index_add_(0, rows_N, log_NV.gather(1, labels_N[:, None])[:, 0])
        predicted_B.index_add_(0, rows_N, (log_NV.argmax(dim=-1) == labels_N).float())

    rest = [row for row, (_, choice) in enumerate(choices) if len(choice.token_ids) > shared + 1]
    past = None
    if shared:
        prompts_BT = numbers([of[0].token_ids[:shared] for of in sequences])
        prompts = model(input_ids=prompts_BT, use_cache=bool(rest), logits_to_keep=1)
        log_BV = log_probs(prompts.logits[:, -1], vocab_size=vocab_size)
        begun = [row for row, (_, choice) in enumerate(choices) if choice.answer_start == shared]
        labels_N = numbers([choices[row][1].token_ids[shared] for row in begun])
        count(log_BV[numbers([choices[row][0] for row in begun])], labels_N, numbers(begun))
        past = prompts.past_key_values
    if rest:
        if past is not None:
            past.batch_select_indices(numbers([choices[row][0] for row in rest]))
        ends = [choices[row][1] for row in rest]
        batch = collate([Encoded(end.token_ids[shared:], end.answer_start - shared) for end in ends], device)
        rows_N = batch.answer_mask_BT[:, 1:].nonzero()[:, 0]
        log_NV = answer_log_probs(model, batch, vocab_size=vocab_size, past=past)
        count(log_NV, answer_labels(batch), numbers(rest)[rows_N])
    flat = iter(zip(likelihoods_B.tolist(), predicted_B.tolist(), choices, strict=True))
    scores = [
        [
            _Score(likelihood, int(predicted), len(choice.token_ids) - choice.answer_start)
            for likelihood, predicted, (_, choice) in islice(flat, len(of))
        ]
        for of in sequences
    ]
    for score in (score for of in scores for score in of):
        if not math.isfinite(score.log_likelihood):
            raise LossNotFinite(
                f"the log-likelihood of an answer is {score.log_likelihood}: the model's weights are damaged or "
                "diverged"
            )
    return scores


def _shared_tokens(choices: Sequence[Encoded]) -> int:
    """How many first tokens all choices share, of those before the first answer begins.

    A single choice shares with nobody: then texts of different lengths may go through the model side by side.
    """
    if len(choices) == 1:
        return 0
    columns = zip(*(choice.token_ids[: choice.answer_start] for choice in choices), strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def _padded_tokens(choices: Sequence[Encoded], shared: int) -> int:
    """How long the texts are where nothing is shared: those of like length go together, and little is padding."""
    return 0 if shared else max(len(choice.token_ids) for choice in choices)


def _chunks(indices: Sequence[int], sequences: Sequence[Sequence[Encoded]], batch_size: int) -> Iterator[list[int]]:
    """Cut a list of examples so that each chunk has few enough choices and answer tokens, but at least one example."""
    chunk: list[int] = []
    rows = tokens = 0
    for index in indices:
        choices = sequences[index]
        more = sum(len(choice.token_ids) - choice.answer_start for choice in choices)
        if chunk and (rows + len(choices) > batch_size or tokens + more > MOST_ANSWER_TOKENS):
            yield chunk
            chunk, rows, tokens = [], 0, 0
        chunk.append(index)
        rows += len(choices)
        tokens += more
    yield chunk
