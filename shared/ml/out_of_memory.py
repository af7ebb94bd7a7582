"""What is done when memory runs out in the middle of a pass: the same again, with fewer examples at once."""

import gc
from collections.abc import Callable

import structlog
import torch

from shared.errors import MemoryTooSmall

log = structlog.get_logger()

# What PyTorch says on a CPU, where it has no error of its own for it, and what cuBLAS says of its workspace.
_SAID = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


def memory_suffices(do: Callable[[], None]) -> bool:
    """Do something, and return whether there was memory enough for it; what it held is given back if there was not."""
    try:
        do()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    else:
        return True
    # Not in the handler, where the error's frames still hold their tensors.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return False


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, of a GPU or of the machine."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(said in str(error) for said in _SAID)


def halved(examples: int) -> int:
    """Return how many examples to try at once after so many were too many, and log it.

    Raises:
        MemoryTooSmall: it was one.
    """
    if examples == 1:
        raise MemoryTooSmall(
            "memory ran out with one example at once: free memory, set gradient_checkpointing or a smaller dtype, or "
            "lower the run's training.max_tokens"
        )
    log.warning("memory.ran_out", examples=examples, retried_with=examples // 2)
    return examples // 2
