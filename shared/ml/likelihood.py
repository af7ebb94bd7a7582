"""How likely a model finds each answer's text, in as few and as full passes as that takes.

The choices of an example are a tree: their prompt, then what each goes on with, and what some have in common is there
once. A tree is one row of a pass: a token has the position that it has in its text, and sees what stands before it
there. With four choices that is three times as fast as a row for each choice, and it gives the same numbers.

Legend: B rows of a pass, T tokens of the longest of them, N tokens that something is predicted from, V entries of the
tokenizer.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from shared.errors import LossNotFinite
from shared.ml.encoding import Encoded
from shared.ml.losses import log_probs_at
from shared.ml.out_of_memory import halved, memory_suffices
from shared.ml.process_group import ALONE, ProcessGroup, share_of, together

# Of one pass. A token's logits are as many floats as the tokenizer has entries: 1,024 of 150,000 are 0.6 GB.
MOST_ANSWER_TOKENS = 1024

# Of one pass, which has a number for each pair of tokens of a row: 64 MB.
_MOST_PAIRS = 2**24

# A pass reads all weights, and in that time a processor computes about so many tokens: with more padding than that, two
# passes are faster than one. A GPU computes more, and was not measured.
_TOKENS_OF_A_PASS = {"cpu": 16, "cuda": 256}

# Families that see what the mask says, at the positions that they are told, and nothing else. Not among them is what
# keeps a state from token to token, or counts distances by itself; there each choice is a row.
_TREES = frozenset({"gpt2", "opt", "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "gemma3_text"})


@dataclass(frozen=True)
class Likelihood:
    """Of one answer: its log-likelihood in nats, and how many of its tokens the model itself would have predicted."""

    log_likelihood: float
    predicted: int
    tokens: int


@dataclass(frozen=True)
class Row:
    """A tree of texts, or a single one.

    parents: of each token the place of the one before it in its text, which is -1 for the first.
    asked: which token is to be predicted from which place, and which answer that belongs to.
    """

    token_ids: Sequence[int]
    parents: Sequence[int]
    asked: Sequence[tuple[int, int, int]]

    @property
    def heads(self) -> list[int]:
        """The places that something is predicted from."""
        return sorted({place for place, _, _ in self.asked})

    @property
    def is_one_text(self) -> bool:
        """Whether each token follows the one before it."""
        return all(parent == place - 1 for place, parent in enumerate(self.parents))


def likelihoods(
    model: PeftModel | PreTrainedModel,
    sequences: Sequence[Sequence[Encoded]],
    *,
    batch_size: int,
    vocab_size: int,
    on_pass: Callable[[], None],
    group: ProcessGroup = ALONE,
) -> list[list[Likelihood]]:
    """Return the likelihood of each example's choices, over the tokens of the answer, with the model as it is.

    Where memory does not suffice for a pass, it is made in smaller ones.

    Args:
        model: with LoRA or without.
        sequences: the choices of each example.
        batch_size: most rows of a pass.
        vocab_size: the tokenizer's length.
        on_pass: called after each pass.
        group: each of its processes makes a part of the passes, and returns all likelihoods.

    Raises:
        LossNotFinite: a log-likelihood is NaN or infinite.
        MemoryTooSmall: memory runs out with one row.
    """
    weight = next(model.parameters())
    answers = [choice for choices in sequences for choice in choices]
    # One more than there are answers: what a process computes only to keep in step belongs to none.
    likelihoods_A = torch.zeros(len(answers) + 1, device=weight.device)
    predicted_A = torch.zeros(len(answers) + 1, device=weight.device)

    def score(rows: Sequence[Row]) -> None:
        heads = [(row, place) for row, one in enumerate(rows) for place in one.heads]
        number = {head: n for n, head in enumerate(heads)}
        asked = [(number[row, place], *rest) for row, one in enumerate(rows) for place, *rest in one.asked]
        n_Q, labels_Q, answers_Q = torch.tensor(asked, device=weight.device).unbind(1)
        rows_N, columns_N = torch.tensor(heads, device=weight.device).unbind(1)
        tokens_BT, named = _inputs(rows, weight)
        log_NV = log_probs_at(model, tokens_BT, rows_N, columns_N, vocab_size=vocab_size, **named)
        likely_Q, right_Q = log_NV[n_Q, labels_Q], (log_NV.argmax(dim=-1)[n_Q] == labels_Q).float()
        likelihoods_A.index_add_(0, answers_Q, likely_Q)
        predicted_A.index_add_(0, answers_Q, right_Q)

    most = batch_size
    all_passes = list(passes(sequences, batch_size, longest_tree=_longest_tree(model), device=weight.device.type))
    with torch.no_grad():
        for rows in _own_passes(all_passes, group, nobodys=len(answers)):
            with together(group):
                if group.sharded:
                    score(rows)
                else:
                    most = _score_in_pieces(rows, most, score)
            on_pass()
    group.add_up([likelihoods_A, predicted_A])
    found = iter(
        [
            _finite(Likelihood(log_likelihood, int(predicted), len(answer.token_ids) - answer.answer_start))
            for log_likelihood, predicted, answer in zip(
                likelihoods_A.tolist()[:-1], predicted_A.tolist()[:-1], answers, strict=True
            )
        ]
    )
    return [[next(found) for _ in choices] for choices in sequences]


def passes(
    sequences: Sequence[Sequence[Encoded]], batch_size: int, *, longest_tree: float, device: str
) -> Iterator[list[Row]]:
    """Yield the rows of each pass, of like length; a pass has few enough rows and tokens, but at least one row.

    Trees, and texts that fit into them, are in other passes than texts that do not: what a tree's tokens see is said of
    a whole pass, and for all layers, and a window that some layers look back through is then forgotten.

    Args:
        sequences: the choices of each example.
        batch_size: most rows of a pass.
        longest_tree: where a text is longer, each choice is a row.
        device: its type.
    """
    trees: list[Row] = []
    texts: list[Row] = []
    first = 0
    for choices in sequences:
        numbered = list(enumerate(choices, first))
        first += len(choices)
        if max(len(choice.token_ids) for choice in choices) <= longest_tree:
            trees.append(_tree(numbered))
        else:
            texts += [_tree([one]) for one in numbered]
    yield from _passes(trees, batch_size, device)
    yield from _passes(texts, batch_size, device)


def _own_passes(all_passes: Sequence[list[Row]], group: ProcessGroup, *, nobodys: int) -> Iterator[list[Row]]:
    """Yield the passes of this process, as many as of any other: who has none left makes one that counts for nobody."""
    own = all_passes[group.rank :: group.size]
    yield from own
    if len(own) < share_of(len(all_passes), group):
        yield [replace(row, asked=[(place, token, nobodys) for place, token, _ in row.asked]) for row in all_passes[0]]


def _score_in_pieces(rows: Sequence[Row], most: int, score: Callable[[Sequence[Row]], None]) -> int:
    """Score rows, no more than ``most`` at once, and fewer where memory runs out; return how many it was."""
    while rows:
        piece = rows[:most]
        if memory_suffices(lambda piece=piece: score(piece)):  # type: ignore[misc]
            rows = rows[most:]
        else:
            most = halved(len(piece))
    return most


def has_tree(rows: Sequence[Row]) -> bool:
    """Whether a pass of these rows has to be told what each token sees."""
    return not all(row.is_one_text for row in rows)


def _passes(rows: Sequence[Row], batch_size: int, device: str) -> Iterator[list[Row]]:
    chosen: list[Row] = []
    tokens = heads = 0
    for row in sorted(rows, key=lambda one: len(one.token_ids)):
        length, more = len(row.token_ids), len(row.heads)
        full = (
            len(chosen) == batch_size
            or heads + more > MOST_ANSWER_TOKENS
            or (len(chosen) + 1) * length**2 > _MOST_PAIRS
            or len(chosen) * length - tokens > _TOKENS_OF_A_PASS[device]
        )
        if chosen and full:
            yield chosen
            chosen, tokens, heads = [], 0, 0
        chosen.append(row)
        tokens += length
        heads += more
    if chosen:
        yield chosen


def _tree(answers: Sequence[tuple[int, Encoded]]) -> Row:
    """Put texts together. The last token of a text predicts nothing: it is there only if another goes on after it."""
    places: dict[tuple[int, int], int] = {}
    asked = []
    for answer, encoded in answers:
        before = -1
        for position, token in enumerate(encoded.token_ids):
            if position >= encoded.answer_start:
                asked.append((before, token, answer))
            if position + 1 < len(encoded.token_ids):
                before = places.setdefault((before, token), len(places))
    return Row([token for _, token in places], [parent for parent, _ in places], asked)


def _longest_tree(model: PeftModel | PreTrainedModel) -> float:
    """How long a text may be whose choices are one row: no longer than the window that attention looks back through."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    if base.config.model_type not in _TREES:
        return 0
    window = getattr(base.config.get_text_config(), "sliding_window", None)
    return math.inf if window is None else int(window)


