import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import compare_derived, derive_slm
from bench.arc import arc_questions
from shared.data.examples import Example
from shared.errors import DataError, DataUnreadable
from tests.support.tiny_models import tiny_directory

Command = Callable[..., int]


def question(stem: str, texts: list[str], key: str) -> dict[str, object]:
    labels = "ABCDE" if key.isalpha() else "12345"
    choices = [{"text": text, "label": label} for text, label in zip(texts, labels, strict=False)]
    return {"id": "x", "question": {"stem": stem, "choices": choices}, "answerKey": key}


@pytest.fixture
def arc(tmp_path: Path) -> Path:
    """Two questions as AI2 writes them: one labels its choices with letters, one with numbers."""
    rows = [question("What is red?", ["a rose", "grass"], "B"), question("And blue?", ["sky", "sun", "sand"], "1")]
    file = tmp_path / "arc.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return file


@pytest.fixture
def command(tmp_path: Path, arc: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Compare an SLM that was derived from the book with another model, on the text that is named."""
    text = "\n".join(f"line {number} is red, line {number * 7} is blue" for number in range(800))
    (tmp_path / "book.txt").write_text(text)
    (tmp_path / "other.txt").write_text(text.replace("line", "row"))
    tiny_directory(tmp_path / "llm")
    tiny_directory(tmp_path / "other", seed=5)
    deriving = f"derive_slm --model {tmp_path / 'llm'} --text {tmp_path / 'book.txt'} --layers 2 --steps 0"
    monkeypatch.setattr(sys, "argv", [*deriving.split(), "--out", str(tmp_path / "slm"), "--tokens=8", "--texts=80"])
    assert derive_slm.main() == 0

    def compare(text: str) -> int:
        line = f"compare_derived --llm {tmp_path / 'llm'} --derived {tmp_path / 'slm'} --other {tmp_path / 'other'}"
        more = ["--text", str(tmp_path / text), "--questions", str(arc), "--out", str(tmp_path / "result.json")]
        monkeypatch.setattr(sys, "argv", [*line.split(), *more])
        return compare_derived.main()

    return compare


def test_questions_of_arc_are_read_as_they_are_published(arc: Path):
    """Whatever the labels of the choices are; the answer is told by its label."""
    assert arc_questions(arc) == [
        Example("Question: What is red?\nAnswer:", ("a rose", "grass"), 1),
        Example("Question: And blue?\nAnswer:", ("sky", "sun", "sand"), 0),
    ]


@pytest.mark.parametrize("line", ["no JSON", "[]", '{"question": {"stem": "?"}, "answerKey": "A"}'])
def test_other_files_are_not_taken_for_arc(tmp_path: Path, line: str):
    """No guess is made about what a column might mean."""
    (tmp_path / "file.jsonl").write_text(line)
    with pytest.raises(DataError, match=r"file\.jsonl, line 1"):
        arc_questions(tmp_path / "file.jsonl")
    with pytest.raises(DataUnreadable, match=r"there is no 'nowhere\.jsonl'"):
        arc_questions(tmp_path / "nowhere.jsonl")


def test_models_are_compared_on_the_texts_that_were_held_out(command: Command, tmp_path: Path):
    """The LLM is no distance from itself, and neither is a cut of no layer; another model is."""
    assert command("book.txt") == 0
    result = json.loads((tmp_path / "result.json").read_text())
    rows = result["models"]

    assert [row["model"] for row in rows] == ["LLM", "cut, not healed", "derived", "other"]
    assert [row["kl_to_llm"] for row in rows[:3]] == pytest.approx([0, 0, 0], abs=1e-4)
    assert rows[3]["kl_to_llm"] > 0.01
    assert {row["questions"] for row in rows} == {2}
    assert result["command"][:5] == ["python", "-m", "bench.compare_derived", "--llm", "llm"]


def test_other_texts_than_those_held_out_are_refused(command: Command, capsys: pytest.CaptureFixture[str]):
    """The SLM may have learnt from them."""
    assert command("other.txt") == 2
    assert "may have learnt from some" in capsys.readouterr().err
