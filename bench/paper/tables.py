"""From outcomes to the rows of the tables: means, spreads, and differences to FedCoLLM on the same items."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.paper.cells import Outcome
from bench.paper.config import Experiment
from bench.paper.methods import ZERO_SHOT, ModelRole, methods_of
from bench.paper.statistics import Difference, difference

OURS = "fedcollm"
PRIVATE_END = "FedCoLLM, ended on a private round"
"""The last round's mean, before co-tuning: one that nobody co-tuned would have published it."""
AGGREGATED = "slm_aggregated"
AUXILIARY_ALONE = "lambda-0"
"""Without the KL terms the LLM learns from D_a and nothing else."""


@dataclass(frozen=True)
class Row:
    """One method, in per cent.

    accuracy, spread: mean and standard deviation over seeds (0 for one); of Standalone a seed's is its clients' mean.
    accuracy_norm: the mean of lm-eval's ``acc_norm``.
    aggregated: of the last round's mean, before co-tuning; None where that is what is published.
    ours_minus_it: FedCoLLM against it; None in FedCoLLM's own row, and where FedCoLLM was not run.
    """

    title: str
    accuracy: float
    spread: float
    accuracy_norm: float
    by_seed: tuple[float, ...]
    loss: float
    aggregated: float | None
    ours_minus_it: Difference | None

    @property
    def text(self) -> str:
        """The accuracy as tables show it; one seed has no spread."""
        return f"{self.accuracy:.1f}" + (f" ± {self.spread:.1f}" if len(self.by_seed) > 1 else "")


def rows(experiment: Experiment, outcomes: Sequence[Outcome], role: ModelRole) -> list[Row]:
    """Return the table of one of the two models, as far as the methods have it."""
    found = []
    our_own = _of(outcomes, OURS, role)
    ours = _stacked(our_own, role) if our_own else None
    for name, method in methods_of(experiment).items():
        its = _of(outcomes, name, role)
        if not its or (role == "llm" and method.trains == "slm" and not _learns(its)):
            continue
        title = "D_a alone" if role == "llm" and name == AUXILIARY_ALONE else method.title
        found.append(_row(title, its, role, None if name == OURS else ours))
        if name == OURS and role == "slm":
            found.append(_row(PRIVATE_END, its, AGGREGATED, ours))
    return found


def _row(title: str, its: Sequence[Outcome], model: str, ours: NDArray[np.int8] | None) -> Row:
    """Return the row of one method's models, against ``ours`` where that is something else."""
    by_seed = [100 * value for value in _by_seed(its, model)]
    aggregated = [100 * one.measured[AGGREGATED].accuracy for one in its if AGGREGATED in one.measured]
    return Row(
        title=title,
        accuracy=statistics.mean(by_seed),
        spread=statistics.stdev(by_seed) if len(by_seed) > 1 else 0.0,
        accuracy_norm=100 * statistics.mean(one.measured[model].accuracy_norm for one in its),
        by_seed=tuple(by_seed),
        loss=statistics.mean(one.measured[model].loss for one in its),
        aggregated=statistics.mean(aggregated) if aggregated and model == "slm" else None,
        ours_minus_it=None if ours is None else difference(ours, _stacked(its, model)),
    )


def _of(outcomes: Sequence[Outcome], method: str, role: ModelRole) -> list[Outcome]:
    return [one for one in outcomes if one.method == method and role in one.measured]


def _learns(its: Sequence[Outcome]) -> bool:
    return any(AGGREGATED in one.measured for one in its) or its[0].method == ZERO_SHOT


def _stacked(its: Sequence[Outcome], model: str) -> NDArray[np.int8]:
    return np.array([[int(right) for right in one.measured[model].correct] for one in its], dtype=np.int8)


def _by_seed(its: Sequence[Outcome], model: str) -> Iterator[float]:
    seeds = sorted({one.seed for one in its})
    for seed in seeds:
        yield statistics.mean(one.measured[model].accuracy for one in its if one.seed == seed)


@dataclass(frozen=True)
class Traffic:
    """What one client of a method sends and fetches in a round; parameters of what travels and of what stays."""

    title: str
    parameters: int
    base_parameters: int
    adapter_bytes: int
    sent_bytes: float
    fetched_bytes: float


def traffic(experiment: Experiment, outcomes: Sequence[Outcome]) -> list[Traffic]:
    """Return the communication table: bytes that left an agent, as its ledger counts them, and of adapters it fetched.

    Means over agents, seeds and rounds.
    """
    found = []
    for name, method in methods_of(experiment).items():
        its = [one for one in outcomes if one.method == name and one.adapter is not None and len(one.agents) > 1]
        if not its or its[0].adapter is None:
            continue
        sent = [agent.sent_bytes / one.rounds for one in its for agent in one.traffic.values()]
        fetched = [agent.fetched_bytes / one.rounds for one in its for agent in one.traffic.values()]
        found.append(
            Traffic(
                title=method.title,
                parameters=its[0].adapter.parameters,
                base_parameters=its[0].measured["slm"].base_parameters,
                adapter_bytes=its[0].adapter.bytes,
                sent_bytes=statistics.mean(sent),
                fetched_bytes=statistics.mean(fetched),
            )
        )
    return found


def steps(outcomes: Sequence[Outcome]) -> Mapping[str, tuple[int, ...]]:
    """Return by method how many optimiser steps a client made on its private data: one number, if all made as many."""
    by_method: dict[str, set[int]] = {}
    for one in outcomes:
        private = [count for agent, count in one.steps.items() if agent.startswith("client")]
        by_method.setdefault(one.method, set()).update(private)
    return {method: tuple(sorted(counts)) for method, counts in by_method.items() if counts}
