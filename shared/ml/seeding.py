"""Random numbers that depend on a seed alone and disturb nobody else's."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

_SEED_BITS = 63  # what torch takes without a sign


def derive_seed(*parts: int) -> int:
    """Return a seed of 63 bits that depends on every part and on their order."""
    digest = hashlib.sha256(",".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - _SEED_BITS)


@contextmanager
def seeded(seed: int, *, device: torch.device) -> Iterator[None]:
    """Seed the generators of the CPU and of ``device`` inside the block; put both back afterwards.

    Not with torch.manual_seed: that also seeds every accelerator there is, and those would stay so.

    Args:
        seed: any integer; its lowest 63 bits count.
        device: cpu or cuda.
    """
    cuda_devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda_devices):
        torch.default_generator.manual_seed(seed % 2**_SEED_BITS)
        for cuda_device in cuda_devices:
            with torch.cuda.device(cuda_device):
                torch.cuda.manual_seed(seed % 2**_SEED_BITS)
        yield


def random_state(devices: Sequence[torch.device]) -> list[torch.Tensor]:
    """Return the state of the CPU's generator, and of the generators of those devices that are others."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in devices if device.type == "cuda")]


def restore_random_state(state: Sequence[torch.Tensor], devices: Sequence[torch.device]) -> None:
    """Put back what ``random_state`` returned."""
    cpu, *others = state
    torch.set_rng_state(cpu)
    for one, device in zip(others, (device for device in devices if device.type == "cuda"), strict=True):
        torch.cuda.set_rng_state(one, device)
