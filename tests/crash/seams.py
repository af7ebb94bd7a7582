"""Where a process meets what outlives it: the disk, the database and the wire, each watched from outside.

Whatever makes something durable goes through one of three doors: a call of the operating system that changes a folder
or a file, a commit of the database's driver, a request of the HTTP client's. A process of these tests stands in them
and is told before and after each step that the product takes. The product knows nothing of it, and no durable write
that somebody adds can pass it by.
"""

import functools
import io
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
from sqlalchemy.engine.default import DefaultDialect

from tests.crash.points import Point, Step

ROOT = Path(__file__).parents[2]
PRODUCT = tuple(f"{ROOT / room}{os.sep}" for room in ("services", "shared"))

# Calls that change what is on the disk; of the others that do, the product uses none.
CALLS = ("fsync", "ftruncate", "link", "mkdir", "open", "rename", "replace", "rmdir", "unlink", "write")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

_open, _write, _kill = os.open, os.write, os.kill


class Watch:
    """Notes the points that one process passes, over all its lives, and ends it at one of them."""

    def __init__(self, process: str, passed: Path, kill_at: Point | None) -> None:
        """``passed`` is the file that all processes of a story note in."""
        self._process = process
        self._kill_at = kill_at
        self._lock = threading.Lock()
        self._noted = _open(passed, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._times: Counter[Step] = Counter()
        for point in points_in(passed):
            if point.step.process == process:
                self._times[point.step] = max(self._times[point.step], point.number)
        self._changes: dict[int, int] = {}

    @contextmanager
    def taking(self, seam: str) -> Iterator[None]:
        """Note a step of the product's, before and after it; what a library does by itself is none, nor what fails."""
        by = _by(sys._getframe())
        if by is None:
            yield
            return
        step = Step(self._process, seam, by)
        with self._lock:
            self._times[step] += 1
            number = self._times[step]
        self._note(Point(step, number, "before"))
        try:
            yield
        except BaseException:
            with self._lock:
                self._times[step] -= 1
            raise
        self._note(Point(step, number, "after"))

    def has_changed(self, connection: Any) -> bool:  # noqa: ANN401 - the driver's own type
        """Return whether a database's connection has changed rows since it was last asked."""
        before = self._changes.get(id(connection), 0)
        self._changes[id(connection)] = connection.total_changes
        return bool(connection.total_changes != before)

    def _note(self, point: Point) -> None:
        """Note that a point was passed, or die at it."""
        _write(self._noted, f"{point}\n".encode())
        if point == self._kill_at:
            _kill(os.getpid(), signal.SIGKILL)


def points_in(passed: Path) -> Iterator[Point]:
    """Yield the points that processes have noted."""
    for line in passed.read_text(encoding="utf-8").splitlines():
        yield Point.parse(line)


def stand_in_the_doors(watch: Watch) -> None:
    """Watch this process, to its end."""
    for name in CALLS:
        setattr(os, name, _watched(watch, f"disk.{name}", getattr(os, name), _changes_the_disk(name)))
    io.open = _watched(watch, "disk.open", io.open, _opens_to_write)
    commit, send = DefaultDialect.do_commit, httpx.AsyncHTTPTransport.handle_async_request

    def do_commit(dialect: DefaultDialect, connection: Any) -> None:  # noqa: ANN401 - the driver's own type
        with watch.taking("store.commit") if watch.has_changed(connection.driver_connection) else nullcontext():
            commit(dialect, connection)

    async def handle_async_request(transport: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
        with watch.taking("wire.request"):
            return await send(transport, request)

    DefaultDialect.do_commit = do_commit  # type: ignore[method-assign]
    httpx.AsyncHTTPTransport.handle_async_request = handle_async_request  # type: ignore[method-assign]


def _watched(watch: Watch, seam: str, call: Callable[..., Any], changes: Callable[..., bool]) -> Callable[..., Any]:
    @functools.wraps(call)
    def watched(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - passed on
        with watch.taking(seam) if changes(*args, **kwargs) else nullcontext():
            return call(*args, **kwargs)

    return watched


def _changes_the_disk(name: str) -> Callable[..., bool]:
    """Return what says whether a call changes something: one that finds nothing to do is no step."""
    match name:
        case "open":
            return lambda _path, flags, *_, **__: bool(flags & WRITING)
        case "mkdir":
            return lambda path, *_, **__: not os.path.lexists(path)
        case "unlink":
            return lambda path, *_, dir_fd=None, **__: dir_fd is not None or os.path.lexists(path)
        case _:
            return lambda *_, **__: True


def _opens_to_write(file: Any, mode: str = "r", *_: Any, **__: Any) -> bool:  # noqa: ANN401 - as ``open`` takes it
    return not isinstance(file, int) and any(letter in mode for letter in "wax+")


def _by(frame: FrameType | None) -> str | None:
    """Return which code of the product's takes a step, and which other file's has it taken; None if none of it does."""
    by: list[str] = []
    files: list[str] = []
    while frame is not None and len(by) < 2:
        code = frame.f_code
        if code.co_filename.startswith(PRODUCT) and code.co_filename not in files:
            files.append(code.co_filename)
            by.append(f"{Path(code.co_filename).stem}.{code.co_qualname}")
        frame = frame.f_back
    return " < ".join(by) or None
