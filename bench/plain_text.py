"""Texts of equal length drawn from files of plain text, and which of them are for measuring alone.

Legend: N texts, T tokens of each.
"""

import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from transformers import PreTrainedTokenizerBase

from shared.errors import DataEmpty, DataUnreadable

HELD_OUT_TEXTS: Final = 32
"""Never trained on. Loss before and after is measured on them."""


@dataclass(frozen=True)
class Texts:
    """Token ids of equally long texts: those to measure on, and those to learn from in an order to go through."""

    held_out_NT: torch.Tensor
    training_NT: torch.Tensor

    @property
    def held_out_digest(self) -> str:
        """By which another program knows that it measures on the same texts."""
        return f"sha256:{hashlib.sha256(json.dumps(self.held_out_NT.tolist()).encode()).hexdigest()}"


def text_files(paths: Sequence[Path]) -> list[Path]:
    """Return the files, and the ``*.txt`` below the folders, that these paths name.

    Raises:
        DataUnreadable: a path does not exist.
        DataEmpty: there is no file.
    """
    for path in paths:
        if not path.exists():
            raise DataUnreadable(f"{path} does not exist: name files of plain text, or folders of .txt files")
    files = [file for path in paths for file in (sorted(path.rglob("*.txt")) if path.is_dir() else [path])]
    if not files:
        raise DataEmpty(f"there is no .txt file below {', '.join(map(str, paths))}: name files of plain text")
    return files


def passages(text: str, characters: int) -> Iterator[str]:
    """Cut a text at line ends into passages of at least so many characters; what is left at the end is dropped."""
    lines: list[str] = []
    size = 0
    for line in text.splitlines():
        lines.append(line)
        size += len(line) + 1
        if size >= characters:
            yield "\n".join(lines)
            lines, size = [], 0


def read_texts(
    paths: Sequence[Path], tokenizer: PreTrainedTokenizerBase, *, tokens: int, at_most: int, seed: int
) -> Texts:
    """Draw up to ``at_most`` texts of ``tokens`` tokens; the held-out ones come first, and none is drawn twice.

    Raises:
        DataUnreadable: a file cannot be read as UTF-8.
        DataEmpty: there is too little text.
    """
    found: set[str] = set()
    for file in text_files(paths):
        try:
            # Six characters a token: most passages then have enough tokens, and what is over is dropped.
            found.update(passages(file.read_text(encoding="utf-8"), 6 * tokens))
        except (OSError, UnicodeDecodeError) as error:
            raise DataUnreadable(f"cannot read {file}: {error}; name files of plain text in UTF-8") from error
    generator = random.Random(seed)  # noqa: S311 - an order of texts is no secret
    order = sorted(sorted(found), key=lambda _: generator.random())
    rows: list[list[int]] = []
    for passage in order:
        ids = tokenizer(passage, truncation=True, max_length=tokens, verbose=False)["input_ids"]
        if len(ids) == tokens:
            rows.append(ids)
        if len(rows) == at_most:
            break
    if len(rows) < 2 * HELD_OUT_TEXTS:
        raise DataEmpty(
            f"the text gives {len(rows)} passages of {tokens} tokens, and {2 * HELD_OUT_TEXTS} are needed, half of "
            "them to measure on: name more text, or lower --tokens"
        )
    return Texts(torch.tensor(rows[:HELD_OUT_TEXTS]), torch.tensor(rows[HELD_OUT_TEXTS:]))
