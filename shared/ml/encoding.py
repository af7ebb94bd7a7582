"""Tokens of examples, and batches of them.

The one place that knows which tokens of a text (prompt, one space, answer) are the answer's. Padding is on the right,
where no token of a causal model looks, so neither a pad token nor an attention mask is needed. Nothing here knows the
model.

Legend: B sequences of a batch, T tokens of the longest of them.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import structlog
import torch
from transformers import PreTrainedTokenizerBase

from shared.data.examples import Example
from shared.errors import DataError, DataUnreadable, ExampleTooLong
from shared.protocol.terms import TooLong

log = structlog.get_logger()

_T = TypeVar("_T")

# Among so many batches' examples, those of like length find each other. With four times as many, a batch of eight
# questions of ARC-Easy has a twentieth of padding instead of an eighth, and fewer of them ever meet.
_BATCHES_OF_A_WINDOW = 8


@dataclass(frozen=True)
class Encoded:
    """Tokens of a prompt and one answer; the answer's are those from ``answer_start`` on."""

    token_ids: tuple[int, ...]
    answer_start: int


@dataclass(frozen=True)
class EncodedChoices:
    """An example with each of its choices; ``answer`` is the index of the right one.

    characters: of each choice's text, without the space before it.
    """

    choices: tuple[Encoded, ...]
    answer: int
    characters: tuple[int, ...]


@dataclass(frozen=True)
class Batch:
    """Sequences side by side, padded on the right with id 0.

    token_ids_BT: int64. answer_mask_BT: bool, true on the tokens of the answers.
    """

    token_ids_BT: torch.Tensor
    answer_mask_BT: torch.Tensor


def encode(tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str, *, max_tokens: int) -> Encoded:
    """Tokenise prompt and answer together and find where the answer's tokens begin.

    Together, because a tokenizer may merge across the seam, and tokens made apart are then not those of the whole text.
    A token belongs to the answer if its span ends after the prompt's text. What the tokenizer puts in front by itself
    (begin-of-text) stays; what it puts behind is cut off, since the answer's text alone is learnt and scored.

    Raises:
        ExampleTooLong: there are more than ``max_tokens`` tokens; nothing is ever cut off silently.
        DataUnreadable: the tokenizer leaves no token of the prompt, or none of the answer.
    """
    encoding = tokenizer(f"{prompt} {answer}", return_offsets_mapping=True, verbose=False)
    ends = [end for _, end in encoding["offset_mapping"]]
    of_answer = [position for position, end in enumerate(ends) if end > len(prompt)]
    if not of_answer or of_answer[0] == 0:
        raise DataUnreadable(
            f"the tokenizer leaves no token for the {'prompt' if of_answer else 'answer'}: there is nothing to "
            f"{'answer from' if of_answer else 'learn'}; correct the text, or use the tokenizer that fits it"
        )
    stop = of_answer[-1] + 1
    if stop > max_tokens:
        raise ExampleTooLong(
            f"prompt and answer are {stop} tokens long and at most {max_tokens} are allowed: "
            "shorten the text, raise the run's training.max_tokens, or let the run leave out what is too long "
            '(task.too_long = "leave_out")'
        )
    return Encoded(token_ids=tuple(encoding["input_ids"][:stop]), answer_start=of_answer[0])


def encode_examples(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], *, max_tokens: int, too_long: TooLong = "refuse"
) -> list[Encoded]:
    """Encode each example with its right answer, as training wants it.

    Raises:
        DataError: as ``encode_choices``.
    """
    right = [replace(example, choices=(example.choices[example.answer],), answer=0) for example in examples]
    encoded = encode_choices(tokenizer, right, max_tokens=max_tokens, too_long=too_long)
    return [one.choices[0] for one in encoded]


def encode_choices(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], *, max_tokens: int, too_long: TooLong = "refuse"
) -> list[EncodedChoices]:
    """Encode each example with each of its choices, as scoring wants it; those left out are counted in the log.

    Raises:
        DataError: as ``encode``; the message says which example.
        ExampleTooLong: an example is, and ``too_long`` says to refuse; or all of them are.
    """
    encoded = []
    left_out = 0
    for example in examples:
        try:
            choices = tuple(
                encode(tokenizer, example.prompt, choice, max_tokens=max_tokens) for choice in example.choices
            )
        except DataError as error:
            if not isinstance(error, ExampleTooLong) or too_long == "refuse":
                raise type(error)(f"{example.where}: {error}") from error
            left_out += 1
        else:
            encoded.append(EncodedChoices(choices, example.answer, tuple(map(len, example.choices))))
    if left_out == len(examples) > 0:
        raise ExampleTooLong(
            f"each of the {left_out} examples has more than {max_tokens} tokens, and none is left: raise the run's "
            "training.max_tokens"
        )
    if left_out:
        log.warning("examples.left_out", too_long=left_out, of=len(examples), max_tokens=max_tokens)
    return encoded


def collate(encoded: Sequence[Encoded], device: torch.device) -> Batch:
    """Put sequences side by side on ``device``; padding carries id 0 and is never an answer's."""
    lengths_B = torch.tensor([len(one.token_ids) for one in encoded])
    starts_B = torch.tensor([one.answer_start for one in encoded])
    width = int(lengths_B.max())
    positions_T = torch.arange(width)
    answer_BT = (positions_T < lengths_B[:, None]) & (positions_T >= starts_B[:, None])
    token_ids_BT = torch.tensor([one.token_ids + (0,) * (width - len(one.token_ids)) for one in encoded])
    return Batch(token_ids_BT.to(device), answer_BT.to(device))


def batches(encoded: Sequence[Encoded], *, batch_size: int, seed: int) -> Iterator[list[Encoded]]:
    """Yield one epoch, each example once, in an order that depends on ``seed`` alone; one batch may be short.

    Examples of a batch are of like length, because all of it is computed at the width of its longest: drawn at random,
    nearly half of a batch of eight questions of ARC-Easy is padding, and so sorted an eighth. Who is with whom still
    changes from epoch to epoch: only those that chance brings into one window are sorted, and the batches are shuffled.
    Of a set no larger than a window only the order of batches changes, who of equal length is with whom, and who is in
    the short batch: those weigh more in a mean over the batch, and are any.
    """
    # random() is the one method whose values Python promises to keep from version to version; shuffle() is not.
    generator = random.Random(seed)  # noqa: S311 - an order of examples is no secret

    def shuffled(items: Iterable[_T]) -> list[_T]:
        return sorted(items, key=lambda _: generator.random())

    order = shuffled(encoded)
    short = len(order) % batch_size
    window = _BATCHES_OF_A_WINDOW * batch_size
    cut = [order[:short]] if short else []
    for start in range(short, len(order), window):
        by_length = sorted(order[start : start + window], key=lambda one: len(one.token_ids))
        cut += [by_length[first : first + batch_size] for first in range(0, len(by_length), batch_size)]
    yield from shuffled(cut)
