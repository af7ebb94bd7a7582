"""Waiting for what was started: bounded, and with the end of its log where it fails."""

import asyncio
import os
from pathlib import Path

from examples.demo.processes import LOOPBACK, Processes

START_SECONDS = 120.0


def with_programs(folder: Path) -> str:
    """Return a PATH that begins with this folder: systems start programs of their own by name."""
    return os.pathsep.join([str(folder), os.environ.get("PATH", os.defpath)])


async def is_served(port: int) -> bool:
    """Return whether somebody listens on a port of loopback."""
    try:
        _, writer = await asyncio.open_connection(LOOPBACK, port)
        writer.close()
        await writer.wait_closed()
    except ConnectionError:
        return False
    return True


async def served(port: int) -> None:
    """Wait until somebody listens.

    Raises:
        TimeoutError: nobody does after two minutes.
    """
    async with asyncio.timeout(START_SECONDS):
        while not await is_served(port):  # noqa: ASYNC110 - another process's
            await asyncio.sleep(0.05)


async def finished(processes: Processes, name: str) -> None:
    """Wait until a program has ended well.

    Raises:
        RuntimeError: it has failed, or has not ended after two minutes.
    """
    process = processes.running.pop(name)
    try:
        async with asyncio.timeout(START_SECONDS):
            code = await process.wait()
    except TimeoutError:
        processes.running[name] = process  # whoever ends the others ends it too
        raise
    if code:
        log = (processes.logs / f"{name}.log").read_text(errors="replace")
        raise RuntimeError(f"{name} has ended with code {code}:\n{log[-1500:]}")
