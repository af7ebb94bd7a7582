"""Sums that are worked out in processes: where there is much to do, and again where a process was killed on the way."""

import os
import signal
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.private_attempt import Masked, masked_attempt
from services.coordinator import unmasking as under_test
from services.coordinator.blobs import FileBlobs
from services.coordinator.unmasking import Unmasking, processes
from shared.errors import ShareInvalid
from shared.protocol.identity import to_text


@pytest.fixture
def masked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Masked:
    """Return an attempt of four, of whom one is lost, which is much to do."""
    monkeypatch.setattr(under_test, "WORTH_A_PROCESS", 0)
    return masked_attempt(4, 100, 1, FileBlobs(tmp_path))


class Made:
    """Makes executors, and remembers them."""

    def __init__(self) -> None:
        self.executors: list[ProcessPoolExecutor] = []

    def __call__(self) -> Executor:
        """Make one."""
        executor = processes()
        assert isinstance(executor, ProcessPoolExecutor)
        self.executors.append(executor)
        return executor


@pytest.mark.slow
def test_a_process_that_is_killed_costs_nothing_but_time(masked: Masked) -> None:
    """By the kernel, where memory is short: this sum fails, and the next one has processes again."""
    made = Made()
    unmasking = Unmasking(made)
    try:
        assert np.array_equal(unmasking.total([masked.group]).total, masked.expected)
        for process in list(made.executors[0]._processes.values()):
            os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(BrokenExecutor):
            unmasking.total([masked.group])
        assert np.array_equal(unmasking.total([masked.group]).total, masked.expected)
        assert len(made.executors) == 2
        name, right = next(iter(masked.group.released.items()))
        lies = replace(right, own_masks=dict.fromkeys(right.own_masks, to_text(bytes(33))))
        group = replace(masked.group, released={**masked.group.released, name: lies})
        with pytest.raises(ShareInvalid) as caught:
            unmasking.total([group])
        assert caught.value.members == (name,)  # from the other process too
    finally:
        unmasking.close()
        unmasking.close()