def _inputs(rows: Sequence[Row], weight: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return tokens, padded on the right with id 0; and for trees positions, and what each token sees."""
    width = max(len(row.token_ids) for row in rows)
    tokens_BT = np.zeros((len(rows), width), dtype=np.int64)
    for b, row in enumerate(rows):
        tokens_BT[b, : len(row.token_ids)] = row.token_ids
    on_device = torch.from_numpy(tokens_BT).to(weight.device)
    if not has_tree(rows):
        return on_device, {}
    sees_BTT = np.zeros((len(rows), width, width), dtype=np.bool_)
    sees_BTT[:] = np.eye(width, dtype=np.bool_)  # padding too: what sees nothing is not a number
    for sees_TT, row in zip(sees_BTT, rows, strict=True):
        for place, parent in enumerate(row.parents):
            if parent >= 0:
                sees_TT[place] |= sees_TT[parent]
    sees = torch.from_numpy(sees_BTT).to(weight.device)
    # As numbers to add: that is what every kind of attention takes.
    mask_BTT = torch.zeros(sees.shape, dtype=weight.dtype, device=weight.device).masked_fill_(~sees, -math.inf)
    return on_device, {"position_ids": sees.sum(dim=-1) - 1, "attention_mask": mask_BTT[:, None]}


def _finite(found: Likelihood) -> Likelihood:
    if not math.isfinite(found.log_likelihood):
        raise LossNotFinite(
            f"the log-likelihood of an answer is {found.log_likelihood}: the model's weights are damaged or diverged"
        )
    return found
