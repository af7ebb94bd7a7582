"""Uploads that come at once: ``python -m bench.transfers [--uploads N] [--megabytes N] [--out FILE]``.

Agents send readable updates, signed, to a coordinator process over plain HTTP on loopback. Told are its memory at the
peak beyond what it had before, and bytes by the seconds of a processor that it took, in itself and in the kernel for
it; what the senders take is in neither. A second pass with a tenth of the uploads shows whether memory grows with them.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.command_line import machine, tell, whole
from bench.coordinator_process import coordinator_process, prepare
from bench.federation import FEDERATION, client_of, key_of
from services.coordinator.presets import preset_terms
from shared.credentials import SignedRequests
from shared.egress import TrafficCount
from shared.protocol.codec import encode
from shared.protocol.digests import digest_of
from shared.protocol.tensors import Layout
from shared.protocol.terms import RunTerms
from shared.transport import open_transport

RUN = "transfers"
RANK = 8
MB = 1_000_000
WANTED_MEMORY_MB, WANTED_MB_PER_SECOND = 200, 150


@dataclass(frozen=True)
class Cost:
    """What uploads have cost the coordinator."""

    uploads: int
    bytes: int
    memory: int
    cpu_seconds: float
    seconds: float

    def __str__(self) -> str:
        megabytes = self.bytes / MB
        return (
            f"{self.uploads} uploads at once, {megabytes:,.0f} MB in {self.seconds:.1f} s: memory "
            f"{self.memory / MB:.0f} MB over idle, {megabytes / self.cpu_seconds:.0f} MB a second of its processor"
        )


def layout_of(megabytes: int) -> Layout:
    """Return the layout of an adapter of about so many megabytes, as float32."""
    width = megabytes * MB // (4 * 2 * RANK)
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    return {f"{module}.lora_A.weight": (RANK, width), f"{module}.lora_B.weight": (width, RANK)}


def terms_of(uploads: int) -> RunTerms:
    """Return the terms of a run whose round waits for one more than all updates, so that none are added up."""
    cohort = {"min_count": 1, "max_count": uploads + 1, "min_seconds": 3600.0, "max_seconds": 7200.0}
    return preset_terms("smollm2", llm="llm", slm="slm", aggregation="PlaintextAggregation", cohort=cohort)


async def cost_of(uploads: int, megabytes: int) -> Cost:
    """Send so many updates at once, and return what they cost."""
    names, layout = [f"agent-{number}" for number in range(uploads)], layout_of(megabytes)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        await prepare(folder, names, RUN, terms_of(uploads), layout)
        files = {name: folder / name for name in names}
        digests = {name: _write(file, layout, number) for number, (name, file) in enumerate(files.items())}
        async with coordinator_process(folder) as coordinator:
            idle, cpu_before = coordinator.resident(), coordinator.cpu_seconds()
            coordinator.forget_peak()
            began = asyncio.get_running_loop().time()

            async def send(name: str) -> None:
                signing = SignedRequests(name, key_of(name), FEDERATION)
                async with open_transport(coordinator.url, signing, TrafficCount(), patience_seconds=600) as transport:
                    client = client_of(transport)
                    receipt = await client.send_update(RUN, 1, files[name], digest=digests[name], examples=None)
                    if receipt.digest != digests[name]:
                        raise RuntimeError(f"the receipt of {name} is for other bytes: {receipt.digest}")

            async with asyncio.TaskGroup() as group:
                for name in names:
                    group.create_task(send(name))
            return Cost(
                uploads=uploads,
                bytes=sum(file.stat().st_size for file in files.values()),
                memory=coordinator.peak() - idle,
                cpu_seconds=coordinator.cpu_seconds() - cpu_before,
                seconds=asyncio.get_running_loop().time() - began,
            )


def _write(file: Path, layout: Layout, number: int) -> str:
    """Write an update like no other, and return its digest."""
    update = encode({name: np.full(shape, number, np.float32) for name, shape in layout.items()})
    file.write_bytes(update)
    return digest_of(update)


def report(few: Cost, many: Cost) -> Iterator[str]:
    """Yield the lines of the report."""
    yield str(few)
    yield str(many)
    yield f"wanted: at most {WANTED_MEMORY_MB} MB over idle, at least {WANTED_MB_PER_SECOND} MB a second of a processor"


def main() -> None:
    """Measure, and print the report."""
    parser = argparse.ArgumentParser(prog="python -m bench.transfers", description=__doc__)
    parser.add_argument("--uploads", type=whole(1), default=100)
    parser.add_argument("--megabytes", type=whole(1), default=40)
    parser.add_argument("--out", type=Path, help="a file for the report")
    options = parser.parse_args()
    lines = list(machine(parser, options))
    few = asyncio.run(cost_of(max(1, options.uploads // 10), options.megabytes))
    many = asyncio.run(cost_of(options.uploads, options.megabytes))
    tell([*lines, *report(few, many)], options.out)


if __name__ == "__main__":
    main()
