"""A case that is run so that nothing of it stays: not after Ctrl-C, a polite kill or a failure."""

import asyncio
import signal
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import TypeVar

from bench.peers.processes import end_descendants

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Result = TypeVar("Result")


def run_alone(work: Coroutine[None, None, Result]) -> Result:
    """Run it, and end whatever it has started.

    Raises:
        asyncio.CancelledError: it was interrupted.
    """
    try:
        return asyncio.run(_interruptible(work))
    finally:
        with held_back():
            end_descendants()


@contextmanager
def held_back() -> Iterator[None]:
    """Let signals that would end this process wait until the block is done."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


async def _interruptible(work: Coroutine[None, None, Result]) -> Result:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    for number in SIGNALS:
        loop.add_signal_handler(number, task.cancel)
    return await task
