"""What two processes do with tiny models under `torchrun`: ``python -m tests.support.several_ranks FOLDER``.

The first writes what came of it, for a test to compare with one process's.
"""

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from shared.data.examples import Example
from shared.errors import FedCoLLMError, LeaseLost, MemoryTooSmall
from shared.ml.adapters import adapter_tensors
from shared.ml.cotune import cotune
from shared.ml.cotuning_checkpoint import CotuningCheckpoint
from shared.ml.encoding import encode_choices, encode_examples
from shared.ml.evaluate import evaluate
from shared.ml.generate import go_on
from shared.ml.process_group import ProcessGroup, process_group, together
from shared.ml.sharding import shard
from shared.protocol.codec import encode
from shared.protocol.terms import CotuningTerms, OptimiserTerms
from tests.support.small_memory import with_room_for
from tests.support.tiny_models import tiny_lora, tiny_tokenizer

CPU = torch.device("cpu")
EXAMPLES = [Example(f"{'x' * (i % 4)}{i} is", ("red", "tan", "blue", "no hue"), (i * 7) % 4) for i in range(10)]
# Batches of 3, 3, 3 and 1: unequal parts, and a process without any.
TERMS = CotuningTerms(
    passes=2,
    batch_size=3,
    distillation_weight=1.0,
    llm_optimiser=OptimiserTerms(learning_rate=0.01),
    slm_optimiser=OptimiserTerms(learning_rate=0.02),
)


def pair(group: ProcessGroup, *, dropout: float = 0.0) -> list[PeftModel]:
    """Return an LLM and an SLM, of which each process has a part where the group is sharded."""
    models = [
        tiny_lora("qwen2", seed=1, hidden=48, vocab_size=304, dropout=dropout, spread=0.3),
        tiny_lora("qwen2", seed=2, dropout=dropout, spread=0.3),
    ]
    for model in models if group.sharded else ():
        shard(model, group=group, device=CPU)
    return models


def tuned(
    models: list[PeftModel],
    group: ProcessGroup,
    *,
    schedule: str = "simultaneous",
    **more: Any,  # noqa: ANN401
) -> list[bytes]:
    """Co-tune, and return both adapters."""
    examples = encode_examples(tiny_tokenizer(), EXAMPLES, max_tokens=64)
    terms = TERMS.model_copy(update={"schedule": schedule})
    observed = {"on_step": lambda *_: None} | more
    cotune(*models, examples, terms=terms, seed=5, vocab_size=len(tiny_tokenizer()), group=group, **observed)
    return [encode(adapter_tensors(model)) for model in models]


def scored(model: PeftModel, group: ProcessGroup) -> list[float]:
    """Evaluate, in three passes or more, and return all log-likelihoods."""
    choices = encode_choices(tiny_tokenizer(), EXAMPLES, max_tokens=64)
    found = evaluate(model, choices, batch_size=4, vocab_size=len(tiny_tokenizer()), on_batch=lambda: None, group=group)
    return [one for of_choices in found.log_likelihoods for one in of_choices]


def said(model: PeftModel) -> str:
    """Ask a model, as all processes do at the same time."""
    return go_on(model, tiny_tokenizer(), "x3 is", max_new_tokens=4)


def resumed(group: ProcessGroup, file: Path) -> bool:
    """Return whether a co-tuning with dropout that was stopped on the way ends as one that was not."""
    whole = tuned(pair(group, dropout=0.2), group)

    def stop(step: int, *_: Any) -> None:  # noqa: ANN401
        if step == 5:
            raise LeaseLost("stopped")

    for on_step in (stop, lambda *_: None):
        checkpoint = CotuningCheckpoint(file, inputs="these", seconds=0, group=group)
        with suppress(LeaseLost):
            ended = tuned(pair(group, dropout=0.2), group, on_step=on_step, checkpoint=checkpoint)
    return ended == whole


def short_of_memory(group: ProcessGroup) -> list[bytes]:
    """Co-tune where one process alone has too little memory."""
    models = pair(group)
    if group.rank == 1:
        with_room_for(1, models[1])
    return tuned(models, group)


def errors(group: ProcessGroup) -> list[str]:
    """Return what each process is told of an error that only one of them has met."""

    def fail() -> bytes:
        raise LeaseLost("it is lost")

    def fail_in_the_second() -> None:
        with together(group):
            if group.rank == 1:
                raise MemoryTooSmall("no room")

    told = [_told(lambda: group.from_first(fail)), _told(fail_in_the_second)]
    return [answer.decode() for answer in group.from_all(json.dumps(told).encode())]


def _told(do: Callable[[], object]) -> str:
    try:
        do()
    except FedCoLLMError as error:
        return f"{error.code}: {error}"
    return "nothing"


def main(folder: Path) -> None:
    """Do all of it."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    with process_group(CPU, sharded=False) as group:
        for sharded in (False, True):
            group.sharded = sharded
            for schedule in ("simultaneous", "sequential"):
                models = pair(group)
                name = f"{'sharded' if sharded else 'replicated'}-{schedule}"
                adapters = tuned(models, group, schedule=schedule)
                found[name] = {"scores": scored(models[0], group), "said": said(models[1])}
                if group.rank == 0:
                    for part, adapter in zip(("llm", "slm"), adapters, strict=True):
                        (folder / f"{name}-{part}").write_bytes(adapter)
        group.sharded = False
        found["resumed"] = resumed(group, folder / "checkpoint")
        found["same bytes in all"] = len(set(group.from_all(b"".join(short := short_of_memory(group))))) == 1
        found["errors"] = errors(group)
        if group.rank == 0:
            for part, adapter in zip(("llm", "slm"), short, strict=True):
                (folder / f"short-{part}").write_bytes(adapter)
            (folder / "found.json").write_text(json.dumps(found))
        group.from_all(b"")  # nobody leaves before that is written


if __name__ == "__main__":
    main(Path(sys.argv[1]))
