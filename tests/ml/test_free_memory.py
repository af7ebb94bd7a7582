import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from shared.ml import free_memory
from shared.ml.free_memory import free_bytes, free_in_groups

CPU = torch.device("cpu")


def test_this_machine_has_memory():
    """More than this very process may hold, and not more than there is."""
    assert 1_000_000 < free_bytes(CPU) < 1 << 50


def test_a_containers_limit_is_what_counts_where_less_is_left_of_it(monkeypatch: pytest.MonkeyPatch):
    """The machine's own memory is larger, and not this process's to take."""
    monkeypatch.setattr(free_memory, "free_in_groups", lambda *_: [2_000, 1_000])
    assert free_bytes(CPU) == 1_000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library gives back in its own way")
def test_what_is_left_of_models_that_are_gone_is_given_back():
    """Whatever the collector has not found yet, and what the C library keeps: a second run has the first one's room."""

    def held() -> int:
        return int(psutil.Process().memory_info().rss)

    gone: list[Any] = [bytearray(b"x") * 60_000 for _ in range(2_000)]
    above = bytearray(b"x") * 60_000  # on the heap behind them, whose end alone would be given back unasked
    gone.append(gone)
    before = held()
    del gone
    free_bytes(CPU)
    assert held() < before - 100_000_000
    assert above


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def version_2(root: Path) -> str:
    write(
        root / "a",
        memory__max="1000\n",
        memory__current="700\n",
        memory__stat="anon 400\ninactive_file 150\nactive_file 50\n",
    )
    write(root / "a" / "b", memory__max="max\n", memory__current="700\n", memory__stat="")
    write(root)
    return "0::/a/b\n"


def version_2_in_a_container(root: Path) -> str:
    """The group's own folder is the root, whatever the machine calls it."""
    write(root, memory__max="1000\n", memory__current="700\n", memory__stat="inactive_file 150\nactive_file 50\n")
    return "0::/kubepods/pod1/../../elsewhere\n"


def version_1(root: Path) -> str:
    write(
        root / "memory" / "docker",
        memory__limit_in_bytes="1000",
        memory__usage_in_bytes="700",
        memory__stat="active_file 7\ntotal_inactive_file 150\ntotal_active_file 50\n",
    )
    return "9:cpu,cpuacct:/docker\n4:memory:/docker\n1:name=systemd:/docker\n"


@pytest.mark.parametrize("groups", [version_2, version_2_in_a_container, version_1])
def test_a_containers_limit_counts(groups: Callable[[Path], str], tmp_path: Path):
    """What is left under it, where pages of files that may be dropped are left too; a group without a limit is none."""
    (tmp_path / "own").write_text(groups(tmp_path / "groups"))
    assert free_in_groups(tmp_path / "own", tmp_path / "groups") == [500]


def test_a_machine_without_control_groups_has_no_such_limit(tmp_path: Path):
    """Neither has one without the files of them."""
    assert free_in_groups(tmp_path / "none", tmp_path) == []
    (tmp_path / "own").write_text("0::/a\n")
    assert free_in_groups(tmp_path / "own", tmp_path / "none") == []


def test_a_group_above_its_limit_has_nothing_left(tmp_path: Path):
    """And not less than nothing."""
    write(tmp_path / "groups", memory__max="1000", memory__current="1200", memory__stat="")
    (tmp_path / "own").write_text("0::/\n")
    assert free_in_groups(tmp_path / "own", tmp_path / "groups") == [0]
