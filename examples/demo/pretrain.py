"""Pretrain the demo's tokenizer, LLM and SLM: ``python -m examples.demo.pretrain --out examples/demo/models``.

Both models learn to read records in the neutral dialects of ``examples.demo.task``; they never see a private dialect,
nor a record that a party or the validation set may use. What was done is written beside them as ``recipe.json``.
"""

import argparse
import json
import platform
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import tokenizers
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from examples.demo import dialects, task

SEED: Final = 20241118
VOCABULARY: Final = 1024
"""At most; the texts have fewer words."""
TOKENIZER_DIALECTS: Final = 128
CONTEXT: Final = 256
"""What the models are declared for."""
LENGTH: Final = 96
"""Tokens of a text of pretraining."""
END: Final = "<|end|>"
BATCH: Final = 16
WARM_UP_STEPS: Final = 50
PROMPT_WEIGHT: Final = 0.01
"""Weight in the loss of a token that nobody could know; one that is known from reading weighs 1."""
COOL_DOWN: Final = 0.4
"""Part of the steps, the last, over which the learning rate goes to zero."""
INITIAL_SCALE: Final = 0.05
ROPE_BASE: Final = 10000.0
FOCUS: Final = 6.0
"""How sharply the first heads look at one distance."""
QUIET: Final = 0.05
"""What everything else that writes to the stream begins with, as a part of its usual scale."""
MATCH: Final = 1.8
"""How sharply the second heads look for one word."""
BETAS: Final = (0.9, 0.98)
WEIGHT_DECAY: Final = 0.05


@dataclass(frozen=True)
class Recipe:
    """Shape and schedule of one model."""

    width: int
    layers: int
    heads: int
    inner: int
    dialects: int
    """How many neutral dialects it reads."""
    steps: int
    learning_rate: float


RECIPES: Final = {
    "llm": Recipe(width=256, layers=5, heads=4, inner=672, dialects=1024, steps=1500, learning_rate=2.5e-4),
    "slm": Recipe(width=128, layers=4, heads=4, inner=448, dialects=128, steps=1400, learning_rate=5e-4),
}


def train_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE in which every name, role and sign of the demo is one token.

    Words that only private dialects use are given to the tokenizer alone, so that prompts of all parties are about
    equally long; no model learns them here.
    """
    read = task.documents(SEED, dialects.neutral_dialects(TOKENIZER_DIALECTS))
    texts = ["".join(piece for piece, _ in text.pieces) for text in islice(read, 500)]
    words = [*task.NAMES, *dialects.MORE_ROLES, *dialects.private_words()]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        [*texts, *words * 50, *(f" {word}" for word in words * 50)],
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=[END],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END, model_max_length=CONTEXT)


@dataclass(frozen=True)
class Batch:
    """Token ids, and the weight of each in the loss; padding weighs nothing."""

    ids: torch.Tensor
    weights: torch.Tensor


def batches(tokenizer: PreTrainedTokenizerFast, seed: int, count: int) -> Iterator[Batch]:
    """Endless batches of pretraining texts in so many neutral dialects."""
    texts = task.documents(seed, dialects.neutral_dialects(count))
    while True:
        rows = [encode(tokenizer, text) for text in islice(texts, BATCH)]
        yield Batch(torch.tensor([ids for ids, _ in rows]), torch.tensor([weights for _, weights in rows]))


def encode(tokenizer: PreTrainedTokenizerFast, text: task.Document) -> tuple[list[int], list[float]]:
    """The first ids of a text and their weights in the loss; a text that is too short is padded."""
    ids: list[int] = []
    weights: list[float] = []
    for piece, is_known in text.pieces:
        encoded = tokenizer.encode(piece)
        ids += encoded
        weights += [1.0 if is_known else PROMPT_WEIGHT] * len(encoded)
    padding = max(0, LENGTH - len(ids))
    return (ids + [0] * padding)[:LENGTH], (weights + [0.0] * padding)[:LENGTH]


def fresh_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama of the recipe's shape with random weights, and with a start at reading (``look_back``)."""
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=recipe.width,
            intermediate_size=recipe.inner,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.heads,
            max_position_embeddings=CONTEXT,
            attention_bias=True,
            tie_word_embeddings=True,
            initializer_range=INITIAL_SCALE,
            rope_parameters={"rope_type": "default", "rope_theta": ROPE_BASE},
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    look_back(model)
    return model


