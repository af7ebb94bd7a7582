"""How far a co-tuning has come, in one file: whoever goes on from it ends with the same bytes as if nothing happened.

A safetensors file of weights, AdamW's moments, random states, and JSON with the rest. It belongs to one co-tuning,
which is known by what went into it.
"""

import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path

import structlog
import torch
from pydantic import BaseModel
from safetensors import SafetensorError
from safetensors.torch import load, save

from shared.folders import write_whole
from shared.ml.process_group import ALONE, ProcessGroup
from shared.protocol.terms import FROZEN

log = structlog.get_logger()

_PROGRESS = "progress"  # JSON, as a tensor of its bytes


class Progress(BaseModel):
    """What a checkpoint says of itself beside its tensors.

    inputs: a digest of all that decides the co-tuning's result.
    content: a digest of the tensors and of all else that stands here.
    steps: how many were made.
    micro_batch: as in ``MicroBatches``.
    measured: of each loss its value in each step.
    """

    inputs: str
    content: str
    steps: int
    micro_batch: int | None
    measured: dict[str, list[float]]
    model_config = FROZEN


class CotuningCheckpoint:
    """The file that one co-tuning goes on from, written by the first process of a group for all of them."""

    def __init__(
        self,
        file: Path,
        *,
        inputs: str,
        seconds: float,
        group: ProcessGroup = ALONE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take ``seconds`` from one checkpoint to the next, at least; the folder of ``file`` is there."""
        self._file = file
        self._inputs = inputs
        self._seconds = seconds
        self._group = group
        self._clock = clock
        self._kept_at = clock()

    def is_due(self) -> bool:
        """Return whether it is time for the next one, in all processes."""
        due = self._group.from_first(lambda: b"due" if self._clock() >= self._kept_at + self._seconds else b"")
        return bool(due)

    def keep(
        self,
        tensors: Mapping[str, torch.Tensor],
        *,
        steps: int,
        micro_batch: int | None,
        measured: Mapping[str, list[float]],
    ) -> None:
        """Write all of it; a disk that does not take it is no reason to stop, and is told of in the log."""
        if self._group.rank == 0:
            whole = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
            progress = Progress(
                inputs=self._inputs,
                content="",
                steps=steps,
                micro_batch=micro_batch,
                measured={name: list(values) for name, values in measured.items()},
            )
            told = progress.model_copy(update={"content": _digest(progress, whole)}).model_dump_json()
            whole[_PROGRESS] = torch.frombuffer(bytearray(told.encode()), dtype=torch.uint8)
            try:
                write_whole(self._file, save(whole))
            except OSError as error:
                log.warning("checkpoint.failed", steps=steps, detail=str(error))
            else:
                log.info("checkpoint.kept", steps=steps)
        self._kept_at = self._clock()

    def find(self, like: Mapping[str, torch.Tensor]) -> tuple[Progress, dict[str, torch.Tensor]] | None:
        """Return what was kept last, if it is whole and of this co-tuning; what cannot be used is deleted.

        Args:
            like: tensors of the names, shapes and number formats that it must have.
        """
        content = self._group.from_first(lambda: self._file.read_bytes() if self._file.exists() else b"")
        if not content:
            return None
        try:
            progress, tensors = _read(content)
            self._require(progress, tensors, like)
        except (SafetensorError, ValueError) as error:
            log.warning("checkpoint.dropped", file=str(self._file), detail=str(error).splitlines()[0])
            if self._group.rank == 0:
                self._file.unlink()
            return None
        log.info("checkpoint.resumed", steps=progress.steps)
        return progress, tensors

    def _require(
        self, progress: Progress, tensors: Mapping[str, torch.Tensor], like: Mapping[str, torch.Tensor]
    ) -> None:
        if progress.inputs != self._inputs:
            raise ValueError("it is of another co-tuning")
        if _forms(tensors) != _forms(like):
            raise ValueError("its tensors are not those of these models")
        if progress.content != _digest(progress, tensors):
            raise ValueError("it is not what was written")


def _read(content: bytes) -> tuple[Progress, dict[str, torch.Tensor]]:
    tensors = load(content)
    if _PROGRESS not in tensors:
        raise ValueError("it says nothing of itself")
    return Progress.model_validate_json(tensors.pop(_PROGRESS).numpy().tobytes()), tensors


def _forms(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


def _digest(progress: Progress, tensors: Mapping[str, torch.Tensor]) -> str:
    whole = sha256(progress.model_copy(update={"content": ""}).model_dump_json().encode())
    for name in sorted(tensors):
        whole.update(tensors[name].contiguous().view(-1).view(torch.uint8).numpy().data)
    return f"sha256:{whole.hexdigest()}"
