"""Whether slow sockets stop the coordinator: ``python -m bench.slow_sockets [--sockets N] [--seconds N] [--out FILE]``.

A third of them never end their TLS handshake, a third the head of a request, and a third its body; they come from ten
addresses of this machine, out of a process of their own, and come again when they are closed. Meanwhile ``/healthz`` is
asked on new connections, ten times a second, and what the answers took is told, TLS included.
"""

import argparse
import asyncio
import multiprocessing
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

from bench.command_line import machine, tell, whole
from bench.coordinator_process import CoordinatorProcess, ServedTls, coordinator_process
from examples.demo.processes import LOOPBACK
from services.coordinator.cli.tls import CA_FILE, CERTIFICATE, KEY, write_authority
from shared.credentials import BearerToken
from shared.egress import TrafficCount
from shared.protocol.messages import Health
from shared.transport import open_transport
from shared.trust import trusting

ADDRESSES = 10
DRIP_SECONDS = 1.0
AGAIN_SECONDS = 5.0
ASKED_SECONDS = 0.1
SETTLED_SECONDS = 10.0
WANTED_SECONDS = 0.1

HEAD = b"GET /healthz HTTP/1.1\r\nHost: here\r\nX: "
BODY = b"PUT /v1/enrol HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
STARTS = (None, HEAD, BODY)  # None is for those that do not come as far


@dataclass(frozen=True)
class Held:
    """What the answers took, in seconds, while so many connections were open at the least."""

    connections: int
    seconds: list[float]

    def __str__(self) -> str:
        centiles = quantiles(self.seconds, n=100, method="inclusive")
        return (
            f"/healthz behind {self.connections} other connections: median {centiles[49] * 1e3:.0f} ms, "
            f"p99 {centiles[98] * 1e3:.0f} ms, at most {max(self.seconds) * 1e3:.0f} ms of {len(self.seconds)}"
        )


async def held(sockets: int, seconds: int) -> Held:
    """Serve a coordinator to slow sockets, and ask it how it is."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write_authority(folder / "tls", [LOOPBACK])
        tls = ServedTls(*(folder / "tls" / name for name in (CERTIFICATE, KEY, CA_FILE)))
        async with coordinator_process(folder, tls=tls) as served:
            slow = multiprocessing.get_context("spawn").Process(
                target=hold, args=(served.port, sockets, tls.ca_file), daemon=True
            )
            slow.start()
            try:
                await asyncio.sleep(SETTLED_SECONDS if sockets else 0)
                return await _ask(served, seconds, tls.ca_file)
            finally:
                slow.kill()
                slow.join()


async def _ask(served: CoordinatorProcess, seconds: int, ca_file: Path) -> Held:
    loop, taken, connections = asyncio.get_running_loop(), [], []
    end = loop.time() + seconds
    while (began := loop.time()) < end:
        transport = open_transport(served.url, BearerToken(""), TrafficCount(), patience_seconds=30.0, ca_file=ca_file)
        async with transport as opened:
            began = loop.time()
            await opened.call("GET", "/healthz", Health)
        taken.append(loop.time() - began)
        connections.append(served.connections())
        await asyncio.sleep(ASKED_SECONDS)
    return Held(min(connections), taken)


def hold(port: int, sockets: int, ca_file: Path) -> None:
    """Be the process that has the slow sockets."""

    async def all_of_them() -> None:
        await asyncio.gather(*(_hold_one(port, number, ca_file) for number in range(sockets)))

    asyncio.run(all_of_them())


async def _hold_one(port: int, number: int, ca_file: Path) -> None:
    """Open a connection that gets nowhere, again and again."""
    start = STARTS[number % len(STARTS)]
    here = (f"127.0.0.{2 + number % ADDRESSES}", 0)
    await asyncio.sleep(AGAIN_SECONDS * number / 1000)
    while True:
        with suppress(OSError):
            _, writer = await asyncio.open_connection(
                LOOPBACK, port, local_addr=here, ssl=None if start is None else trusting(ca_file)
            )
            writer.write(start or b"\x16\x03\x01")  # of a ClientHello
            with suppress(OSError):
                while not writer.transport.is_closing():
                    await asyncio.sleep(DRIP_SECONDS)
                    if start is not None:
                        writer.write(b"a")
                        await writer.drain()
            writer.close()
        await asyncio.sleep(AGAIN_SECONDS)


def report(alone: Held, among: Held) -> Iterator[str]:
    """Yield the lines of the report."""
    yield str(alone)
    yield str(among)
    yield f"wanted: p99 below {WANTED_SECONDS * 1e3:.0f} ms"


def main() -> None:
    """Measure, and print the report."""
    parser = argparse.ArgumentParser(prog="python -m bench.slow_sockets", description=__doc__)
    parser.add_argument("--sockets", type=whole(1), default=1000)
    parser.add_argument("--seconds", type=whole(1), default=30)
    parser.add_argument("--out", type=Path, help="a file for the report")
    options = parser.parse_args()
    lines = list(machine(parser, options))
    alone = asyncio.run(held(0, options.seconds))
    among = asyncio.run(held(options.sockets, options.seconds))
    tell([*lines, *report(alone, among)], options.out)


if __name__ == "__main__":
    main()
