"""An operator's terms: from a TOML file, from a preset, or from a file above a preset.

A preset is a set of terms by name. Whatever a file or a caller says wins over it, one value at a time.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shared.configuration import merged, read_toml, validate
from shared.errors import ConfigurationError
from shared.meant import meant
from shared.protocol.terms import RunTerms


def read_terms(path: Path) -> RunTerms:
    """Return the terms that a file says, above those of the preset that it names, where it names one.

    Raises:
        ConfigurationError: there is no such file or preset, or it says something that terms cannot be.
    """
    values = read_toml(RunTerms, path)
    known = ("preset", *RunTerms.model_fields)
    for name in values:
        if name not in known:
            hint = meant(name, known, otherwise=f"there are {', '.join(known)}")
            raise ConfigurationError(f"{path} cannot be used:\n  {name} is no setting: {hint}")
    below = _preset(values.pop("preset"), where=f"{path}: ") if "preset" in values else {}
    return validate(RunTerms, merged(below, values), what=str(path))


def preset_terms(name: str, **above: Any) -> RunTerms:  # noqa: ANN401 - terms differ in type
    """Return the terms of a preset, with others above them: tables are merged, as in a file.

    Raises:
        ConfigurationError: there is no such preset, or the terms cannot be.
    """
    return validate(RunTerms, merged(_preset(name), above), what=f"the preset {name!r} with what is above it")


def _preset(name: object, where: str = "") -> Mapping[str, Any]:
    if not isinstance(name, str) or name not in PRESETS:
        hint = meant(str(name), PRESETS, otherwise="correct it.")
        raise ConfigurationError(f"{where}there is no preset {str(name)!r}: {hint} There are {', '.join(PRESETS)}.")
    return PRESETS[name]


def _optimiser(learning_rate: float, weight_decay: float = 0.0) -> dict[str, float]:
    """AdamW with beta 0.9 and 0.95 and clipping at 1: FedMKT (arXiv 2406.02224), appendix D.1."""
    return {
        "learning_rate": learning_rate,
        "beta1": 0.9,
        "beta2": 0.95,
        "weight_decay": weight_decay,
        "clip_norm": 1.0,
    }


def _paper(llm: str, slm: str, learning_rate: float) -> dict[str, Any]:
    """The settings of FedCoLLM (arXiv 2411.11707v1), whose text gives no hyperparameters.

    Rank 8, and with it the targets (none named: the family's attention projections), follow from the parameter counts
    of its Table 2. Alpha 16, dropout 0.05, AdamW, weight decay 0.1, batch 4, E = 1, R = 1 and at most 10 rounds are
    FedMKT's (arXiv 2406.02224, appendix D.1): the same authors and models. FedMKT's lambda of 0.9 weighs another sum,
    0.9 CE + 0.1 KD; Eq. 6 is CE + lambda KL, and 1 is the default of the authors' own code for it (FATE-LLM's
    ``distill_lambda``). Two more of FedMKT's numbers are not taken. A warm-up (its ratio is .008) has no place where
    the rate is constant and AdamW begins anew each round, as terms have it (design, round step 4). 2e-5 for the LLM on
    ARC-E is one data set's, and a preset has none: who tunes on that says so in a file. Every client takes part in
    every round, as in Algorithm 1. Neither paper says how long a text may be, or how long a round: those are ours.
    """
    lora = {"rank": 8, "alpha": 16, "dropout": 0.05}
    optimiser = _optimiser(learning_rate, weight_decay=0.1)
    return {
        "llm": llm,
        "slm": slm,
        "seed": 1,
        "rounds": 10,
        "llm_lora": lora,
        "slm_lora": lora,
        "training": {"epochs": 1, "batch_size": 4, "optimiser": optimiser, "max_tokens": 256},
        "cotuning": {
            "passes": 1,
            "batch_size": 4,
            "distillation_weight": 1.0,
            "llm_optimiser": optimiser,
            "slm_optimiser": optimiser,
        },
        "cohort": {"min_count": 4, "max_count": 4, "min_seconds": 0, "max_seconds": 86_400},
        "gate": {"enabled": False},  # the paper has none
    }


def _pair(llm: str, slm: str) -> dict[str, Any]:
    """A pair of one family for one machine each: as above, at the rate and for the time that ours were tried with.

    A round goes on with three agents of four after ten minutes, and the gate is on.
    """
    return merged(
        _paper(llm, slm, learning_rate=3e-4),
        {
            "rounds": 5,
            "cohort": {"min_count": 3, "max_count": 4, "min_seconds": 600, "max_seconds": 7200},
            "gate": {"enabled": True, "tolerance": 0.02},
        },
    )


PRESETS: Mapping[str, Mapping[str, Any]] = {
    # What `make demo` runs, on the models that this repository ships: chosen by trying (docs/adr/0009).
    "demo": {
        "name": "demo",
        "llm": "examples/demo/models/llm",  # where a worker starts in a clone
        "slm": "examples/demo/models/slm",
        "seed": 1,
        "task": {"template": "{question}"},
        "rounds": 4,
        "slm_lora": {"rank": 8, "alpha": 16, "dropout": 0.05},
        "llm_lora": {"rank": 8, "alpha": 16, "dropout": 0.05},
        "training": {"epochs": 4, "batch_size": 4, "optimiser": _optimiser(3e-3), "max_tokens": 96},
        "cotuning": {
            "passes": 2,
            "batch_size": 4,
            "distillation_weight": 1.0,
            "llm_optimiser": _optimiser(7e-4),
            "slm_optimiser": _optimiser(7e-4),
        },
        # Three of four are enough once half a minute has passed: one agent may disappear.
        "cohort": {"min_count": 3, "max_count": 4, "min_seconds": 30, "max_seconds": 90},
        "gate": {"enabled": True, "tolerance": 0.05},
    },
    # SmolLM2 (arXiv 2502.02737): one tokenizer of 49,152 entries in all sizes; runs on a CPU.
    "smollm2": {"name": "smollm2"} | _pair("HuggingFaceTB/SmolLM2-360M", "HuggingFaceTB/SmolLM2-135M"),
    # Qwen2.5 (arXiv 2412.15115): one tokenizer in all sizes.
    "qwen": {"name": "qwen"} | _pair("Qwen/Qwen2.5-1.5B", "Qwen/Qwen2.5-0.5B"),
    # FedCoLLM's three settings. FedMKT's rates: 3e-4 for GPT-2 (its xl), 3e-5 for OPT and LLaMA-2.
    "paper-gpt2": {"name": "paper-gpt2"} | _paper("gpt2-large", "gpt2", 3e-4),
    "paper-opt": {"name": "paper-opt"} | _paper("facebook/opt-6.7b", "facebook/opt-1.3b", 3e-5),
    "paper-llama2": {"name": "paper-llama2"}
    | _paper("meta-llama/Llama-2-7b-hf", "princeton-nlp/Sheared-LLaMA-1.3B", 3e-5),
}
