"""The memory estimate against what tuning takes: ``python -m bench.memory FOLDER... [--dtype ...]``.

Each measurement is a process of its own on the CPU: it loads a model, makes two training steps on made-up tokens, and
tells by how much its memory grew at the peak. Weights that are mapped from their file count: they are needed each step.
"""

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import torch

from shared.devices import DtypeName
from shared.ml.encoding import Encoded
from shared.ml.memory import Load, estimate
from shared.ml.models import load_with_lora
from shared.ml.train import train_local
from shared.protocol.terms import LoraTerms, OptimiserTerms

LORA = LoraTerms()


def held_bytes() -> int:
    """Return this process's memory."""
    return int(psutil.Process().memory_info().rss)


def measured(folder: Path, dtype: DtypeName, rows: int, tokens: int, answer: int, *, checkpointing: bool) -> int:
    """Return by how many bytes this process grows when it tunes a model."""
    torch.set_num_threads(2)
    before, peak, done = held_bytes(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, held_bytes())
            time.sleep(0.01)

    watcher = threading.Thread(target=watch)
    watcher.start()
    model = load_with_lora(
        folder,
        lora=LORA,
        seed=0,
        max_tokens=tokens,
        dtype=dtype,
        device=torch.device("cpu"),
        gradient_checkpointing=checkpointing,
    )
    examples = [Encoded(tuple(range(1, tokens + 1)), tokens - answer)] * rows
    train_local(
        model,
        examples,
        epochs=2,
        batch_size=rows,
        optimiser=OptimiserTerms(learning_rate=1e-4),
        seed=1,
        vocab_size=model.get_input_embeddings().weight.shape[0],
        on_step=lambda *_: None,
    )
    done.set()
    watcher.join()
    return peak - before


def main() -> None:
    """Print a line for each model and format."""
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--load", nargs=3, type=int, default=[4, 96, 8], metavar=("ROWS", "TOKENS", "ANSWER"))
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--measure", action="store_true", help="measure in this very process and print the number")
    arguments = parser.parse_args()
    rows, tokens, answer = arguments.load
    for model in arguments.models:
        for dtype in arguments.dtype:
            if arguments.measure:
                print(measured(model, dtype, rows, tokens, answer, checkpointing=arguments.checkpointing))
                continue
            own = [sys.executable, "-m", "bench.memory", str(model), "--dtype", dtype, "--measure"]
            own += ["--load", *map(str, arguments.load)] + ["--checkpointing"] * arguments.checkpointing
            answered = subprocess.run(own, check=True, capture_output=True, text=True).stdout  # noqa: S603 - ourselves
            found = json.loads(answered.splitlines()[-1])
            said = estimate(
                model,
                dtype=dtype,
                lora=LORA,
                training=Load(rows, tokens, rows * answer),
                gradient_checkpointing=arguments.checkpointing,
            )
            print(
                f"{model.name:<16} {dtype:<9} {rows} x {tokens:<5} answers {answer:<4} "
                f"checkpointing {arguments.checkpointing!s:<5} measured {found / 1e6:8.0f} MB  "
                f"estimate {said.total_bytes / 1e6:8.0f} MB  ratio {said.total_bytes / found:.2f}  ({said})",
                flush=True,
            )


if __name__ == "__main__":
    main()
