"""``python -m bench.paper``, as it is typed."""

import json
import sys
from pathlib import Path

import pytest

from bench.data_settings import EXAMPLES
from bench.paper import __main__
from tests.support.tiny_models import tiny_directory

EXPERIMENT = f"""
title = "A tiny pair"
llm = "llm"
slm = "slm"
seeds = [1]
methods = ["lambda-0"]
preset = "paper-gpt2"

[terms]
rounds = 1
training.max_tokens = 64

[data]
settings = "{EXAMPLES / "arc.toml"}"
train = "train.jsonl"
validation_examples = 2
"""


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with models, a data set and an experiment, and the command on the command line."""
    for name, seed in (("llm", 1), ("slm", 2)):
        tiny_directory(tmp_path / name, seed=seed)
    choices = [{"text": "red", "label": "A"}, {"text": "tan", "label": "B"}]
    rows = [{"question": {"stem": f"{one} is", "choices": choices}, "answerKey": "AB"[one % 2]} for one in range(22)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "tiny.toml").write_text(EXPERIMENT)
    folders = {name: str(tmp_path) for name in ("--data", "--models")}
    folders |= {"--out": str(tmp_path / "report"), "--cache": str(tmp_path / "cache")}
    arguments = [word for option in folders.items() for word in option]
    monkeypatch.setattr(sys, "argv", ["bench.paper", str(tmp_path / "tiny.toml"), *arguments])
    return tmp_path


def test_what_has_been_run_is_not_run_again(typed: Path, capsys: pytest.CaptureFixture[str]):
    """The command prints the report; typed again, it reads what it kept, and the models are not loaded."""
    __main__.main()
    report = capsys.readouterr().out
    assert "| FedCoLLM, lambda = 0 |" in report
    assert "- 2 runs on 20" in report
    assert report == (typed / "report" / "report.md").read_text() + "\n"
    kept = {file: file.stat().st_mtime_ns for file in (typed / "cache" / "cells").iterdir()}
    assert len(kept) == 2
    assert list((typed / "cache" / "runs").iterdir()) == []
    __main__.main()
    assert {file: file.stat().st_mtime_ns for file in (typed / "cache" / "cells").iterdir()} == kept


def test_a_variant_that_changes_nothing_is_the_same_run(typed: Path, capsys: pytest.CaptureFixture[str]):
    """It is run once, and has a row of its own beside FedCoLLM's."""
    said = EXPERIMENT.replace('["lambda-0"]', '["fedcollm"]')
    (typed / "tiny.toml").write_text(f'{said}\n[variants."lambda = 1"]\ncotuning.distillation_weight = 1.0\n')
    __main__.main()
    report = capsys.readouterr().out
    assert report.count("| FedCoLLM |") == report.count("| lambda = 1 |") == 3
    assert len(list((typed / "cache" / "cells").iterdir())) == 2


def test_a_run_that_fails_is_named(typed: Path, capsys: pytest.CaptureFixture[str]):
    """With its reason, and the others are kept."""
    (typed / "tiny.toml").write_text(EXPERIMENT.replace("max_tokens = 64", "max_tokens = 2"))
    with pytest.raises(SystemExit, match=r"(?s)2 of 2 runs have failed.*lambda-0-1: .*tokens"):
        __main__.main()
    assert "| method |" not in capsys.readouterr().out
