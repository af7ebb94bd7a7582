"""Models on a machine with too little memory: more rows at once than it has room for, and PyTorch says so."""

from collections.abc import Callable
from typing import Any

import torch
from peft import PeftModel
from torch.utils.hooks import RemovableHandle

SAID = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate"


def with_room_for(
    rows: int, model: PeftModel, *, when: Callable[[], bool] = torch.is_grad_enabled, passed: list[int] | None = None
) -> RemovableHandle:
    """Let a model fail where more rows go through it at once, while ``when`` holds; note the rows that went through.

    It fails late, once the layers have drawn what dropout draws, as memory does that runs out.
    """

    def measure(*called: Any) -> None:  # noqa: ANN401 - module, arguments, named arguments, output
        there = len(called[2]["input_ids"])
        if when() and there > rows:
            raise RuntimeError(SAID)
        if passed is not None:
            passed.append(there)

    return model.register_forward_hook(measure, with_kwargs=True)
