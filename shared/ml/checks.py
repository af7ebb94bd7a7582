"""Checks that need the models' libraries, for `doctor`."""

from collections.abc import Sequence
from pathlib import Path

import torch

from shared.data.examples import Example, read_examples
from shared.data.source import DataSource
from shared.devices import DtypeName
from shared.errors import LoraTargetMissing
from shared.findings import Finding, failed, ok, warning
from shared.ml.checkpoint import context_length
from shared.ml.digests import base_model_digest
from shared.ml.digests import tokenizer_digest as digest_of_tokenizer
from shared.ml.encoding import Encoded, EncodedChoices, encode_choices, encode_examples
from shared.ml.free_memory import free_bytes
from shared.ml.memory import (
    Estimate,
    estimate,
    estimate_pair,
    evaluation_batches,
    largest_batch,
    require_memory,
)
from shared.ml.models import load_tokenizer, lora_targets, pick_device, read_configuration, require_context
from shared.protocol.terms import LoraTerms, RunTerms, TaskTerms

# No text of anybody is as long as this: how long the longest is, is what is asked.
NO_LIMIT = 1 << 40


def base_model(path: str) -> Finding:
    """Check configuration, tokenizer and family of a base model."""
    config = read_configuration(path)
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


def context(path: str, max_tokens: int) -> Finding:
    """Check that a run's texts fit into what a base model takes in, as whoever loads it will."""
    require_context(read_configuration(path).to_dict(), name=path, max_tokens=max_tokens)
    return ok(f"{path} takes texts of {max_tokens} tokens")


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
    encoded = _encoded(source, task, model, max_tokens)
    longest = max(len(one.token_ids) for one in encoded)
    detail = f"{len(encoded)} examples in {source.path}, the longest {longest} tokens"
    takes = context_length(read_configuration(model).to_dict())
    if takes is not None and longest > takes:
        return failed(f"{detail}, and {model} takes {takes}", "shorten the texts, or choose a model that takes more")
    return ok(detail)


def no_overlap(learnt: DataSource, measured: DataSource, task: TaskTerms) -> Finding:
    """Check that nothing is both learnt from and measured on."""
    both = len(_contents(read_examples(learnt, task)) & _contents(read_examples(measured, task)))
    if both:
        return warning(
            f"{both} example(s) are in both {learnt.path} and {measured.path}",
            "remove them from one of the two: accuracy is measured on what was learnt by heart",
        )
    return ok("no example is in both")


def device(name: str) -> Finding:
    """Check that this machine has the device."""
    picked = pick_device(name)
    if picked.type == "cuda":
        return ok(f"{picked}: {torch.cuda.get_device_name(picked)}")
    return ok(f"{picked}{' (auto: no CUDA device is seen)' if name == 'auto' else ''}")


def memory_to_train(
    model: str,
    source: DataSource,
    evaluation: DataSource | None,
    task: TaskTerms,
    *,
    lora: LoraTerms,
    batch_size: int,
    max_tokens: int | None = None,
    dtype: DtypeName,
    gradient_checkpointing: bool,
    device: str,
) -> Finding:
    """Compare what an agent's training and evaluation will take with what is free, as the trainer will."""
    own = [] if evaluation is None else _encoded_choices(evaluation, task, model, max_tokens)
    picked = pick_device(device)
    needed = estimate(
        model,
        dtype=dtype,
        lora=lora,
        training=largest_batch(_encoded(source, task, model, max_tokens), batch_size),
        evaluation=evaluation_batches(own, picked),
        gradient_checkpointing=gradient_checkpointing,
    )
    return _fits(needed, picked)


def memory_to_cotune(
    terms: RunTerms,
    auxiliary: DataSource,
    validation: DataSource,
    *,
    dtype: DtypeName,
    gradient_checkpointing: bool,
    device: str,
) -> Finding:
    """Compare what both models will take with what is free, as the worker will."""
    limit = terms.training.max_tokens
    picked = pick_device(device)
    needed = estimate_pair(
        terms,
        _encoded(auxiliary, terms.task, terms.slm, limit),
        _encoded_choices(validation, terms.task, terms.slm, limit),
        dtype=dtype,
        gradient_checkpointing=gradient_checkpointing,
        device=picked,
    )
    return _fits(needed, picked)


def _fits(needed: Estimate, device: torch.device) -> Finding:
    require_memory(needed, device)
    return ok(f"about {needed.total_bytes / 1e9:.2f} GB, and {free_bytes(device) / 1e9:.2f} GB are free on {device}")


def _encoded(source: DataSource, task: TaskTerms, model: str, max_tokens: int | None) -> list[Encoded]:
    return encode_examples(
        load_tokenizer(model),
        read_examples(source, task),
        max_tokens=max_tokens or NO_LIMIT,
        too_long=task.too_long,
    )


def _encoded_choices(source: DataSource, task: TaskTerms, model: str, max_tokens: int | None) -> list[EncodedChoices]:
    return encode_choices(
        load_tokenizer(model),
        read_examples(source, task),
        max_tokens=max_tokens or NO_LIMIT,
        too_long=task.too_long,
    )


def _contents(examples: Sequence[Example]) -> set[tuple[str, str]]:
    return {(one.prompt, one.choices[one.answer]) for one in examples}
