"""Depth pruning: what each layer of a decoder does, a model of the layers that do most, and the step that heals it.

The derived model keeps the LLM's embeddings, norm after the last layer and head as they are. So it needs the LLM's own
tokenizer, and its hidden states live where the LLM's do: each layer can be taught what the LLM passes on at that depth,
which says far more per token than the next-token distribution alone.

Legend: B texts, T tokens of each, D hidden width, Q chosen positions of the whole batch, V entries of the head.
"""

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from transformers import PreTrainedModel

from shared.errors import ConfigurationError, LossNotFinite, ModelUnreadable
from shared.ml.losses import cross_entropy, distillation

_LARGEST_GRADIENT = 1.0
_STATE_WEIGHT = 2.0
"""Of each of the two hidden-state terms; the KL term, in nats, has weight 1."""


@dataclass(frozen=True)
class Influence:
    """What a layer does to the hidden state: 1 - E[cos(in, out)], 0 where it does nothing.

    ``everywhere`` is ShortGPT's block influence (arXiv 2403.03853, Eq. 1), over all tokens. ``first`` is the same over
    the first token of each text alone. Decoders park surplus attention there (arXiv 2309.17453), and one or two layers
    make that place; without them nothing works, and in a mean over all tokens they do not show.
    """

    everywhere: float
    first: float

    @property
    def rank(self) -> float:
        """What layers are chosen by."""
        return max(self.everywhere, self.first)


@dataclass(frozen=True)
class Trace:
    """What passed through a model: the state before each layer and after the last, that before the head, and log p."""

    states_BTD: Sequence[torch.Tensor]
    final_BTD: torch.Tensor
    log_QV: torch.Tensor


def decoder_layers(model: PreTrainedModel) -> torch.nn.ModuleList:
    """Return the layers of the language model, whatever its family calls them.

    Raises:
        ModelUnreadable: there is no one list of as many modules as the configuration says layers.
    """
    count = model.config.get_text_config().num_hidden_layers
    decoder = model.get_decoder()
    found = [module for module in decoder.modules() if isinstance(module, torch.nn.ModuleList) and len(module) == count]
    if len(found) != 1:
        raise ModelUnreadable(
            f"{type(decoder).__name__} has {len(found)} lists of {count} modules, so its layers cannot be told apart "
            "from its other parts: choose a model of another family"
        )
    return found[0]


