"""The processes that work on the same models at the same time: one, or those that `torchrun` has started.

Loops ask a group for sums over all processes and for what the first one knows, and need not know how many there are. No
object crosses from one process to another, only numbers and bytes.
"""

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from shared.errors import ConfigurationError, FedCoLLMError, error_of

_PATIENCE = timedelta(minutes=1)


class ProcessGroup(Protocol):
    """Processes that do the same in step, each with its part of the data."""

    rank: int
    """Of this process, from 0; the first one speaks for all."""

    size: int
    """How many there are."""

    sharded: bool
    """Whether each holds a part of the base models' weights, so that no pass can be made by one of them alone."""

    def sums(self, values: Sequence[float]) -> list[float]:
        """Return the sums of what all processes give."""
        ...

    def add_up(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace each tensor by its sum over all processes."""
        ...

    def from_first(self, content: Callable[[], bytes]) -> bytes:
        """Return what the first process's function returns; where it raises an error of ours, raise that everywhere."""
        ...

    def from_all(self, content: bytes) -> list[bytes]:
        """Return what each process gives, in their order."""
        ...


class OneProcess:
    """The group of a process that works alone."""

    rank = 0
    size = 1
    sharded = False

    def sums(self, values: Sequence[float]) -> list[float]:
        """Return the values."""
        return list(values)

    def add_up(self, tensors: Sequence[torch.Tensor]) -> None:
        """Leave the tensors as they are."""

    def from_first(self, content: Callable[[], bytes]) -> bytes:
        """Return what the function returns."""
        return content()

    def from_all(self, content: bytes) -> list[bytes]:
        """Return the content."""
        return [content]


ALONE = OneProcess()


class SeveralProcesses:
    """The group that torch.distributed knows as its default; numbers on the CPU go by gloo, those on GPUs by NCCL."""

    def __init__(self, store: Store, *, sharded: bool) -> None:
        """``store`` is where the first process leaves word for the others."""
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()
        self.sharded = sharded
        self._store = store
        self._told = 0

    def sums(self, values: Sequence[float]) -> list[float]:
        """Return the sums of what all processes give."""
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return [float(one) for one in total]

    def add_up(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace each tensor by its sum over all processes; they go as one, because there are hundreds."""
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, summed in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(summed.view_as(tensor))

    def from_first(self, content: Callable[[], bytes]) -> bytes:
        """Return what the first process's function returns; where it raises an error of ours, raise that everywhere."""
        told, error = b"", None
        if self.rank == 0:
            try:
                told = content()
            except FedCoLLMError as raised:
                error, told = raised, _written(raised)
        head = torch.tensor([len(told), error is not None])
        dist.broadcast(head, src=0)
        size, failed = head.tolist()
        body = _tensor(told, size)
        if size:
            dist.broadcast(body, src=0)
        if error is not None:
            raise error
        if failed:
            raise _read(_bytes(body), "process 0")
        return _bytes(body)

    def from_all(self, content: bytes) -> list[bytes]:
        """Return what each process gives, in their order."""
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(lengths, torch.tensor([len(content)]))
        longest = max(int(length) for length in lengths)
        bodies = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.size)]
        dist.all_gather(bodies, _tensor(content, longest))
        return [_bytes(body[: int(length)]) for body, length in zip(bodies, lengths, strict=True)]

    def tell(self, message: str) -> None:
        """Leave word for all other processes, as the first one, and return when they have read it."""
        self._store.set(str(self._told), message)
        self.from_all(b"")
        self._store.delete_key(str(self._told))
        self._told += 1

    def listen(self) -> str:
        """Wait for the first process's next word, however long that takes.

        Raises:
            RuntimeError: it is gone.
        """
        while True:
            try:
                self._store.wait([str(self._told)], _PATIENCE)
            except dist.DistStoreError:  # only late
                continue
            message: str = self._store.get(str(self._told)).decode()
            self.from_all(b"")
            self._told += 1
            return message


def device_of_rank(device: str) -> str:
    """Return the device of this process where ``device`` does not say which of a machine's GPUs to take."""
    if _processes() > 1 and torch.cuda.is_available() and device in {"auto", "cuda"}:
        return f"cuda:{os.environ['LOCAL_RANK']}"
    return device


@contextmanager
def process_group(device: torch.device, *, sharded: bool) -> Iterator[OneProcess | SeveralProcesses]:
    """Join the processes that `torchrun` has started, if it has, until the block ends.

    Raises:
        ConfigurationError: weights are to be sharded, and there is nobody to share them with.
    """
    if _processes() == 1:
        if sharded:
            raise ConfigurationError(
                "sharding is full, and this is one process alone: start several with torchrun (docs/models.md), or "
                "leave sharding out"
            )
        yield ALONE
        return
    store, rank, size = next(rendezvous("env://"))
    # The store may outlive processes that died, with the addresses at which they could be reached.
    store = PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=PrefixStore("group", store), rank=rank, world_size=size)
    try:
        yield SeveralProcesses(PrefixStore("told", store), sharded=sharded)
    finally:
        dist.destroy_process_group()


@contextmanager
def together(group: ProcessGroup) -> Iterator[None]:
    """Let an error of ours that the block raises in one process be raised in all, so that none waits for the others."""
    error = None
    try:
        yield
    except FedCoLLMError as raised:
        error = raised
    errors = group.from_all(b"" if error is None else _written(error))
    if error is not None:
        raise error
    for rank, found in enumerate(errors):
        if found:
            raise _read(found, f"process {rank}")


def share_of(count: int, group: ProcessGroup) -> int:
    """Return how many of ``count`` things a process has at most."""
    return math.ceil(count / group.size)


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _written(error: FedCoLLMError) -> bytes:
    return json.dumps([error.code, str(error)]).encode()


def _read(written: bytes, who: str) -> FedCoLLMError:
    code, message = json.loads(written)
    return error_of(code, f"{who}: {message}", otherwise=FedCoLLMError)


def _tensor(content: bytes, size: int) -> torch.Tensor:
    """Return bytes as a tensor, with zeros behind them up to a size."""
    return torch.frombuffer(bytearray(content.ljust(size, b"\0")), dtype=torch.uint8) if size else torch.zeros(0).byte()


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.numpy().tobytes()
