import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from structlog.testing import capture_logs

from bench.federation import ManualClock
from shared.ml.adapters import adapter_tensors
from shared.ml.cotune import CotuneReport, cotune
from shared.ml.cotuning_checkpoint import CotuningCheckpoint
from shared.ml.encoding import Encoded
from shared.protocol.terms import CotuningTerms, OptimiserTerms
from tests.support.small_memory import with_room_for
from tests.support.tiny_models import tiny_lora, tiny_tokenizer

VOCAB = len(tiny_tokenizer())
TERMS = CotuningTerms(
    passes=2,
    batch_size=4,
    distillation_weight=1.0,
    llm_optimiser=OptimiserTerms(learning_rate=0.01),
    slm_optimiser=OptimiserTerms(learning_rate=0.02),
)
STEPS = 6
ROOT = Path(__file__).parent.parent.parent


class Killed(Exception):
    """What ends a co-tuning in the middle."""


def result(
    examples: list[Encoded],
    file: Path | None = None,
    *,
    inputs: str = "these",
    schedule: str = "simultaneous",
    killed_after: int | None = None,
    room: int | None = None,
    seen: Callable[[int], None] = lambda _: None,
) -> tuple[list[bytes], CotuneReport]:
    """Co-tune a new pair, with dropout, from what is kept in a file on; return its adapters and the report."""
    llm = tiny_lora("qwen2", seed=1, hidden=48, vocab_size=304, dropout=0.2, spread=0.3)
    slm = tiny_lora("qwen2", seed=2, dropout=0.2, spread=0.3)
    if room is not None:
        with_room_for(room, llm)

    def on_step(step: int, *_: Any) -> None:  # noqa: ANN401
        seen(step)
        if step == killed_after:
            raise Killed

    terms = TERMS.model_copy(update={"schedule": schedule})
    checkpoint = None if file is None else CotuningCheckpoint(file, inputs=inputs, seconds=0)
    report = cotune(llm, slm, examples, terms=terms, seed=5, vocab_size=VOCAB, on_step=on_step, checkpoint=checkpoint)
    return [lora_bytes(model) for model in (llm, slm)], report


def lora_bytes(model: PeftModel) -> bytes:
    return b"".join(tensor.tobytes() for tensor in adapter_tensors(model).values())


@pytest.mark.parametrize("schedule", ["simultaneous", "sequential"])
def test_a_co_tuning_that_was_killed_at_every_step_ends_with_the_same_bytes(
    schedule: str, encoded: list[Encoded], tmp_path: Path
) -> None:
    """Weights, dropout, the order of the data, AdamW and what is reported are those of one that nothing happened to."""
    whole = result(encoded, schedule=schedule)
    file, steps = tmp_path / "kept", []
    for step in range(1, STEPS):
        with pytest.raises(Killed):
            result(encoded, file, schedule=schedule, killed_after=step, seen=steps.append)
    assert result(encoded, file, schedule=schedule, seen=steps.append) == whole
    assert steps == [1, 2, 3, 4, 5, 6]


def test_what_memory_allows_is_remembered(encoded: list[Encoded], tmp_path: Path) -> None:
    """Batches that were cut in pieces go on in pieces, and nothing has to run out again to find how small."""
    whole = result(encoded, room=2)
    with pytest.raises(Killed):
        result(encoded, tmp_path / "kept", room=2, killed_after=3)
    with capture_logs() as logged:
        assert result(encoded, tmp_path / "kept", room=2) == whole
    assert "memory.ran_out" not in {line["event"] for line in logged}
    assert whole[1].micro_batch == 2


def cut(file: Path) -> None:
    """Leave a half."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file: Path) -> None:
    """Change a bit of a number."""
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)


def retell(file: Path) -> None:
    """Say that fewer steps were made."""
    tensors = load_file(file)
    told = json.loads(tensors["progress"].numpy().tobytes()) | {"steps": 1}
    save_file(tensors | {"progress": torch.frombuffer(bytearray(json.dumps(told).encode()), dtype=torch.uint8)}, file)


def of_others(file: Path) -> None:
    """Leave one tensor out."""
    tensors = load_file(file)
    del tensors["llm.weight.0"]
    save_file(tensors, file)


def of_nobody(file: Path) -> None:
    """Keep the tensors alone."""
    tensors = load_file(file)
    del tensors["progress"]
    save_file(tensors, file)


@pytest.mark.parametrize("damage", [cut, flip, retell, of_others, of_nobody, lambda file: file.write_bytes(b"{}")])
def test_a_damaged_checkpoint_is_dropped(
    damage: Callable[[Path], object], encoded: list[Encoded], tmp_path: Path
) -> None:
    """The co-tuning starts anew, says why, and ends as it would have."""
    file = tmp_path / "kept"
    with pytest.raises(Killed):
        result(encoded, file, killed_after=3)
    damage(file)
    steps: list[int] = []
    with capture_logs() as logged:
        assert result(encoded, file, seen=steps.append) == result(encoded)
    assert steps[0] == 1
    assert [line["event"] for line in logged if line["log_level"] == "warning"] == ["checkpoint.dropped"]


def test_no_other_co_tuning_goes_on_from_it(encoded: list[Encoded], tmp_path: Path) -> None:
    """One with other data, seed, models or releases has other inputs."""
    with pytest.raises(Killed):
        result(encoded, tmp_path / "kept", inputs="others", killed_after=3)
    steps: list[int] = []
    result(encoded, tmp_path / "kept", seen=steps.append)
    assert steps[0] == 1


def test_a_full_disk_does_not_stop_it(encoded: list[Encoded], tmp_path: Path) -> None:
    """What cannot be kept is told of, and is lost only if the worker is too."""
    with capture_logs() as logged:
        assert result(encoded, tmp_path / "absent" / "kept") == result(encoded)
    assert [line["event"] for line in logged] == ["checkpoint.failed"] * STEPS


def test_a_checkpoint_is_kept_from_time_to_time(tmp_path: Path) -> None:
    """Not at once, and again so many seconds after the last."""
    clock = ManualClock()
    checkpoint = CotuningCheckpoint(tmp_path / "kept", inputs="these", seconds=60, clock=clock)
    due = []
    for _ in range(8):
        clock.advance(20)
        due.append(checkpoint.is_due())
        if due[-1]:
            checkpoint.keep({}, steps=1, micro_batch=None, measured={})
    assert due == [False, False, True] * 2 + [False, False]


@pytest.mark.slow
def test_ten_lives_end_as_one(tmp_path: Path) -> None:
    """The process is killed after each of its steps, with no time to clean up, and the last one writes the same bytes.

    Nothing but the checkpoint and what it ends with is left.
    """
    subprocess.run(  # noqa: S603 - our own module
        [sys.executable, "-m", "tests.support.killed_cotuning", str(tmp_path)], cwd=ROOT, timeout=300, check=True
    )
    assert (tmp_path / "resumed").read_bytes() == (tmp_path / "whole").read_bytes()
    assert {file.name for file in tmp_path.iterdir()} == {"whole", "other", "kept", "resumed"}
