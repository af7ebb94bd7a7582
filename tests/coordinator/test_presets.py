from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM

from services.coordinator.presets import PRESETS, preset_terms, read_terms
from shared.errors import ConfigurationError
from shared.ml.adapters import adapter_layout
from shared.ml.models import add_lora
from shared.protocol.tensors import parameter_count
from shared.protocol.terms import LoraTerms

PAPER = ("paper-gpt2", "paper-opt", "paper-llama2")

# Of the SLMs' config.json, what decides the shapes.
SHAPES: dict[str, Any] = {
    "paper-gpt2": lambda: GPT2LMHeadModel(GPT2Config(n_embd=768, n_layer=12, n_head=12)),
    "paper-opt": lambda: OPTForCausalLM(
        OPTConfig(
            hidden_size=2048, num_hidden_layers=24, ffn_dim=8192, num_attention_heads=32, word_embed_proj_dim=2048
        )
    ),
    "paper-llama2": lambda: LlamaForCausalLM(
        LlamaConfig(hidden_size=2048, num_hidden_layers=24, intermediate_size=5504, num_attention_heads=16)
    ),
}


def write(folder: Path, text: str) -> Path:
    file = folder / "run.toml"
    file.write_text(text)
    return file


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_runs_terms(name: str, tmp_path: Path):
    """By name, and as a file that says nothing else."""
    terms = preset_terms(name)
    assert terms.name == name
    assert read_terms(write(tmp_path, f'preset = "{name}"')) == terms


@pytest.mark.parametrize(("name", "count"), list(zip(PAPER, (294_912, 3_145_728, 3_145_728), strict=True)))
def test_the_papers_presets_give_the_parameters_of_its_table_2(name: str, count: int):
    """0.29, 3.15 and 3.15 million, each agent's message of a round."""
    lora = preset_terms(name).slm_lora
    with torch.device("meta"):
        base = SHAPES[name]()
    model = add_lora(base, rank=lora.rank, alpha=lora.alpha, dropout=lora.dropout, targets=lora.targets, seed=0)
    assert parameter_count(adapter_layout(model)) == count


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_presets_are_the_papers(name: str):
    """No gate, no weighting, every client in every round; what FedMKT's appendix gives is as there."""
    terms = preset_terms(name)
    assert (terms.llm, terms.slm) == {
        "paper-gpt2": ("gpt2-large", "gpt2"),
        "paper-opt": ("facebook/opt-6.7b", "facebook/opt-1.3b"),
        "paper-llama2": ("meta-llama/Llama-2-7b-hf", "princeton-nlp/Sheared-LLaMA-1.3B"),
    }[name]
    assert not terms.gate.enabled
    assert (terms.weighting, terms.rounds) == ("unweighted", 10)
    assert terms.cohort.min_count == terms.cohort.max_count == 4
    assert terms.llm_lora == terms.slm_lora == LoraTerms(rank=8, alpha=16, dropout=0.05, targets=None)
    assert (terms.training.epochs, terms.training.batch_size) == (1, 4)
    assert (terms.cotuning.passes, terms.cotuning.batch_size, terms.cotuning.distillation_weight) == (1, 4, 1.0)
    optimisers = (terms.training.optimiser, terms.cotuning.llm_optimiser, terms.cotuning.slm_optimiser)
    assert {(one.beta1, one.beta2, one.weight_decay, one.clip_norm) for one in optimisers} == {(0.9, 0.95, 0.1, 1.0)}
    assert {one.learning_rate for one in optimisers} == {3e-4 if name == "paper-gpt2" else 3e-5}


def test_what_a_file_says_wins_over_its_preset_one_value_at_a_time(tmp_path: Path):
    """A table in the file changes what it names, and leaves the rest of the preset's table as it was."""
    file = write(
        tmp_path,
        """
        preset = "qwen"
        rounds = 3
        [training]
        max_tokens = 512
        [training.optimiser]
        learning_rate = 1e-5
        [slm_lora]
        targets = ["q_proj"]
        """,
    )
    terms, below = read_terms(file), preset_terms("qwen")
    assert (terms.rounds, terms.training.max_tokens) == (3, 512)
    assert terms.training.optimiser.learning_rate == 1e-5
    assert terms.training.optimiser.weight_decay == below.training.optimiser.weight_decay
    assert terms.slm_lora.targets == ("q_proj",)
    assert (terms.slm_lora.rank, terms.llm, terms.cotuning) == (below.slm_lora.rank, below.llm, below.cotuning)


def test_a_caller_can_change_a_preset_as_a_file_can():
    """Tables are merged; what is not named stays."""
    terms = preset_terms("demo", seed=9, cohort={"min_count": 4})
    assert (terms.seed, terms.cohort.min_count, terms.cohort.max_count) == (9, 4, 4)
    assert preset_terms("demo").seed != 9


def test_a_file_without_a_preset_says_everything(tmp_path: Path):
    """And what it does not say is named."""
    with pytest.raises(ConfigurationError, match=r"(?s)seed is missing: set it\n.*cotuning is missing"):
        read_terms(write(tmp_path, 'name = "x"\nllm = "a"\nslm = "b"\n'))


def test_a_model_that_is_a_folder_beside_the_file_is_found_from_anywhere(tmp_path: Path):
    """And a hub id stays one; what is mistyped beside a folder is no id."""
    (tmp_path / "models" / "llm").mkdir(parents=True)
    terms = read_terms(write(tmp_path, 'preset = "demo"\nllm = "models/llm"\nslm = "org/slm"'))
    assert (terms.llm, terms.slm) == (str(tmp_path / "models" / "llm"), "org/slm")
    terms = read_terms(write(tmp_path, 'preset = "demo"\nllm = "models/lm"'))
    assert terms.llm == str(tmp_path / "models" / "lm")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('preset = "qwn"', r"run\.toml: there is no preset 'qwn': 'qwen' was meant\? There are demo, smollm2, qwen, "),
        ('preset = "zzz"', r"there is no preset 'zzz': correct it. There are demo, smollm2, qwen, paper"),
        ("preset = 3", "there is no preset '3'"),
        ("preset = []", r"there is no preset '\[\]'"),
        ('prest = "qwen"', r"run\.toml cannot be used:\n  prest is no setting: 'preset' was meant\?"),
        ('preset = "qwen"\n[training]\nbatchsize = 4', r"training\.batchsize is no setting: 'batch_size' was meant\?"),
        ('preset = "qwen"\n[training.optimiser]\nlr = 1', r"training\.optimiser\.lr is no setting: there are beta1"),
        ('preset = "qwen"\nrounds = 0', "rounds: Input should be greater than or equal to 1"),
        ('preset = "qwen"\n[cohort]\nmax_count = 1', "the minimum count or time of a cohort is above its maximum"),
        ('preset = "qwen', "is not TOML"),
    ],
)
def test_a_file_that_cannot_be_used_says_where_and_what_was_meant(text: str, told: str, tmp_path: Path):
    """Which setting, as its operator wrote it, and what there is."""
    with pytest.raises(ConfigurationError, match=told):
        read_terms(write(tmp_path, text))


def test_a_preset_that_is_not_there_is_told_to_callers_too():
    """As in a file."""
    with pytest.raises(ConfigurationError, match="there is no preset 'smollm': 'smollm2' was meant"):
        preset_terms("smollm")
