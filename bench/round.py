"""What a round costs beside the training: ``python -m bench.round`` (or ``make bench-round``).

Agents, a worker and a coordinator as separate processes on loopback: the demo's TLS, store, digests, loops and
child trainer; only the training and co-tuning steps move bytes and nothing else. A proxy in front of the coordinator's
public port counts what agents exchange with it. The aggregate of every round is recomputed and compared.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bench.aggregation import aggregation_rate
from bench.command_line import machine, whole
from bench.counting_proxy import ByteCount, counting_proxy
from bench.no_op import shift_of
from bench.round_processes import SLM_LAYOUT
from bench.signatures import signature_costs
from examples.demo.processes import LocalFederation, free_ports, local_federation
from shared.protocol.codec import blob_bytes, decode
from shared.protocol.messages import EventList, PublishedAdapter, RoundList, RoundView, RunView
from shared.protocol.rounds import ENDED_RUNS, RunState, data_seed
from shared.protocol.tensors import parameter_count
from shared.protocol.terms import (
    AggregationName,
    CohortTerms,
    CotuningTerms,
    MaskingTerms,
    OptimiserTerms,
    RunTerms,
    TrainingTerms,
)
from shared.transport import Transport

RUN_ID = "bench"
OPTIMISER = OptimiserTerms(learning_rate=1e-3)

# A step's noise is the same for every number, so that an update's norm is some thousands.
CLIP_NORM = 10_000.0


@dataclass(frozen=True)
class Setting:
    """What is measured: how many agents, and how their updates are added up."""

    title: str
    agents: tuple[str, ...]
    aggregation: AggregationName

    def terms(self, rounds: int) -> RunTerms:
        """Return the terms of a run whose training does nothing."""
        count = len(self.agents)
        return RunTerms(
            name="bench-round",
            llm="none",
            slm="none",
            seed=1,
            rounds=rounds,
            training=TrainingTerms(batch_size=1, optimiser=OPTIMISER, max_tokens=8),
            cotuning=CotuningTerms(batch_size=1, llm_optimiser=OPTIMISER, slm_optimiser=OPTIMISER),
            cohort=CohortTerms(min_count=count, max_count=count, min_seconds=30, max_seconds=60),
            aggregation=self.aggregation,
            masking=MaskingTerms(clip_norm=CLIP_NORM),
        )


SETTINGS = (
    Setting("readable updates", ("agent-1", "agent-2"), "PlaintextAggregation"),
    Setting("secure aggregation", ("agent-1", "agent-2", "agent-3", "agent-4"), "SecureAggregation"),
)


async def measure(folder: Path, setting: Setting, rounds: int) -> None:
    """Run the rounds and print what they cost."""
    async with local_federation(folder, setting.agents) as federation:
        port = free_ports(1)[0]
        # Agents go through the proxy; the operator, who only watches, does not.
        seen_by_agents = replace(federation, public=replace(federation.public, port=port))
        await federation.start_coordinator()
        async with federation.operator() as operator, counting_proxy(port, federation.public.port) as count:
            command = [sys.executable, "-m", "bench.round_processes"]
            unused = Path(os.devnull)
            await federation.start_worker([*command, "worker"], auxiliary=unused, validation=unused)
            for name in setting.agents:
                await seen_by_agents.start_agent(
                    name,
                    [*command, "agent"],
                    slm="none",
                    data=unused,
                    allow_plaintext=setting.aggregation == "PlaintextAggregation",
                )
            terms = setting.terms(rounds + 1)
            await operator.call("PUT", f"/v1/runs/{RUN_ID}", RunView, body=terms)
            await operator.call("POST", f"/v1/runs/{RUN_ID}/start", RunView)
            await federation.sign(operator, RUN_ID, terms)
            bytes_at_round = await _watch(operator, federation, count)
            views = (await operator.call("GET", f"/v1/runs/{RUN_ID}/rounds", RoundList)).rounds
            check_aggregates(federation.folder, setting, views)
            _report(setting, views[1:], bytes_at_round, count)


async def _watch(operator: Transport, federation: LocalFederation, count: ByteCount) -> list[int]:
    """Follow the events to the end of the run; return the bytes counted when each round was published."""
    after, bytes_at_round = 0, []
    while True:
        federation.processes.require_alive(*federation.processes.running)
        page = await operator.call(
            "GET", f"/v1/runs/{RUN_ID}/events", EventList, params={"after": after, "wait_seconds": 5}
        )
        after = page.last
        bytes_at_round += [count.both for event in page.events if event.kind == "round.published"]
        run = await operator.call("GET", f"/v1/runs/{RUN_ID}", RunView)
        if run.state in ENDED_RUNS and not page.events:
            if run.state is not RunState.FINISHED:
                raise RuntimeError(f"the run has {run.state}: {run.reason}")
            return bytes_at_round


def check_aggregates(folder: Path, setting: Setting, views: tuple[RoundView, ...]) -> None:
    """Raise unless the last published adapter is what the seeds of all rounds add up to.

    Readable updates to the last bit; masked ones within the bounds that the rounds publish, and float32's own error.
    """
    expected, bound = 0.0, 0.0
    for view in views:
        shifts = [shift_of(data_seed(RUN_ID, 1, view.number, name)) for name in setting.agents]
        if view.error_bound is None:
            expected = float(sum(np.float32(expected) + shift for shift in shifts) / np.float32(len(shifts)))
        else:
            expected += float(np.mean(shifts, dtype=np.float64))
            bound += view.error_bound + 1e-6
    for name in setting.agents:
        held = PublishedAdapter.model_validate_json((folder / name / "published.json").read_bytes())
        blob = (folder / name / "adapters" / held.digest.removeprefix("sha256:")).read_bytes()
        for tensor, values in decode(blob, SLM_LAYOUT).items():
            if held.round != len(views) or np.abs(values - expected).max() > bound:
                raise RuntimeError(f"{name} holds a wrong {tensor} after round {held.round}: expected {expected}")


def _report(setting: Setting, views: tuple[RoundView, ...], bytes_at_round: list[int], count: ByteCount) -> None:
    adapter, agents = blob_bytes(SLM_LAYOUT), len(setting.agents)
    # A round lasts from its opening to the opening of the next: nothing falls between two rounds.
    lengths = sorted(sum(view.seconds.values()) for view in views)
    print(
        f"{setting.title}: {agents} agents over TLS, {parameter_count(SLM_LAYOUT):,} parameters in "
        f"{len(SLM_LAYOUT)} tensors ({adapter / 1e6:.2f} MB), {len(views)} rounds after a first that is dropped"
    )
    print(f"seconds a round: median {statistics.median(lengths):.3f}, least {lengths[0]:.3f}, most {lengths[-1]:.3f}")
    for state in views[0].seconds:
        print(f"  {state:<11} median {statistics.median(view.seconds[state] for view in views):.3f}")
    traffic = (bytes_at_round[-1] - bytes_at_round[0]) / (len(bytes_at_round) - 1)
    ideal = 2 * agents * adapter
    print(f"bytes on the coordinator's port a round: {traffic:,.0f}, {traffic / ideal:.4f} of 2 x agents x adapter")
    print(f"  ({count.connections} connections; the worker's traffic goes over its own port)")


def main() -> None:
    """Measure rounds, then aggregation alone."""
    parser = argparse.ArgumentParser(prog="python -m bench.round", description=__doc__)
    parser.add_argument("--rounds", type=whole(1), default=10)
    arguments = parser.parse_args()
    for line in machine(parser, arguments):
        print(line)
    for setting in SETTINGS:
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            asyncio.run(measure(Path(folder), setting, arguments.rounds))
            print(f"  ({time.perf_counter() - started:.1f} s in all, with starting the processes)")
    for line in (*aggregation_rate(SLM_LAYOUT), *signature_costs()):
        print(line)


if __name__ == "__main__":
    main()