@torch.no_grad()
def look_back(model: LlamaForCausalLM) -> None:
    """Begin with heads that find what followed the last mention of a word; all of it may change in training.

    To read a record is to find an earlier mention of a word and to copy what stands near it. That takes two layers that
    work together, and from random weights training needs millions of tokens before it hits upon them. So some heads
    start with it: head h of the first layer writes the word that stands h + 1 tokens back into a part of the stream
    that embeddings leave free. In the second layer, half of the heads look where that word is the present one, and
    copy what followed it; the other half look where the present word stood before, and copy what preceded it.
    """
    heads, width = model.config.num_attention_heads, model.config.hidden_size
    size, half = width // heads, width // 2
    embeddings = model.get_input_embeddings().weight
    embeddings[:, half:] = 0.0
    first, second = (layer.self_attn for layer in model.model.layers[:2])
    for projection in (first.q_proj, first.k_proj):
        projection.weight.mul_(QUIET)  # where the first layer looks is up to the biases
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.mul_(QUIET)
        layer.mlp.down_proj.weight.mul_(QUIET)
    # Rotary embeddings turn pair i of a query and a key by angle i per token; a query that is turned back by some
    # tokens beforehand fits the key at that distance best.
    angles = ROPE_BASE ** (-torch.arange(size // 2) / (size // 2))
    words = [random_rows(size, half) for _ in range(heads // 2)]
    for head in range(heads):
        own = slice(head * size, (head + 1) * size)
        back = head % (heads // 2)
        word = functional.pad(words[back], (0, half))
        free = torch.eye(width)[half + back * size : half + (back + 1) * size]
        second.q_proj.weight[own] = MATCH * word
        if head < heads // 2:
            turned = (back + 1) * angles
            first.q_proj.bias[own] = FOCUS * torch.cat((turned.cos(), -turned.sin()))
            first.k_proj.bias[own] = FOCUS * torch.cat((torch.ones_like(angles), torch.zeros_like(angles)))
            first.v_proj.weight[own] = word
            first.o_proj.weight[:, own] = INITIAL_SCALE * free.T
            copied = functional.pad(random_rows(size, half), (0, half))
            second.k_proj.weight[own] = MATCH * free
            second.v_proj.weight[own] = copied
            second.o_proj.weight[:, own] = INITIAL_SCALE * copied.T
        else:
            second.k_proj.weight[own] = MATCH * word
            second.v_proj.weight[own] = free
            second.o_proj.weight[:, own] = INITIAL_SCALE * word.T


def random_rows(count: int, width: int) -> torch.Tensor:
    """So many orthogonal unit vectors, as rows."""
    rows: torch.Tensor = torch.linalg.qr(torch.randn(width, count))[0].T
    return rows


def loss_of(model: LlamaForCausalLM, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """The weighted loss, and the plain loss on what is known from reading, for the record."""
    logits = model(input_ids=batch.ids[:, :-1]).logits
    losses = functional.cross_entropy(logits.flatten(0, 1), batch.ids[:, 1:].flatten(), reduction="none")
    weights = batch.weights[:, 1:].flatten()
    return (losses * weights).sum() / weights.sum(), losses[weights == 1.0].mean().detach()


def learning_rate_factor(step: int, steps: int) -> float:
    """Linear warm-up, then constant, then linear to zero over the last part."""
    return min(1.0, (step + 1) / WARM_UP_STEPS, (steps - step) / (COOL_DOWN * steps))


def pretrain(
    recipe: Recipe, tokenizer: PreTrainedTokenizerFast, seed: int, *, compiled: bool
) -> tuple[LlamaForCausalLM, dict[str, Any]]:
    """Train one model; return it, and what was done."""
    torch.manual_seed(seed)
    model = fresh_model(recipe, tokenizer).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, betas=BETAS, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: learning_rate_factor(step, recipe.steps))
    loss_function = torch.compile(loss_of) if compiled else loss_of
    start, tokens, recent = time.monotonic(), 0, deque[float](maxlen=50)
    for step, batch in enumerate(islice(batches(tokenizer, seed, recipe.dialects), recipe.steps), 1):
        loss, answer_loss = loss_function(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        tokens += int((batch.weights > 0).sum())
        recent.append(float(answer_loss))
        if step % 50 == 0:
            print(f"step {step}/{recipe.steps}: loss on known tokens {sum(recent) / len(recent):.3f}", flush=True)
    return model.eval(), {
        **asdict(recipe),
        "parameters": model.num_parameters(),
        "tokens_seen": tokens,
        "seconds": round(time.monotonic() - start),
        "final_loss": round(sum(recent) / len(recent), 4),
    }


CARD = """---
license: apache-2.0
library_name: transformers
---

# The demo's {name}

A model of {parameters:,} parameters that answers in made-up dialects and knows nothing else. It was trained from random
weights on texts that `examples/demo/dialects.py` makes, by the recipe in `recipe.json`.
"""


def main() -> None:
    """Make the models that the command line asks for."""
    parser = argparse.ArgumentParser(description="Pretrain the demo's tokenizer and its two models.")
    parser.add_argument("--out", type=Path, required=True, help="folder for llm/ and slm/")
    parser.add_argument("--only", choices=sorted(RECIPES), help="make one of them; both have the same tokenizer")
    parser.add_argument("--threads", type=int, default=1, help="torch threads; the weights depend on it slightly")
    parser.add_argument("--compile", action="store_true", help="twice as fast; needs a C++ compiler")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tokenizer = train_tokenizer()
    for name in [options.only] if options.only else RECIPES:
        model, done = pretrain(RECIPES[name], tokenizer, SEED, compiled=options.compile)
        folder = options.out / name
        model.to(torch.bfloat16).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / "README.md").write_text(CARD.format(name=name.upper(), parameters=done["parameters"]))
        (folder / "recipe.json").write_text(
            json.dumps(settings() | done | {"threads": options.threads, "compiled": options.compile}, indent=2) + "\n"
        )


def settings() -> dict[str, Any]:
    """What all models share."""
    return {
        "script": "examples/demo/pretrain.py",
        "seed": SEED,
        "vocabulary": VOCABULARY,
        "batch": BATCH,
        "length": LENGTH,
        "start": "random, but for heads of the first two layers that look back (look_back); everything is then trained",
        "prompt_weight": PROMPT_WEIGHT,
        "warm_up_steps": WARM_UP_STEPS,
        "cool_down": COOL_DOWN,
        "betas": BETAS,
        "weight_decay": WEIGHT_DECAY,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
        },
    }


if __name__ == "__main__":
    main()
