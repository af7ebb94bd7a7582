"""Checks of this machine, for `doctor`: packages, folders, tokens. No torch: see ``shared.ml.checks``."""

import os
import shutil
import stat
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from shared.cli.console import Output
from shared.credentials import BearerToken
from shared.errors import ConfigurationError
from shared.findings import Finding, failed, ok, warning
from shared.folders import is_owned
from shared.listening import listen

# Several adapters of a large pair, an update, and what the database and its log need beside them.
ROOM_BYTES = 1_000_000_000
FIRST_UNTRIED_PYTHON = (3, 14)


def packages(names: Sequence[str], *, extra: str) -> Finding:
    """Check Python, and that the packages of an extra of ours are installed."""
    python = ".".join(map(str, sys.version_info[:3]))
    there: list[str] = [f"Python {python}"]
    missing: list[str] = []
    for name in names:
        try:
            there.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        return failed(f"not installed: {', '.join(missing)}", f"in the clone, pip install '.[{extra}]'")
    if sys.version_info >= FIRST_UNTRIED_PYTHON:
        return warning(f"Python {python} has not been tried", "use Python 3.11 to 3.13")
    return ok(", ".join(there))


def folder(path: Path) -> Finding:
    """Check that a folder that a process keeps things in can be written to, or be made."""
    there = _nearest(path)
    if not there.is_dir():
        return failed(f"{there} is no folder", "name another folder, or move this file away")
    if not os.access(there, os.W_OK | os.X_OK):
        found = there.stat()
        return failed(
            f"{there} belongs to uid {found.st_uid} with mode {stat.filemode(found.st_mode)}, and this user is uid "
            f"{os.geteuid()}",
            "let this user write to it (chown, chmod), or name another folder",
        )
    free = shutil.disk_usage(there).free
    detail = f"{path}{'' if there == path else ' (will be made)'}, {free / 1e9:.1f} GB free"
    if free < ROOM_BYTES:
        return warning(detail, f"make room: {ROOM_BYTES / 1e9:.0f} GB holds the adapters of most models")
    return ok(detail)


def ownership(path: Path, owner: str) -> Finding:
    """Say whether a process (agent, coordinator, worker) uses the folder now."""
    return ok(f"{'running, and using this folder' if is_owned(path) else f'no {owner} uses this folder now'}")


def token(file: Path) -> Finding:
    """Check that a token file holds a token, and that nobody else reads it."""
    BearerToken.read(file)
    return private(file, str(file))


def private(file: Path, detail: str) -> Finding:
    """Check that a file with secrets can be read by its owner alone."""
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        return warning(f"{detail}, can be read by others (mode {mode:o})", f"chmod 600 {file}")
    return ok(detail)


def threads(count: int) -> Finding:
    """Compare torch's threads with the cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    detail = f"{count} of {cores} core(s)"
    if count > cores:
        return warning(detail, f"set threads to {cores} or fewer: more of them wait for each other")
    return ok(detail)


def port(host: str, number: int, *, running: bool, setting: str) -> Finding:
    """Check that a port can be listened on; ``running``: by whom it is for, already."""
    if running:
        return ok(f"{host}:{number}, of the running process")
    try:
        listen(host, number, setting).close()
    except ConfigurationError as error:
        return failed(str(error))
    return ok(f"{host}:{number} is free")


def note_taken(output: Output, ports: Mapping[str, int]) -> None:
    """Tell of ports, by the option that sets each, that are in use on this machine."""
    for option, number in ports.items():
        try:
            listen("127.0.0.1", number).close()
        except ConfigurationError:
            output.note(f"port {number} is in use on this machine: if by somebody else, choose another with {option}")


def _nearest(path: Path) -> Path:
    """Return the path, or what of it is there."""
    return path if path.exists() or path == path.parent else _nearest(path.parent)
