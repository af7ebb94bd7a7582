"""Everything that a system starts: found by walking from what was started, measured, and ended by id.

Flower's executors and FLARE's jobs begin sessions of their own and outlive their parents. The bench makes itself the
one that adopts them, so that they stay among its descendants whatever their parents do (Linux alone).
"""

import ctypes
import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "this process cannot adopt orphans")


def children(pid: int) -> list[psutil.Process]:
    """Return the living descendants of a process, parents before their children."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def end(processes: Iterable[psutil.Process]) -> None:
    """Kill processes, in their order: a wrapper that restarts what it misses goes before it."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)


def end_descendants(seconds: float = 10.0) -> None:
    """End whatever is left of what this process and its children have started.

    Raises:
        RuntimeError: some of it is still there.
    """
    until = time.monotonic() + seconds
    while left := children(os.getpid()):
        if time.monotonic() > until:
            raise RuntimeError(f"these processes do not end: {[process.pid for process in left]}")
        end(left)
        for process in left:
            with suppress(psutil.TimeoutExpired):
                process.wait(timeout=1)  # reaps it, if it is this process's own child by now


@dataclass
class Peak:
    """The most memory that one process has had, MB (VmHWM)."""

    name: str
    megabytes: float


@dataclass
class ProcessTree:
    """The processes of one side of a system: the roots, and all that came from them, however it has moved since."""

    roots: list[int] = field(default_factory=list)
    known: dict[psutil.Process, Peak] = field(default_factory=dict)

    def living(self) -> list[psutil.Process]:
        """Return what lives of it, in the order in which it was found: parents first."""
        for pid in self.roots:
            with suppress(psutil.NoSuchProcess):
                self._add(psutil.Process(pid))
        for process in list(self.known):
            for child in children(process.pid) if process.is_running() else []:
                self._add(child)
        return [process for process in self.known if process.is_running()]

    def sample(self) -> None:
        """Note every process's peak until now; what begins and ends between two samples is missed.

        The last one counts: a process that has just been forked shows its parent's name and memory until it becomes
        what it was forked for.
        """
        for process in self.living():
            with suppress(psutil.Error):
                if (peak := peak_megabytes(process.pid)) is not None:
                    self.known[process] = Peak(name_of(process.cmdline()), peak)

    def peaks(self) -> Iterator[Peak]:
        """Yield the peaks of all processes that were ever there."""
        yield from self.known.values()

    def _add(self, process: psutil.Process) -> None:
        if process not in self.known:
            with suppress(psutil.Error):
                self.known[process] = Peak(name_of(process.cmdline()), 0.0)


def peak_megabytes(pid: int) -> float | None:
    """Return the most memory that a process has had, MB; None if it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return None
    sizes = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(sizes[0]) * 1024 / 1e6 if sizes else None


def name_of(command: list[str]) -> str:
    """Return what a process is, from its command: the module or the script."""
    words = [word for word in command if not word.startswith("-")]
    if "-m" in command[:-1]:
        return command[command.index("-m") + 1]
    if len(words) > 1 and Path(words[0]).name.startswith(("python", "bash", "sh")):
        return Path(words[1]).name
    return Path(words[0]).name if words else "?"
