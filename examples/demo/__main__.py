"""The demo: ``make demo``, or ``python -m examples.demo``.

A coordinator, its co-tuning worker and four agents, each a process of its own, co-tune a small pair of models over
HTTPS on loopback. Everything that it makes lies in one folder, which is printed at the end.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.live import Live

from examples.demo.display import Agents
from examples.demo.preset import (
    AGENTS,
    AUXILIARY_ITEMS,
    EVALUATION_ITEMS,
    ITEMS_AN_AGENT,
    MODELS,
    VALIDATION_ITEMS,
    demo_terms,
)
from examples.demo.processes import LocalFederation, local_federation
from examples.demo.task import write_demo_data
from examples.demo.watching import Watched, watch, write_events
from services.client_agent.peft_folder import export_adapter
from services.coordinator.cli.display import end_line, event_line, masking_lines, reason_lines, score_table
from services.coordinator.cli.following import Followed
from services.coordinator.cli.live_view import LiveView
from services.coordinator.cli.parts import time_spent, time_table
from shared.adapter_folder import card_files
from shared.cli.console import percent, size
from shared.errors import FedCoLLMError
from shared.protocol.card import SignedCard
from shared.protocol.messages import ArtefactList, BaseScores, RunView
from shared.protocol.rounds import RunState
from shared.protocol.terms import RunTerms
from shared.transport import Transport

RUN_ID = "demo"


async def run_demo(folder: Path, seed: int, console: Console) -> bool:
    """Run the demo in ``folder`` and return whether the run finished."""
    data = folder / "data"
    write_demo_data(
        data,
        seed=seed,
        items_per_agent=ITEMS_AN_AGENT,
        evaluation_items=EVALUATION_ITEMS,
        auxiliary_items=AUXILIARY_ITEMS,
        validation_items=VALIDATION_ITEMS,
    )
    watched = Watched()
    console.print("the operator's and the agents' keys are made here, for this demo alone", highlight=False)
    async with local_federation(folder, AGENTS) as federation:
        await start_everything(federation, data)
        async with federation.operator() as operator:
            terms = demo_terms(seed)
            await operator.call("PUT", f"/v1/runs/{RUN_ID}", RunView, body=terms)
            await operator.call("POST", f"/v1/runs/{RUN_ID}/start", RunView)
            starting_seconds = watched.seconds
            await follow(federation, operator, terms, watched, console)
            adapters = await fetch_artefacts(operator, folder)
    write_events(folder / "events.jsonl", watched.followed.events)
    write_metrics(folder / "metrics.json", watched, seed)
    report(console, folder, watched, starting_seconds, adapters)
    run = watched.followed.run
    return run is not None and run.state is RunState.FINISHED


async def start_everything(federation: LocalFederation, data: Path) -> None:
    """Start the six processes, each with its own data and nobody else's."""
    await federation.start_coordinator()
    await federation.start_worker(
        [sys.executable, "-m", "services.coordinator.worker"],
        auxiliary=data / "auxiliary.jsonl",
        validation=data / "validation.jsonl",
    )
    for name in AGENTS:
        await federation.start_agent(
            name,
            [sys.executable, "-m", "services.client_agent"],
            slm=str(MODELS / "slm"),
            data=data / f"{name}.jsonl",
            evaluation=data / f"{name}-evaluation.jsonl",
        )


async def follow(
    federation: LocalFederation, operator: Transport, terms: RunTerms, watched: Watched, console: Console
) -> None:
    """Show the run until it has ended: tables on a terminal, a line an event elsewhere."""
    if console.is_terminal:
        view = LiveView(watched.followed, Agents(watched))
        with Live(view, console=console, refresh_per_second=4, transient=True):
            await watch(federation, operator, RUN_ID, watched, lambda: None, terms=terms)
        return
    shown = 0

    def print_new() -> None:
        nonlocal shown
        for event in watched.followed.events[shown:]:
            console.print(event_line(event), highlight=False)
        shown = len(watched.followed.events)

    await watch(federation, operator, RUN_ID, watched, print_new, terms=terms)


