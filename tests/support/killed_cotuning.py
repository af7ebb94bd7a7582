"""A co-tuning that dies of SIGKILL at every step: ``python -m tests.support.killed_cotuning FOLDER``.

Each life is a process of its own. They are forked, because each would else take ten seconds to import PyTorch.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from shared.ml.adapters import adapter_tensors
from shared.ml.cotune import cotune
from shared.ml.cotuning_checkpoint import CotuningCheckpoint
from shared.ml.encoding import encode_examples
from shared.protocol.codec import encode
from shared.protocol.terms import CotuningTerms, OptimiserTerms
from tests.support.several_ranks import EXAMPLES
from tests.support.tiny_models import tiny_lora, tiny_tokenizer

STEPS = 10
OPTIMISER = OptimiserTerms(learning_rate=0.01)


def live(checkpoint: Path, into: Path, *, dies_after: int | None = None) -> None:
    """Co-tune, with dropout, from what is kept on; and die, or write the SLM's adapter."""
    torch.set_num_threads(1)
    llm = tiny_lora("qwen2", seed=1, hidden=48, vocab_size=304, dropout=0.2, spread=0.3)
    slm = tiny_lora("qwen2", seed=2, dropout=0.2, spread=0.3)

    def on_step(step: int, *_: Any) -> None:  # noqa: ANN401
        if step == dies_after:
            os.kill(os.getpid(), signal.SIGKILL)

    cotune(
        llm,
        slm,
        encode_examples(tiny_tokenizer(), EXAMPLES, max_tokens=64),
        terms=CotuningTerms(passes=2, batch_size=2, llm_optimiser=OPTIMISER, slm_optimiser=OPTIMISER),
        seed=5,
        vocab_size=len(tiny_tokenizer()),
        on_step=on_step,
        checkpoint=CotuningCheckpoint(checkpoint, inputs="these", seconds=0),
    )
    into.write_bytes(encode(adapter_tensors(slm)))


def ended(life: Callable[[], None]) -> int:
    """Return how a child ended that lives so: its exit status, or the signal as a negative number."""
    child = os.fork()
    if child == 0:
        life()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(folder: Path) -> None:
    """Write what a life without a death leaves, and what ten lives with nine deaths do."""
    kept = folder / "kept"
    assert ended(lambda: live(folder / "other", folder / "whole")) == 0
    for step in range(1, STEPS):
        assert ended(lambda step=step: live(kept, folder / "never", dies_after=step)) == -signal.SIGKILL  # type: ignore[misc]
    assert ended(lambda: live(kept, folder / "resumed")) == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]))
