"""The demo as a person runs it: `python -m examples.demo` in a process of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from examples.demo.preset import AGENTS, EVALUATED_ITEMS, MODELS, VALIDATION_ITEMS, demo_terms

MOST_SECONDS = 180
FINISHED, INTERRUPTED = 0, 130


@contextmanager
def demo(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A demo that puts its runs into ``folder``; should it still go on at the end, it is killed."""
    process = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "examples.demo", "--seed", "7", "--folder", str(folder)],
        env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def read_until(process: subprocess.Popen[str], words: str) -> None:
    """Read what the demo prints until a line has these words in it."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if words in line:
            return
    raise AssertionError(f"{words!r} was never printed:\n{''.join(seen)}")


def processes_of(folder: Path) -> list[str]:
    """The commands of running processes that were given a path in ``folder``, from their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue  # it has ended, or belongs to somebody else
    return found


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="asks Linux which processes there are")
def test_ctrl_c_stops_every_process_even_when_pressed_twice(tmp_path: Path):
    """After Ctrl-C in the middle of a run nothing is left running, and the demo says that it was interrupted."""
    with demo(tmp_path) as process:
        read_until(process, "update.ready round 1")
        assert len(processes_of(tmp_path)) >= 2 + 2 * len(AGENTS)  # each agent has a trainer
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        read_until(process, "interrupted")
        assert process.wait(timeout=30) == INTERRUPTED
    assert processes_of(tmp_path) == []


@pytest.mark.slow
@pytest.mark.timeout(2 * MOST_SECONDS)
def test_two_demos_in_a_row_leave_adapters_that_load_and_are_better(tmp_path: Path):
    """A run ends in time with PEFT directories, metrics and events; a second one is a run of its own."""
    for count in (1, 2):
        with demo(tmp_path) as process:
            output, _ = process.communicate(timeout=MOST_SECONDS)
        assert process.returncode == FINISHED, output
        assert len(list(tmp_path.iterdir())) == count
        assert "chance is 25.0 %" in output
    first, second = sorted(tmp_path.iterdir())

    metrics = json.loads((first / "metrics.json").read_text())
    assert metrics["seconds"] <= MOST_SECONDS
    assert len(metrics["rounds"]) == demo_terms(0).rounds
    for row in metrics["rounds"]:
        assert row["evaluation"]["examples"] == row["accepted"] * EVALUATED_ITEMS
    base, last = metrics["run"]["base_scores"], metrics["rounds"][-1]["scores"]
    for name in ("slm", "llm"):
        assert last[name]["examples"] == VALIDATION_ITEMS
        assert last[name]["accuracy"] > base[name]["accuracy"]
    assert set(metrics["agents"]) == set(AGENTS)

    events = [json.loads(line) for line in (first / "events.jsonl").read_text().splitlines()]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["kind"] == "run.finished"

    for name in ("slm", "llm"):
        ids = torch.tensor([[1, 2, 3]])
        model = AutoModelForCausalLM.from_pretrained(MODELS / name)
        before = model(input_ids=ids).logits
        tuned = PeftModel.from_pretrained(model, str(first / f"{name}-adapter"))
        assert not torch.equal(tuned(input_ids=ids).logits, before)
    assert same_scores(first, second)


def same_scores(*folders: Path) -> bool:
    """Whether runs gave the same scores, to the last bit."""
    found = [[row["scores"] for row in json.loads((each / "metrics.json").read_text())["rounds"]] for each in folders]
    return all(each == found[0] for each in found)
