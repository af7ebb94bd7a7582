"""A small transformer whose LoRA adapter is trained for real, by the same function in every system; PyTorch alone."""

import sys
import time
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from bench.peers.payload import LAYERS, RANK, Tensors, note, note_round, update_seed, zeros

HEADS, ENTRIES = 4, 512
ROWS, TOKENS = 4, 32
STRIDE = 7
"""From a token to the next, which is what can be learned."""
LEARNING_RATE = 1e-3

Factors: TypeAlias = dict[str, nn.Parameter]


class Block(nn.Module):
    """A frozen layer; its adapter's factors come with every call."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))
        self.q, self.k, self.v, self.out = (nn.Linear(dim, dim, bias=False) for _ in range(4))
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, hidden: Tensor, factors: Factors, prefix: str) -> Tensor:
        """Return the layer's output, of the same shape [rows, tokens, dim]."""
        rows, tokens, dim = hidden.shape
        normed = self.norms[0](hidden)

        def adapted(linear: nn.Linear, target: str) -> Tensor:
            a, b = (factors[f"{prefix}.self_attn.{target}_proj.lora_{factor}.weight"] for factor in "AB")
            result: Tensor = linear(normed) + normed @ a.T @ b.T
            return result

        q, k, v = (
            values.view(rows, tokens, HEADS, dim // HEADS).transpose(1, 2)
            for values in (adapted(self.q, "q"), self.k(normed), adapted(self.v, "v"))
        )
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        hidden = hidden + self.out(mixed.transpose(1, 2).reshape(rows, tokens, dim))
        result: Tensor = hidden + self.mlp(self.norms[1](hidden))
        return result


class Model(nn.Module):
    """The frozen base model, the same wherever it is made."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(ENTRIES, dim)
        self.blocks = nn.ModuleList(Block(dim) for _ in range(LAYERS))
        self.requires_grad_(requires_grad=False)

    def loss(self, tokens: Tensor, factors: Factors) -> Tensor:
        """Return the mean loss of the next tokens, in nats."""
        hidden = self.embedding(tokens)
        for layer, block in enumerate(self.blocks):
            hidden = block(hidden, factors, f"base_model.model.model.layers.{layer}")
        logits = hidden[:, :-1] @ self.embedding.weight.T
        return functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def trained(tensors: Mapping[str, NDArray[np.float32]], seed: int, steps: int) -> Tensors:
    """Return the adapter after some steps of AdamW on sequences of this seed; what it took is noted."""
    started = time.perf_counter()
    torch.set_num_threads(1)
    factors = {name: nn.Parameter(torch.from_numpy(np.array(values))) for name, values in tensors.items()}
    generator = torch.Generator().manual_seed(seed)
    dim = next(iter(tensors.values())).size // RANK
    model = Model(dim)
    for name, factor in factors.items():  # an adapter of zeros has no gradient: a real one begins with a random A
        if "lora_A" in name and not factor.any():
            nn.init.normal_(factor, std=0.02, generator=torch.Generator().manual_seed(0))
    optimiser = torch.optim.AdamW(factors.values(), lr=LEARNING_RATE)
    for _ in range(steps):
        optimiser.zero_grad()
        starts = torch.randint(ENTRIES, (ROWS, 1), generator=generator)
        loss = model.loss((starts + STRIDE * torch.arange(TOKENS)) % ENTRIES, factors)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    note("trainings", seconds=time.perf_counter() - started)
    return {name: factor.detach().numpy() for name, factor in factors.items()}


def main() -> None:
    """Train as often as there are rounds: ``python -m bench.peers.lora NUMBER DIM ROUNDS STEPS``."""
    number, dim, rounds, steps = map(int, sys.argv[1:])
    adapter = zeros(dim)
    for current in range(1, rounds + 1):
        adapter = trained(adapter, update_seed(current, number), steps)
        if number == 0:
            note_round(current, None)


if __name__ == "__main__":
    main()
