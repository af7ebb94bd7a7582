"""By how much this process grows while it does something."""

import threading
import time
from collections.abc import Callable

import psutil


def grown(work: Callable[[], object]) -> int:
    """Do it, and return how many bytes more than before were resident at the peak, looking every 5 ms."""
    before, peak, done = _resident(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, _resident())
            time.sleep(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return peak - before


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)
