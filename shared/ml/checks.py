"""Checks that need the models' libraries, for `doctor`."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoConfig, PreTrainedConfig

from shared.data.examples import Example, read_examples
from shared.data.source import DataSource
from shared.errors import LoraTargetMissing, ModelUnreadable
from shared.findings import Finding, failed, ok, warning
from shared.ml.digests import base_model_digest
from shared.ml.digests import tokenizer_digest as digest_of_tokenizer
from shared.ml.encoding import encode_examples
from shared.ml.hub import model_directory
from shared.ml.models import load_tokenizer, lora_targets, pick_device
from shared.protocol.terms import TaskTerms

# No text of anybody is as long as this: how long the longest is, is what is asked.
NO_LIMIT = 1 << 40


def base_model(path: str) -> Finding:
    """Check configuration, tokenizer and family of a base model."""
    config = _config(path)
    tokenizer = load_tokenizer(path)
    detail = f"{path}: {config.model_type}, {len(tokenizer)} tokens in its tokenizer"
    try:
        lora_targets(config.model_type)
    except LoraTargetMissing:
        return warning(
            f"{detail}; where LoRA goes in this family is not known",
            "the run's terms must name slm_lora.targets (llm_lora.targets): tell the operator",
        )
    return ok(detail)


def weights(path: str, cache: Path | None) -> Finding:
    """Check that all weights are there as safetensors, and say by which digest a run knows this model."""
    return ok(base_model_digest(path, cache=cache))


def other_model(path: str, *, tokenizer_digest: str, base_digest: str, cache: Path | None) -> str | None:
    """Say in what the base model is not the one that a run was made for, if it is not."""
    for what, actual, expected in (
        ("tokenizer", digest_of_tokenizer(load_tokenizer(path)), tokenizer_digest),
        ("base model", base_model_digest(path, cache=cache), base_digest),
    ):
        if actual != expected:
            return f"the {what} of {path} is {actual}, and the run's is {expected}"
    return None


def same_tokenizer(llm: str, slm: str) -> Finding:
    """Check that the two models of a pair can be compared."""
    if digest_of_tokenizer(load_tokenizer(llm)) != digest_of_tokenizer(load_tokenizer(slm)):
        return failed(f"{llm} and {slm} do not share a tokenizer", "choose a pair of one family")
    return ok("the two models share it")


def data(source: DataSource, task: TaskTerms, model: str, *, max_tokens: int | None = None) -> Finding:
    """Check that examples can be read and turned into tokens; ``max_tokens`` is a run's limit."""
    examples = read_examples(source, task)
    encoded = encode_examples(
        load_tokenizer(model), examples, max_tokens=max_tokens or NO_LIMIT, too_long=task.too_long
    )
    longest = max(len(one.token_ids) for one in encoded)
    detail = f"{len(examples)} examples in {source.path}, the longest {longest} tokens"
    context = getattr(_config(model).get_text_config(), "max_position_embeddings", None)
    if context is not None and longest > context:
        return failed(f"{detail}, and {model} takes {context}", "shorten the texts, or choose a model that takes more")
    return ok(detail)


def no_overlap(auxiliary: DataSource, validation: DataSource, task: TaskTerms) -> Finding:
    """Check that nothing is both learnt from and measured on."""
    learnt, measured = read_examples(auxiliary, task), read_examples(validation, task)
    both = len(_contents(learnt) & _contents(measured))
    if both:
        return warning(
            f"{both} example(s) are in both {auxiliary.path} and {validation.path}",
            "remove them from one of the two: accuracy is measured on what was learnt by heart",
        )
    return ok("no example is in both")


def device(name: str) -> Finding:
    """Check that this machine has the device."""
    picked = pick_device(name)
    if picked.type == "cuda":
        return ok(f"{picked}: {torch.cuda.get_device_name(picked)}")
    return ok(f"{picked}{' (auto: no CUDA device is seen)' if name == 'auto' else ''}")


def _contents(examples: Sequence[Example]) -> set[tuple[str, str]]:
    return {(one.prompt, one.choices[one.answer]) for one in examples}


def _config(path: str) -> PreTrainedConfig:
    directory = model_directory(path)
    try:
        return AutoConfig.from_pretrained(directory, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelUnreadable(f"{path!r} has no config.json that can be read: fetch the model again") from error
