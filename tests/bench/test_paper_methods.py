"""Methods as runs of one engine: their terms, and the experiments that ship."""

from pathlib import Path
from typing import Any

import pytest

from bench.data_settings import EXAMPLES
from bench.paper.config import Experiment, read_experiment
from bench.paper.methods import METHODS, Cell, cells_of, terms_of
from shared.errors import ConfigurationError
from shared.protocol.terms import RunTerms

EXPERIMENTS = sorted((Path(__file__).parents[2] / "bench" / "experiments").glob("*.toml"))
DATA = {"settings": EXAMPLES / "arc.toml", "train": "train.jsonl", "validation": "dev.jsonl"}


def experiment(**changes: Any) -> Experiment:  # noqa: ANN401 - fields differ in type
    fields = {"title": "tiny", "llm": "llm", "slm": "slm", "seeds": [1, 2], "preset": "paper-gpt2"}
    return Experiment.model_validate(fields | {"data": DATA} | changes)


def terms(cell: Cell, **changes: Any) -> RunTerms:  # noqa: ANN401 - fields differ in type
    return terms_of(experiment(**changes), cell, llm=Path("llm"), slm=Path("slm"))


def cell(method: str, **changes: Any) -> Cell:  # noqa: ANN401 - fields differ in type
    return next(one for one in cells_of(experiment(**changes)) if one.method == method and one.seed in {0, 1})


@pytest.mark.parametrize("method", METHODS)
def test_all_methods_train_alike_on_private_data(method: str):
    """Rounds, epochs and batch size are the same, and so are the SLM's adapter and learning rate."""
    ours, its = terms(cell("fedcollm")), terms(cell(method))
    if method == "centralized":  # all of it in one round
        assert (its.rounds, its.training.epochs) == (1, ours.rounds * ours.training.epochs)
        assert its.training.batch_size == ours.training.batch_size
    else:
        assert (its.rounds, its.training, its.slm_lora) == (ours.rounds, ours.training, ours.slm_lora)


def test_controls_differ_from_fedcollm_in_what_they_are_named_for():
    """Lambda = 0 in lambda, FedAvg in its passes, the sequential one in its schedule, and nothing else."""
    ours = terms(cell("fedcollm"))
    for method, changes in (
        ("lambda-0", {"distillation_weight": 0}),
        ("fedcollm-sequential", {"schedule": "sequential"}),
        ("fedavg", {"passes": 0}),
    ):
        its = terms(cell(method))
        assert its.cotuning == ours.cotuning.model_copy(update=changes)
        assert its.cohort == ours.cohort


def test_updates_are_masked_where_there_is_somebody_to_hide_among():
    """Four clients and five are; one is alone."""
    assert terms(cell("fedcollm")).aggregation == "SecureAggregation"
    assert terms(cell("fedavg-aux")).cohort.min_count == 5
    assert terms(cell("standalone")).aggregation == "PlaintextAggregation"


def test_the_centralized_model_is_the_llm_at_its_own_rate():
    """With its adapter's shape, and on everybody's examples."""
    found = cell("centralized")
    above = {"cotuning": {"llm_optimiser": {"learning_rate": 0.5}}, "llm_lora": {"rank": 3}}
    its = terms(found, terms=above)
    assert (its.slm, its.slm_lora.rank, its.training.optimiser.learning_rate) == ("llm", 3, 0.5)
    assert found.agents == ("everybody",)


def test_a_variant_is_fedcollm_with_other_terms():
    """By the name that the experiment gives it, above the experiment's own terms."""
    changes: dict[str, Any] = {
        "methods": ("fedcollm",),
        "terms": {"rounds": 2},
        "variants": {"R = 3": {"cotuning": {"passes": 3}}},
    }
    its = terms(cell("R = 3", **changes), **changes)
    assert (its.rounds, its.cotuning.passes) == (2, 3)


def test_every_seed_runs_every_method():
    """The models as they came are measured once, and Standalone is a run for each client."""
    names = [one.name for one in cells_of(experiment())]
    assert len(names) == len(set(names)) == 1 + 2 * (4 + 6)


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_the_experiments_that_ship_can_be_run(file: Path):
    """Each method of each has terms."""
    found = read_experiment(file)
    for one in cells_of(found):
        terms_of(found, one, llm=Path("llm"), slm=Path("slm"))


def test_completions_are_not_compared(tmp_path: Path):
    """No answer of theirs is right or wrong as a whole."""
    file = tmp_path / "experiment.toml"
    data = f"[data]\nsettings='{EXAMPLES / 'dolly.toml'}'\ntrain='t'\n"
    file.write_text("title='t'\nllm='l'\nslm='s'\nseeds=[1]\npreset='demo'\n" + data)
    with pytest.raises(ConfigurationError, match=r"dolly\.toml is of completions"):
        read_experiment(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("preset = 'paper-gpt3'", "there is no preset 'paper-gpt3'"),
        ("preset = 'demo'", r"there is no file .*arc\.toml"),
        ("colour = 1", "title is missing"),
    ],
)
def test_a_file_that_is_no_experiment_says_why(tmp_path: Path, text: str, message: str):
    """All that is wrong is named."""
    file = tmp_path / "experiment.toml"
    whole = "title='t'\nllm='l'\nslm='s'\nseeds=[1]\n" + text + "\n[data]\nsettings='arc.toml'\ntrain='t'\n"
    file.write_text(whole if "preset" in text else text)
    with pytest.raises(ConfigurationError, match=message):
        read_experiment(file)
