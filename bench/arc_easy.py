"""A real pair on ARC-Easy: ``python -m bench.arc_easy --data DIR --llm DIR --slm DIR``.

Four agents, a worker and a coordinator as separate processes over HTTP. As in FedMKT's appendix D.2 the train file is
split at random into five equal parts with seed 123: four are the agents' private data, the fifth is the auxiliary set.
The dev file is the validation set. The files are ARC's own.
"""

import argparse
import asyncio
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

from bench.command_line import record, whole
from bench.data_settings import EXAMPLES, read_data_settings
from examples.demo.processes import LocalFederation, local_federation
from examples.demo.watching import Watched, watch
from shared.protocol.messages import RoundView, RunView, Score
from shared.protocol.rounds import RunState
from shared.protocol.terms import (
    CohortTerms,
    CotuningTerms,
    GateTerms,
    LoraTerms,
    OptimiserTerms,
    RunTerms,
    TrainingTerms,
)

AGENTS = ("agent-1", "agent-2", "agent-3", "agent-4")
AUXILIARY, VALIDATION = "auxiliary", "validation"
RUN_ID = "arc-easy"
SPLIT_SEED = 123


def split(data: Path, into: Path) -> dict[str, int]:
    """Write each party's file and return how many questions it has."""
    rows = (data / "ARC-Easy-Train.jsonl").read_text(encoding="utf-8").splitlines()
    random.Random(SPLIT_SEED).shuffle(rows)  # noqa: S311 - a split is no secret
    share = len(rows) // (len(AGENTS) + 1)
    parts = {
        party: rows[number * share : (number + 1) * share] for number, party in enumerate((*AGENTS, AUXILIARY))
    } | {VALIDATION: (data / "ARC-Easy-Dev.jsonl").read_text(encoding="utf-8").splitlines()}
    for party, part in parts.items():
        (into / f"{party}.jsonl").write_text("".join(f"{row}\n" for row in part), encoding="utf-8")
    return {party: len(part) for party, part in parts.items()}


def terms(llm: Path, slm: Path, *, rounds: int, seed: int) -> RunTerms:
    """Return the paper's LoRA and FedMKT's optimiser, but for the learning rates: these models are small."""
    lora = LoraTerms(rank=8, alpha=16, dropout=0.05)
    rate = OptimiserTerms(learning_rate=3e-4, beta1=0.9, beta2=0.95, weight_decay=0.1, clip_norm=1.0)
    return RunTerms(
        aggregation="PlaintextAggregation",
        name="ARC-Easy",
        llm=str(llm),
        slm=str(slm),
        seed=seed,
        rounds=rounds,
        task=read_data_settings(EXAMPLES / "arc.toml")[1],
        llm_lora=lora,
        slm_lora=lora,
        training=TrainingTerms(epochs=1, batch_size=4, optimiser=rate, max_tokens=256),
        cotuning=CotuningTerms(passes=1, batch_size=4, llm_optimiser=rate, slm_optimiser=rate),
        cohort=CohortTerms(min_count=4, max_count=4, min_seconds=0, max_seconds=7200),
        gate=GateTerms(enabled=False),
    )


async def start_everything(federation: LocalFederation, folder: Path, slm: Path, *, worker_threads: int) -> None:
    """Start the six processes; each reads ARC's own columns."""
    named = read_data_settings(EXAMPLES / "arc.toml")[0].model_dump(exclude_unset=True)
    columns = "\n".join(f"columns.{name} = {json.dumps(column)}" for name, column in named.items())
    agent, worker = folder / "agent.toml", folder / "worker.toml"
    agent.write_text(f"[data]\n{columns}\n")
    worker.write_text(f"threads = {worker_threads}\n[auxiliary]\n{columns}\n[validation]\n{columns}\n")
    await federation.start_coordinator()
    await federation.start_worker(
        [sys.executable, "-m", "services.coordinator.worker", "--config", str(worker)],
        auxiliary=folder / f"{AUXILIARY}.jsonl",
        validation=folder / f"{VALIDATION}.jsonl",
    )
    for name in AGENTS:
        await federation.start_agent(
            name,
            [sys.executable, "-m", "services.client_agent", "--config", str(agent)],
            slm=str(slm),
            data=folder / f"{name}.jsonl",
            allow_plaintext=True,
        )


