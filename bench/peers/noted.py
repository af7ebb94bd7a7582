"""What a system's own programs have noted in the folder of a case (bench/peers/payload.py)."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from bench.peers.systems import RoundEnd


@dataclass(frozen=True)
class Training:
    """A training has ended at ``at``."""

    at: float
    seconds: float


ROUND_END, TRAINING = TypeAdapter(RoundEnd), TypeAdapter(Training)


def rounds(folder: Path) -> list[RoundEnd]:
    """Return the rounds that have ended."""
    return [ROUND_END.validate_json(line) for line in _lines(folder / "rounds.jsonl")]


def trainings(folder: Path) -> list[Training]:
    """Return what each training took."""
    return [TRAINING.validate_json(line) for line in _lines(folder / "trainings.jsonl")]


def _lines(file: Path) -> Iterator[bytes]:
    """Yield the lines that are whole."""
    if file.exists():
        yield from (line for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n"))
