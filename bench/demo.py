"""The demo task over several seeds, with the controls that a claim needs: ``python -m bench.demo``.

Every method is a run of the same engine, in memory: FedCoLLM; lambda = 0; FedAvg (no co-tuning passes); FedAvg with
the auxiliary set as a fifth client; and Standalone, a federation of one agent, four times. Each agent makes the same
number of optimiser steps on its private data in all of them. The gate is off, so that none repeats a round.
"""

import argparse
import asyncio
import json
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog
import torch
import transformers

from bench.federation import ManualClock, open_federation
from bench.no_op import InProcess
from examples.demo.preset import (
    AGENTS,
    AUXILIARY_ITEMS,
    EVALUATION_ITEMS,
    ITEMS_AN_AGENT,
    MODELS,
    VALIDATION_ITEMS,
    demo_terms,
)
from examples.demo.task import write_demo_data
from services.client_agent.lora_trainer import LoraTrainer
from services.coordinator.worker.model_pair import ModelPair
from shared.data.source import DataSource
from shared.protocol.messages import RoundScores
from shared.protocol.terms import CohortTerms, CotuningTerms, GateTerms, RunTerms

AUXILIARY = "auxiliary"
NEEDED_OVER_ZERO_SHOT, NEEDED_OVER_STANDALONE, NEEDED_OF_LLM = 10.0, 3.0, 5.0


@dataclass(frozen=True)
class Outcome:
    """What a method gave under one seed: accuracies in per cent, None where a model was not tuned."""

    method: str
    slm: float
    slm_aggregated: float | None = None
    llm: float | None = None


def terms(seed: int, agents: int, **cotuning: float) -> RunTerms:
    """Return the demo's terms for this many agents, with other co-tuning settings.

    One agent alone has nobody to hide among, so that updates are readable in all of them.
    """
    base = demo_terms(seed)
    return base.model_copy(
        update={
            "cohort": CohortTerms(min_count=agents, max_count=agents, min_seconds=1, max_seconds=60),
            "cotuning": CotuningTerms.model_validate(base.cotuning.model_dump() | cotuning),
            "gate": GateTerms(enabled=False),
            "aggregation": "PlaintextAggregation",
            "evaluation_examples": 0,
        }
    )


async def run(folder: Path, data: Path, agents: Sequence[str], run_terms: RunTerms) -> tuple[float, float, RoundScores]:
    """Run a federation of ``agents`` and return the accuracies of SLM and LLM before it, and its last scores."""
    trainers = {
        name: InProcess(
            LoraTrainer(
                slm=run_terms.slm,
                data=DataSource(path=data / f"{name}.jsonl"),
                device="cpu",
                dtype="float32",
                digest_cache=folder / "digests.json",
            )
        )
        for name in agents
    }
    pair = ModelPair(
        auxiliary=DataSource(path=data / "auxiliary.jsonl"),
        validation=DataSource(path=data / "validation.jsonl"),
        device="cpu",
        dtype="float32",
        digest_cache=folder / "digests.json",
    )
    async with open_federation(folder, trainers, pair, ManualClock()) as federation:
        await federation.start("bench", run_terms)
        view = await federation.finish("bench")
        last = (await federation.rounds("bench")).rounds[-1].scores
    if last is None or view.base_scores is None:
        raise RuntimeError(f"the run has {view.state}: {view.reason}")
    return 100 * view.base_scores.slm.accuracy, 100 * view.base_scores.llm.accuracy, last