def trace(model: PreTrainedModel, token_ids_BT: torch.Tensor, chosen_Q: torch.Tensor) -> Trace:
    """Run the model; the head at the chosen positions alone (of B times T, flat), as it is what costs most.

    By hooks, because families differ in what their layers take and give, and in what they do to logits.
    """
    layers = decoder_layers(model)
    states_BTD: list[torch.Tensor] = []
    final_BTD: list[torch.Tensor] = []

    def before(_: torch.nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        states_BTD.append(arguments[0] if arguments else named["hidden_states"])

    def after(_: torch.nn.Module, __: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401 - a tensor or a tuple
        states_BTD.append(output if isinstance(output, torch.Tensor) else output[0])

    def choose(_: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        final_BTD.append(arguments[0])
        return (arguments[0].flatten(0, 1)[chosen_Q].unsqueeze(0),)

    head: Any = model.get_output_embeddings()
    hooks = [layer.register_forward_pre_hook(before, with_kwargs=True) for layer in layers]
    hooks += [layers[-1].register_forward_hook(after), head.register_forward_pre_hook(choose)]
    try:
        logits_QV = model(input_ids=token_ids_BT, use_cache=False).logits.squeeze(0)
    finally:
        for hook in hooks:
            hook.remove()
    return Trace(states_BTD, final_BTD[0], logits_QV.log_softmax(-1, dtype=torch.float32))


@torch.no_grad()
def block_influence(model: PreTrainedModel, batches_BT: Iterable[torch.Tensor]) -> list[Influence]:
    """Return the influence of each layer on these texts, at least one, each of at least two tokens."""
    none_Q = torch.tensor([0], device=model.device)
    pieces: list[torch.Tensor] = []
    for token_ids_BT in batches_BT:
        states_BTD = trace(model, token_ids_BT, none_Q).states_BTD
        cosines = [torch.cosine_similarity(put.float(), out.float(), dim=-1) for put, out in pairwise(states_BTD)]
        pieces.append(torch.stack(cosines, dim=1))
    influence_BLT = 1 - torch.cat(pieces)
    return [
        Influence(everywhere=float(layer_BT.mean()), first=float(layer_BT[:, 0].mean()))
        for layer_BT in influence_BLT.unbind(1)
    ]


def layers_to_keep(influences: Sequence[Influence], count: int) -> tuple[int, ...]:
    """Return the ``count`` layers that do most, in their order; the first and the last always, of equals the earlier.

    Raises:
        ConfigurationError: the model has fewer layers, or ``count`` leaves none between first and last.
    """
    depth = len(influences)
    if not min(3, depth) <= count <= depth:
        raise ConfigurationError(f"{count} of {depth} layers cannot be kept: choose between 3 and {depth}")
    ends = {0, depth - 1}
    between = sorted(set(range(depth)) - ends, key=lambda layer: (-influences[layer].rank, layer))
    return tuple(sorted(ends.union(between[: count - len(ends)])))


def cut(model: PreTrainedModel, keep: Sequence[int]) -> PreTrainedModel:
    """Return a copy of the model with these layers alone, in this order; the configuration says so."""
    layers = decoder_layers(model)
    # Layers and model are copied with one memo, so that the copies share what the originals share (configuration, tied
    # weights), and a layer that is dropped is never copied: an LLM may just fit into memory.
    memo: dict[int, Any] = {}
    kept = torch.nn.ModuleList([copy.deepcopy(layers[index], memo) for index in keep])
    memo[id(layers)] = kept
    student = copy.deepcopy(model, memo)
    for position, layer in enumerate(kept):
        for module in layer.modules():
            if "layer_idx" in vars(module):
                vars(module)["layer_idx"] = position  # the layer's place in the cache
    config = student.config.get_text_config()
    kinds = config.to_dict().get("layer_types")  # where it is not written, the family makes it of the number of layers
    config.num_hidden_layers = len(keep)
    if kinds is not None:
        config.layer_types = [kinds[index] for index in keep]
    return student


@contextmanager
def layers_train(model: PreTrainedModel) -> Iterator[list[torch.nn.Parameter]]:
    """Let the layers' weights train inside the block, and nothing else; they are frozen again afterwards."""
    layers = decoder_layers(model)
    layers.requires_grad_(requires_grad=True)
    try:
        yield list(layers.parameters())
    finally:
        layers.requires_grad_(requires_grad=False)


def healing_loss(own: Trace, llm: Trace, keep: Sequence[int]) -> torch.Tensor:
    """Return how far the derived model is from the LLM: in its states, before the head, and in the logits chosen.

    What the derived model passes to its next layer is to be what the LLM passed to that layer, past all that were cut.

    Args:
        own: of the derived model, with gradients.
        llm: of the LLM, for the same texts and positions.
        keep: the layers of the LLM that the derived model has.
    """
    between = [
        _relative_error(own.states_BTD[place], llm.states_BTD[layer])
        for place, layer in enumerate(keep[1:], 1)
    ]  # fmt: skip
    states = torch.stack(between).mean() if between else torch.zeros(())
    kl = distillation(own.log_QV, llm.log_QV, "forward")
    return _STATE_WEIGHT * (states + _relative_error(own.final_BTD, llm.final_BTD)) + kl


def _relative_error(own_BTD: torch.Tensor, llm_BTD: torch.Tensor) -> torch.Tensor:
    """Squared error of each token's state as a part of that state, which for a first token may be a thousandfold."""
    error_BT = (own_BTD.float() - llm_BTD.float()).square().sum(-1)
    return (error_BT / llm_BTD.float().square().sum(-1).clamp_min(1e-12)).mean()


def distillation_step(
    student: PreTrainedModel,
    llm: PreTrainedModel,
    optimiser: torch.optim.Optimizer,
    *,
    keep: Sequence[int],
    token_ids_BT: torch.Tensor,
    chosen_Q: torch.Tensor,
) -> float:
    """Take one optimiser step towards the LLM on these texts; return the loss before it.

    Raises:
        LossNotFinite: the loss is NaN or infinite; nothing was changed.
    """
    with torch.no_grad():
        of_llm = trace(llm, token_ids_BT, chosen_Q)
    loss = healing_loss(trace(student, token_ids_BT, chosen_Q), of_llm, keep)
    value = float(loss.detach())
    if not math.isfinite(value):
        raise LossNotFinite(f"the loss of healing is {value}: lower the learning rate, or check the LLM's weights")
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    torch.nn.utils.clip_grad_norm_(weights, _LARGEST_GRADIENT)
    optimiser.step()
    return value


@dataclass(frozen=True)
class NextToken:
    """How well next tokens are predicted, means per token in nats: cross-entropy of both models, KL(LLM || own)."""

    own_loss: float
    llm_loss: float
    divergence: float


@torch.no_grad()
def compare_next_tokens(model: PreTrainedModel, llm: PreTrainedModel, batches_BT: Iterable[torch.Tensor]) -> NextToken:
    """Return how well a model predicts the tokens of these texts, at least one of them, beside the LLM."""
    found: list[tuple[float, float, float]] = []
    for token_ids_BT in batches_BT:
        for text_T in token_ids_BT:  # one by one: logits of all entries for a whole batch are large
            positions_Q = torch.arange(len(text_T) - 1, device=text_T.device)
            own_QV, llm_QV = (trace(one, text_T[None], positions_Q).log_QV for one in (model, llm))
            own, of_llm = (cross_entropy(one_QV, text_T[1:]) for one_QV in (own_QV, llm_QV))
            found.append((float(own), float(of_llm), float(distillation(own_QV, llm_QV, "forward"))))
    return NextToken(*(math.fsum(column) / len(found) for column in zip(*found, strict=True)))
