"""A program in another environment that is kept alive and asked: one line of JSON goes in, and one comes out."""

import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self, TextIO

from bench.environments import ROOT


def same_versions(*names: str) -> list[str]:
    """Return what pip is asked for, so that the other side has these packages as they are here."""
    return [f"{name}=={version(name).partition('+')[0]}" for name in names]


class OtherSide:
    """It runs ``python -m module``, loads what it needs once, and is ended with the block."""

    def __init__(self, python: Path, module: str, options: Sequence[str], *, changes: Mapping[str, str]) -> None:
        self._complaints = os.memfd_create("complaints")
        self._process = subprocess.Popen(  # noqa: S603 - our own programs
            [str(python), "-m", module, *options],
            cwd=ROOT,
            env={**os.environ, **changes},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        os.close(self._complaints)

    def ask(self, **question: object) -> Any:  # noqa: ANN401 - what JSON can say
        """Return the answer to one question.

        Raises:
            RuntimeError: it has ended; the message has the end of what it complained of.
        """
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("both are pipes")
        try:
            print(json.dumps(question), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            line = ""
        else:
            line = self._process.stdout.readline()
        if not line:
            said = os.pread(self._complaints, 1_000_000, 0)
            raise RuntimeError(f"the other side has ended:\n{said.decode(errors='replace')[-2000:]}")
        return json.loads(line)


def answer_questions(questions: TextIO, answers: TextIO, answer: Callable[..., object]) -> None:
    """Answer what ``ask`` asks, until there are no more questions."""
    for line in questions:
        print(json.dumps(answer(**json.loads(line))), file=answers, flush=True)
