"""How much memory this process may still take: of the machine, of its container's limit, or of a GPU."""

import ctypes
import gc
from contextlib import suppress
from pathlib import Path

import psutil
import torch


def free_bytes(device: torch.device) -> int:
    """Return how many bytes of memory are free on a device, within what this process's container may use."""
    _give_back(device)
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    in_groups = free_in_groups(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
    return min([int(psutil.virtual_memory().available), *in_groups])


def _give_back(device: torch.device) -> None:
    """Give the system what is left of models that are gone: it is free for the next one.

    Some refer to themselves in circles, which only the collector finds. Torch keeps blocks of a GPU, and glibc what was
    freed on its heap: a process that had trained SmolLM2-135M once held 0.82 GB before this, and 0.41 GB after it.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    else:
        with suppress(AttributeError):  # a C library that is not glibc
            ctypes.CDLL(None).malloc_trim(0)


def free_in_groups(own: Path, groups: Path) -> list[int]:
    """What is left under the limits of the control groups that this process is in; those without a limit are left out.

    A container's memory is such a limit, and the machine's own figures know nothing of it. Pages of files count as
    used by the group and are given back when memory is wanted; what was read twice, as weights are for their digest
    and to be loaded, is among the active ones.
    """
    free = []
    for line in own.read_text().splitlines() if own.is_file() else ():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, limit_in, used_in, prefix = groups, "memory.max", "memory.current", ""
        elif controllers == "memory":
            root, limit_in = groups / "memory", "memory.limit_in_bytes"
            used_in, prefix = "memory.usage_in_bytes", "total_"
        else:
            continue
        group = root / path.removeprefix("/")
        # Inside a container the path may be the machine's, which is not there, and the root is the container's own.
        for folder in (group, *group.parents) if group.is_dir() else (root,):
            if (limit := _number(folder / limit_in)) is not None:
                files = _statistics(folder / "memory.stat", f"{prefix}inactive_file", f"{prefix}active_file")
                free.append(max(limit - (_number(folder / used_in) or 0) + files, 0))
            if folder == root:
                break
    return free


def _number(file: Path) -> int | None:
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None  # "max" is no limit


def _statistics(file: Path, *names: str) -> int:
    """The sum of these lines of a file of statistics, as far as they are there."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return 0
    return sum(int(number) for name, _, number in (line.partition(" ") for line in lines) if name in names)