async def fetch_artefacts(operator: Transport, folder: Path) -> dict[str, Path]:
    """Fetch what the run made, as PEFT directories; their blobs stay where the directories point to."""
    listed = await operator.call("GET", f"/v1/runs/{RUN_ID}/artefacts", ArtefactList)
    directories: dict[str, Path] = {}
    for artefact in listed.artefacts:
        blob = folder / f"{artefact.name}.safetensors"
        await operator.download(f"/v1/runs/{RUN_ID}/artefacts/{artefact.name}", blob, digest=artefact.digest)
        path = f"/v1/runs/{RUN_ID}/rounds/{artefact.round}/card"
        card = await operator.call("GET", path, SignedCard)
        export_adapter(folder / artefact.name, blob, artefact.adapter_config, card_files(card, artefact.name))
        blob.unlink()
        directories[artefact.name] = folder / artefact.name
    return directories


def write_metrics(file: Path, watched: Watched, seed: int) -> None:
    """Write what was measured as JSON."""
    run = watched.followed.run
    content = {
        "seed": seed,
        "run": run.model_dump(mode="json") if run else None,
        "rounds": [row.model_dump(mode="json") for row in watched.followed.rounds],
        "agents": {name: status.model_dump(mode="json") for name, status in watched.agents.items()},
        "seconds": watched.seconds,
    }
    file.write_text(json.dumps(content, indent=2))


def report(
    console: Console, folder: Path, watched: Watched, starting_seconds: float, adapters: dict[str, Path]
) -> None:
    """Print what stays on the screen."""
    run = watched.followed.run
    if run is not None and run.base_scores is not None:
        report_scores(console, run, watched.followed, run.base_scores, starting_seconds)
    sent = sum(status.sent_bytes for status in watched.agents.values())
    received = sum(status.received_bytes for status in watched.agents.values())
    console.print(
        f"agents sent {size(sent)} and received {size(received)} in all; {watched.seconds:.0f} s", highlight=False
    )
    if run is not None and run.state is not RunState.FINISHED:
        console.print(end_line(run), style="bold red", soft_wrap=True)
    paths = {**adapters, "metrics": folder / "metrics.json", "events": folder / "events.jsonl", "logs": folder / "logs"}
    for name, path in paths.items():
        console.print(f"{name:<12} {path}", highlight=False, soft_wrap=True)


def report_scores(
    console: Console, run: RunView, followed: Followed, base: BaseScores, starting_seconds: float
) -> None:
    """Print what the run gave, and where the time went."""
    console.print(score_table(run, followed.rounds), "")
    for line in [*masking_lines(run, followed.rounds), *reason_lines(followed.rounds)]:
        console.print(line, soft_wrap=True, highlight=False)
    parts = time_spent(followed.events).seconds
    console.print(time_table({"processes start": starting_seconds, **parts}), "")
    scored = [row.scores for row in followed.rounds if row.scores]
    if scored:
        newest = scored[-1]
        console.print(
            f"SLM {percent(base.slm.accuracy)} -> {percent(newest.slm.accuracy)}, "
            f"LLM {percent(base.llm.accuracy)} -> {percent(newest.llm.accuracy)} "
            f"on {newest.slm.examples} unseen items; chance is {percent(newest.slm.chance)}",
            highlight=False,
        )


async def interruptible(folder: Path, seed: int, console: Console) -> bool:
    """Run the demo so that Ctrl-C and a polite kill stop all its processes; saying it twice changes nothing."""
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(run_demo(folder, seed, console))

    def interrupt() -> None:
        handle(lambda: None)
        task.cancel()

    def handle(action: Callable[[], object]) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, action)

    handle(interrupt)
    return await task


def main() -> int:
    """Run the demo; 0 means that the run finished, 130 that it was interrupted."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of data, adapters and training (default: 1)")
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="where runs go (default: runs)")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve() / f"{time.strftime('demo-%Y%m%d-%H%M%S')}-{os.getpid()}"
    console = Console()
    try:
        return 0 if asyncio.run(interruptible(folder, arguments.seed, console)) else 1
    except asyncio.CancelledError:
        console.print("interrupted: all processes have been stopped")
        return 130
    except FedCoLLMError as error:
        console.print(f"{error}", style="red", highlight=False)
        return 2


if __name__ == "__main__":
    sys.exit(main())