async def outcomes(seed: int, folder: Path) -> list[Outcome]:
    """Return what every method gives under one seed."""
    data = folder / "data"
    write_demo_data(
        data,
        seed=seed,
        items_per_agent=ITEMS_AN_AGENT,
        evaluation_items=EVALUATION_ITEMS,
        auxiliary_items=AUXILIARY_ITEMS,
        validation_items=VALIDATION_ITEMS,
    )
    rows = []

    async def federate(method: str, agents: Sequence[str], **cotuning: float) -> tuple[float, float, RoundScores]:
        started = time.perf_counter()
        result = await run(folder / method, data, agents, terms(seed, len(agents), **cotuning))
        print(f"  seed {seed}: {method} in {time.perf_counter() - started:.0f} s", flush=True)
        return result

    slm_before, llm_before, scores = await federate("FedCoLLM", AGENTS)
    rows += [Outcome("zero-shot", slm_before, llm=llm_before), _outcome("FedCoLLM", scores, cotuned=True)]
    rows.append(_outcome("lambda = 0", (await federate("lambda-0", AGENTS, distillation_weight=0))[2], cotuned=True))
    rows.append(_outcome("FedAvg", (await federate("FedAvg", AGENTS, passes=0))[2], cotuned=False))
    five = (*AGENTS, AUXILIARY)
    rows.append(_outcome("FedAvg with D_a", (await federate("FedAvg-with-D_a", five, passes=0))[2], cotuned=False))
    alone = [100 * (await federate(f"alone-{name}", [name], passes=0))[2].slm.accuracy for name in AGENTS]
    rows.append(Outcome("Standalone (mean)", statistics.mean(alone)))
    return rows


def _outcome(method: str, scores: RoundScores, *, cotuned: bool) -> Outcome:
    aggregated, slm, llm = (100 * score.accuracy for score in (scores.slm_aggregated, scores.slm, scores.llm))
    return Outcome(method, slm, aggregated if cotuned else None, llm if cotuned else None)


def report(by_seed: Mapping[int, Sequence[Outcome]]) -> list[str]:
    """Return the table and the margins as lines."""
    columns = ("slm_aggregated", "slm", "llm")
    lines = [f"{'method':<20}{'SLM aggregated':>16}{'SLM':>8}{'LLM':>8}   SLM (LLM) by seed"]
    means: dict[str, dict[str, float]] = {}
    for rows in zip(*by_seed.values(), strict=True):
        values = {column: [asdict(row)[column] for row in rows] for column in columns}
        mean = {column: statistics.mean(found) for column, found in values.items() if None not in found}
        means[rows[0].method] = mean
        cells = (f"{mean[column]:.1f}" if column in mean else "" for column in columns)
        seeds = "  ".join(f"{row.slm:.1f}" + (f" ({row.llm:.1f})" if row.llm is not None else "") for row in rows)
        lines.append("{:<20}{:>16}{:>8}{:>8}   {}".format(rows[0].method, *cells, seeds))
    lines.append(
        "the LLM on D_a alone is the LLM of lambda = 0: without the KL terms it learns from D_a and nothing else"
    )
    ours, zero = means["FedCoLLM"], means["zero-shot"]
    for what, margin, needed in (
        ("SLM over zero-shot", ours["slm"] - zero["slm"], NEEDED_OVER_ZERO_SHOT),
        ("SLM over Standalone", ours["slm"] - means["Standalone (mean)"]["slm"], NEEDED_OVER_STANDALONE),
        ("LLM over zero-shot", ours["llm"] - zero["llm"], NEEDED_OF_LLM),
    ):
        lines.append(f"{what:<20} {margin:+.1f} points, {needed:g} wanted: {'held' if margin >= needed else 'MISSED'}")
    return lines


def main() -> None:
    """Run all methods over the seeds and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.demo", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, help="write the outcomes as JSON too")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    torch.set_num_threads(1)
    by_seed = {}
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as folder:
            by_seed[seed] = asyncio.run(outcomes(seed, Path(folder)))
    print(f"{VALIDATION_ITEMS} validation items a seed; models in {MODELS.name}/")
    print("\n".join(report(by_seed)))
    if arguments.out:
        content = {seed: [asdict(row) for row in rows] for seed, rows in by_seed.items()}
        arguments.out.write_text(json.dumps(content, indent=2))


if __name__ == "__main__":
    main()