async def run(folder: Path, run_terms: RunTerms, *, worker_threads: int) -> Watched:
    """Run to the end and return what was seen."""
    watched, shown = Watched(), 0

    def print_new() -> None:
        nonlocal shown
        for event in watched.followed.events[shown:]:
            print(f"{watched.seconds:7.0f} s  {event.kind} {json.dumps(event.detail)[:160]}", flush=True)
        shown = len(watched.followed.events)

    async with local_federation(folder, AGENTS) as federation:
        await start_everything(federation, folder, Path(run_terms.slm), worker_threads=worker_threads)
        async with federation.operator() as operator:
            await operator.call("PUT", f"/v1/runs/{RUN_ID}", RunView, body=run_terms)
            await operator.call("POST", f"/v1/runs/{RUN_ID}/start", RunView)
            await watch(federation, operator, RUN_ID, watched, print_new, terms=run_terms)
    return watched


def report(watched: Watched, examples: dict[str, int], command: list[str], load_before: float) -> dict[str, Any]:
    """Return what was measured, as JSON."""
    if (
        watched.followed.run is None
        or watched.followed.run.base_scores is None
        or watched.followed.run.state is not RunState.FINISHED
    ):
        raise RuntimeError(f"the run did not finish: {watched.followed.run}")
    base = watched.followed.run.base_scores
    return {
        "command": command,
        "cores": os.cpu_count(),
        "load_before": round(load_before, 2),
        "examples": examples,
        "terms": watched.followed.run.terms.model_dump(mode="json", exclude={"llm", "slm"}),
        "zero_shot": {"slm": _plain(base.slm), "llm": _plain(base.llm), "chance": round(base.slm.chance, 4)},
        "rounds": [_round(view) for view in watched.followed.rounds],
        "agents": {
            name: {"sent_bytes": status.sent_bytes, "received_bytes": status.received_bytes}
            for name, status in watched.agents.items()
        },
        "wall_seconds": round(watched.seconds),
    }


def _plain(score: Score) -> dict[str, float]:
    return {"accuracy": round(score.accuracy, 4), "loss": round(score.loss, 4)}


def _round(view: RoundView) -> dict[str, Any]:
    scores = view.scores
    return {
        "number": view.number,
        "state": view.state,
        "accepted": view.accepted,
        "seconds": {state: round(seconds, 1) for state, seconds in view.seconds.items()},
        "scores": {
            "slm_aggregated": _plain(scores.slm_aggregated),
            "slm": _plain(scores.slm),
            "llm": _plain(scores.llm),
        }
        if scores
        else None,
    }


def main() -> None:
    """Split, run, and write what was measured."""
    parser = argparse.ArgumentParser(prog="python -m bench.arc_easy", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with ARC-Easy-Train.jsonl and -Dev.jsonl")
    parser.add_argument("--llm", type=Path, required=True, help="Hugging Face directory")
    parser.add_argument("--slm", type=Path, required=True, help="Hugging Face directory, with the LLM's tokenizer")
    parser.add_argument("--rounds", type=whole(1), default=2)
    parser.add_argument("--seed", type=whole(0), default=1)
    parser.add_argument(
        "--worker-threads", type=whole(1), default=os.cpu_count() or 1, help="the agents take turns with it"
    )
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="where the run's folder goes (default: runs)")
    parser.add_argument("--out", type=Path, help="write what was measured here, as JSON")
    arguments = parser.parse_args()
    load_before = os.getloadavg()[0]
    folder = arguments.folder.resolve() / f"{time.strftime('arc-easy-%Y%m%d-%H%M%S')}-{os.getpid()}"
    folder.mkdir(parents=True)
    examples = split(arguments.data, folder)
    run_terms = terms(arguments.llm.resolve(), arguments.slm.resolve(), rounds=arguments.rounds, seed=arguments.seed)
    watched = asyncio.run(run(folder, run_terms, worker_threads=arguments.worker_threads))
    text = json.dumps(report(watched, examples, record(parser, arguments), load_before), indent=2)
    print(text)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
