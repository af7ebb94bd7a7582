"""How well a model answers: multiple choice by the likelihood of each answer's text, as lm-evaluation-harness does it.

A completion, whose only choice is its answer, is measured token by token instead.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from peft import PeftModel
from transformers import PreTrainedModel

from shared.errors import DataEmpty
from shared.ml.encoding import EncodedChoices
from shared.ml.intervals import ratio_interval, share_interval
from shared.ml.likelihood import likelihoods
from shared.ml.process_group import ALONE, ProcessGroup

# Sequences of a batch, where a worker or an agent evaluates: what memory takes is counted with it.
EVALUATION_BATCH = 32


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
    group: ProcessGroup = ALONE,
) -> Evaluation:
    """Choose for each example the answer whose text has the largest summed log-likelihood; of equals, the first.

    Completions are predicted token by token instead; examples are either all of one kind or all of the other.

    Args:
        model: with LoRA or without; it is left in eval mode.
        examples: at least one, all of the same kind.
        batch_size: most sequences of a forward pass; only speed depends on it.
        vocab_size: the tokenizer's length.
        on_batch: called after each forward pass.
        group: as in ``likelihoods``.

    Raises:
        DataEmpty: there is no example.
        LossNotFinite: a log-likelihood is NaN or infinite.
        MemoryTooSmall: memory runs out with one sequence.
    """
    if not examples:
        raise DataEmpty("there is no example to evaluate on: check the validation file")
    model.eval()
    scores = likelihoods(
        model,
        [one.choices for one in examples],
        batch_size=batch_size,
        vocab_size=vocab_size,
        on_pass=on_batch,
        group=group,
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
