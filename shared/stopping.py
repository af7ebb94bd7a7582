"""A service that is told to stop: by SIGTERM or Ctrl-C once in its own time, which is bounded, and twice at once.

Nothing needs the time: whatever is broken off goes on at the next start, as after a crash. It is for those who wait,
who get an answer, and for work that somebody else can have.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

# Docker gives ten, and then kills.
STOP_SECONDS = 8.0

SIGNALS = (signal.SIGTERM, signal.SIGINT)

log = structlog.get_logger()


@contextmanager
def stoppable(stop: Callable[[], object], *, seconds: float = STOP_SECONDS) -> Iterator[None]:
    """Call ``stop`` when this process is told to stop while the block runs, and end it if that takes too long.

    ``stop`` is called in the main thread, between any two steps of it. The time goes on after the block: what is left
    to do in threads then counts too.
    """
    told: list[int] = []

    def on_signal(number: int, _frame: object) -> None:
        told.append(number)
        if len(told) > 1:
            os._exit(128 + number)
        cut = threading.Timer(seconds, _cut_short, [seconds])
        cut.daemon = True
        cut.start()
        stop()

    # Not the loop's own way to hear of signals: a loop that waits for a thread hears nothing.
    before = {number: signal.signal(number, on_signal) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _cut_short(seconds: float) -> None:
    log.warning("stop.cut_short", seconds=seconds, detail="what was under way goes on at the next start")
    os._exit(0)
