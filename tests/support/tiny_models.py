"""Tokenizers and models small enough for a test, made from nothing: no files, no hub, no downloads."""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from shared.ml.models import add_lora

# Of the random weights; larger than a real model's start, so that logits differ enough for LoRA to move them.
SPREAD = 0.15


def seeing(*, initializer_range: float, **text: Any) -> Gemma3Config:  # noqa: ANN401 - the sizes of the text model
    """Return Gemma 3's configuration with a vision tower, whose special tokens are no entries of the tokenizer."""
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": 16,
        "patch_size": 8,
    }
    return Gemma3Config(
        text_config=text | {"initializer_range": initializer_range},
        vision_config=vision,
        initializer_range=initializer_range,
        mm_tokens_per_image=4,
        boi_token_index=261,
        eoi_token_index=262,
        image_token_index=263,
    )


# By family: the model, its configuration, and what this family needs to be said beside the sizes.
FAMILIES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "llama": (LlamaForCausalLM, LlamaConfig, {}),
    "mistral": (MistralForCausalLM, MistralConfig, {"sliding_window": 8}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {"tie_word_embeddings": True}),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {"head_dim": 8}),
    "gemma": (GemmaForCausalLM, GemmaConfig, {"head_dim": 8}),
    # A cap this low bends every logit, so that forgetting it cannot go unseen.
    "gemma2": (Gemma2ForCausalLM, Gemma2Config, {"head_dim": 8, "final_logit_softcapping": 0.05, "sliding_window": 8}),
    "gemma3": (Gemma3ForConditionalGeneration, seeing, {"head_dim": 8, "sliding_window": 8}),
    "gemma3_text": (Gemma3ForCausalLM, Gemma3TextConfig, {"head_dim": 8, "sliding_window": 8}),
}


@cache
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with a few merges, 260 entries, and no special token at all."""
    entries = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = [("Ġ", "r"), ("e", "d"), ("Ġr", "ed"), ("Ġ", "b")]
    entries |= {"".join(pair): len(entries) + index for index, pair in enumerate(merges)}
    return wrapped(models.BPE(vocab=entries, merges=merges))


def wrapped(model: models.BPE, *, by_bytes: bool = True) -> PreTrainedTokenizerFast:
    """A transformers tokenizer around a bare BPE model."""
    bare = Tokenizer(model)
    if by_bytes:
        bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        bare.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=bare)


def tiny_base(
    family: str = "llama", *, seed: int = 0, hidden: int = 32, vocab_size: int = 264, layers: int = 2
) -> PreTrainedModel:
    """A random model, frozen and in eval mode; ``hidden`` must be a multiple of 16."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if family == "gpt2":
            model = GPT2LMHeadModel(
                GPT2Config(
                    vocab_size=vocab_size,
                    n_embd=hidden,
                    n_layer=layers,
                    n_head=4,
                    n_positions=128,
                    initializer_range=SPREAD,
                )
            )
        elif family == "opt":
            # word_embed_proj_dim differs from hidden_size, as in OPT-350M: the decoder projects in and out.
            model = OPTForCausalLM(
                OPTConfig(
                    vocab_size=vocab_size,
                    hidden_size=hidden,
                    word_embed_proj_dim=16,
                    ffn_dim=2 * hidden,
                    num_hidden_layers=layers,
                    num_attention_heads=4,
                    max_position_embeddings=128,
                    init_std=SPREAD,
                )
            )
        else:
            make, config_of, more = FAMILIES[family]
            model = make(
                config_of(
                    vocab_size=vocab_size,
                    hidden_size=hidden,
                    intermediate_size=2 * hidden,
                    num_hidden_layers=layers,
                    num_attention_heads=4,
                    num_key_value_heads=2,
                    max_position_embeddings=128,
                    initializer_range=SPREAD,
                    **more,
                )
            )
    model.requires_grad_(requires_grad=False)
    model.eval()
    return model


def tiny_lora(
    family: str = "llama",
    *,
    seed: int = 0,
    dropout: float = 0.0,
    hidden: int = 32,
    vocab_size: int = 264,
    spread: float = 0.0,
) -> PeftModel:
    """``tiny_base`` with LoRA of rank 4; ``spread`` > 0 draws the B matrices, so that LoRA already says something."""
    base = tiny_base(family, seed=seed, hidden=hidden, vocab_size=vocab_size)
    model = add_lora(base, rank=4, alpha=8, dropout=dropout, targets=None, seed=seed)
    if spread:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    weight.copy_(spread * torch.randn(weight.shape, generator=generator))
    model.eval()
    return model


def tiny_directory(folder: Path, family: str = "llama", *, seed: int = 0, **saving: Any) -> Path:  # noqa: ANN401
    """Write a tiny model with its tokenizer to ``folder``, in Hugging Face format; ``saving`` goes to its writer."""
    tiny_base(family, seed=seed).save_pretrained(folder, **saving)
    tiny_tokenizer().save_pretrained(folder)
    return folder
