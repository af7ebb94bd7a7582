"""What is compared, each method one or more runs of the same engine: who takes part, with which models and terms.

Every client makes the same number of optimiser steps on its private data in all of them: T rounds of E epochs at one
batch size. Centralized is the LLM with one party that has everybody's examples and the auxiliary set, at the LLM's own
learning rate: T times E epochs too, so that it makes as many steps as all parties together, in one round, because
nothing makes its optimiser begin anew.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from bench.data_settings import read_data_settings
from bench.paper.config import DataFiles, Experiment
from bench.paper.parties import AUXILIARY, CLIENTS, EVERYBODY
from services.coordinator.presets import preset_terms
from shared.configuration import merged
from shared.protocol.terms import SMALLEST_COHORT, RunTerms

ModelRole: TypeAlias = Literal["slm", "llm"]
ROLES: tuple[ModelRole, ...] = get_args(ModelRole)
NO_PASSES: Mapping[str, Any] = {"cotuning": {"passes": 0}}


@dataclass(frozen=True)
class Method:
    """A method of the tables.

    title: its name in the report.
    federations: the agents of each run that it takes.
    above: terms above the experiment's.
    trains: which of the two models the agents train.
    """

    title: str
    federations: tuple[tuple[str, ...], ...] = (CLIENTS,)
    above: Mapping[str, Any] = field(default_factory=dict)
    trains: ModelRole = "slm"


METHODS: Mapping[str, Method] = {
    "standalone": Method("Standalone", tuple((client,) for client in CLIENTS), NO_PASSES),
    "fedavg": Method("FedAvg", above=NO_PASSES),
    "fedavg-aux": Method("FedAvg, D_a as a fifth client", ((*CLIENTS, AUXILIARY),), NO_PASSES),
    "lambda-0": Method("FedCoLLM, lambda = 0", above={"cotuning": {"distillation_weight": 0}}),
    "fedcollm": Method("FedCoLLM", above={"cotuning": {"schedule": "simultaneous"}}),
    "fedcollm-sequential": Method("FedCoLLM, sequential", above={"cotuning": {"schedule": "sequential"}}),
    "centralized": Method("Centralized", ((EVERYBODY,),), NO_PASSES, trains="llm"),
}


ZERO_SHOT = "zero-shot"


@dataclass(frozen=True)
class Cell:
    """One run of one method under one seed: what is cached, and what runs beside others."""

    method: str
    agents: tuple[str, ...]
    seed: int

    @property
    def name(self) -> str:
        """Tell it apart from the others of an experiment."""
        alone = f"-{self.agents[0]}" if len(self.agents) == 1 else ""
        return f"{self.method}{alone}-{self.seed}"


def methods_of(experiment: Experiment) -> dict[str, Method]:
    """Return the experiment's methods by name, its variants of FedCoLLM last."""
    known: dict[str, Method] = {ZERO_SHOT: Method("Zero-shot", ())} | {
        name: METHODS[name] for name in experiment.methods
    }
    return known | {name: Method(name, above=above) for name, above in experiment.variants.items()}


def cells_of(experiment: Experiment) -> Iterator[Cell]:
    """Yield every run that the experiment takes, seed by seed."""
    yield Cell(ZERO_SHOT, (), 0)
    for seed in experiment.seeds:
        for name, method in methods_of(experiment).items():
            for agents in method.federations:
                yield Cell(name, agents, seed)


def terms_of(experiment: Experiment, cell: Cell, *, llm: Path, slm: Path) -> RunTerms:
    """Return the terms of a run; the gate is off unless the experiment says else, so that no round is repeated.

    An agent that is alone has nobody to hide among: its update is readable, and everybody else's is masked.

    Raises:
        ConfigurationError: the experiment's terms cannot be.
    """
    method, count = methods_of(experiment)[cell.method], max(1, len(cell.agents))
    below = merged({"gate": {"enabled": False}}, experiment.terms)
    above = merged(below, method.above)
    if isinstance(experiment.data, DataFiles):
        above["task"] = read_data_settings(experiment.data.settings)[1].model_dump()
    above |= {
        "seed": cell.seed,
        "cohort": {"min_count": count, "max_count": count, "min_seconds": 0, "max_seconds": 86_400},
        "aggregation": "SecureAggregation" if count >= SMALLEST_COHORT else "PlaintextAggregation",
        "evaluation_examples": 0,
    }
    terms = preset_terms(experiment.preset, llm=str(llm), slm=str(slm), **above)
    if method.trains == "llm":
        training = terms.training.model_copy(
            update={"optimiser": terms.cotuning.llm_optimiser, "epochs": terms.rounds * terms.training.epochs}
        )
        terms = terms.model_copy(
            update={"slm": terms.llm, "slm_lora": terms.llm_lora, "training": training, "rounds": 1}
        )
    if terms.cotuning.passes == 0:  # nobody needs the other model
        terms = terms.model_copy(update={"llm": terms.slm, "llm_lora": terms.slm_lora})
    return terms
