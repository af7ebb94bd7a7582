"""Every file of tests/support/hostile_blobs.py is refused: by a named error, in 50 ms, in 20 MB."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from shared.errors import BlobTruncated
from shared.protocol.codec import MAX_PARSED_BYTES, read_file, require_file, require_header
from tests.support.hostile_blobs import (
    HOSTILE,
    Attacked,
    HostileFile,
    long_headers,
    long_lists,
    lora_layout,
    many_tensors,
    metadata,
    not_finite,
    truncated,
)

ROOT = Path(__file__).parents[2]
SMALL = Attacked(lora_layout(2, width=64))
Class = Callable[[Attacked], Iterator[HostileFile]]

# What is compared with: an adapter of 1,572,864 numbers, and one whose header is the longest that is parsed.
LAYOUTS = {"usual": lora_layout(24), "long": lora_layout(258, width=7)}

SECONDS = 0.050
BYTES = 20_000_000


def test_there_are_enough_classes() -> None:
    """At least 15, each with a sentence on what it tries."""
    assert len(HOSTILE) >= 15
    assert all(make.__doc__ for make in HOSTILE)


def test_the_longest_header_that_is_parsed_is_among_the_attacked() -> None:
    """The time and memory below are those of the worst case, within a few per cent."""
    assert 0.95 * MAX_PARSED_BYTES < len(Attacked(LAYOUTS["long"]).header) <= MAX_PARSED_BYTES


@pytest.mark.parametrize("make", HOSTILE, ids=lambda make: make.__name__)
def test_every_hostile_file_is_refused_and_told_why(make: Class, tmp_path: Path) -> None:
    """Where it is checked and where it is read: an error of the tree, and a message that is no book."""
    path = tmp_path / "blob"
    files = list(make(SMALL))
    assert len({(file.content, file.size) for file in files}) == len({file.what for file in files}) >= 3
    for file in files:
        file.write(path)
        for take in (require_file, read_file):
            with pytest.raises(HOSTILE[make]) as refusal:
                take(path, SMALL.layout)
            assert len(str(refusal.value)) < 500, file.what
            assert str(refusal.value).isprintable(), file.what


def test_the_honest_file_is_taken(tmp_path: Path) -> None:
    """What all of them were bent from is no hostile file itself."""
    path = tmp_path / "blob"
    path.write_bytes(SMALL.blob)
    require_file(path, SMALL.layout)
    assert read_file(path, SMALL.layout).keys() == SMALL.layout.keys()


def measured(make: Class, attacked: Attacked) -> list[dict[str, float | str]]:
    """Have a fresh process refuse a class's files, and return what it measured."""
    with TemporaryDirectory() as folder:
        files, layout = Path(folder, "files"), Path(folder, "layout.json")
        files.mkdir()
        layout.write_text(json.dumps(attacked.layout))
        for number, file in enumerate(make(attacked)):
            file.write(files / f"{number:03}")
        command = [sys.executable, "-m", "tests.support.refused_files", str(files), str(layout)]
        answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603 - ours
    return [json.loads(line) for line in answer.stdout.splitlines()]


@pytest.mark.parametrize("make", [many_tensors, metadata, long_headers, long_lists, not_finite, truncated])
def test_the_most_costly_files_are_refused_quickly(make: Class) -> None:
    """Files on which safetensors alone spends half a minute and gigabytes take 50 ms and 20 MB."""
    for file in measured(make, Attacked(LAYOUTS["usual"])):
        assert (file["code"], file["seconds"] < SECONDS, file["bytes"] < BYTES) == (HOSTILE[make].code, True, True), (
            file
        )


@pytest.mark.slow
@pytest.mark.parametrize("which", LAYOUTS)
@pytest.mark.parametrize("make", HOSTILE, ids=lambda make: make.__name__)
def test_every_hostile_file_is_refused_quickly(make: Class, which: str) -> None:
    """All of them, against a usual layout and against the one that leaves them most room."""
    for file in measured(make, Attacked(LAYOUTS[which])):
        assert (file["code"], file["seconds"] < SECONDS, file["bytes"] < BYTES) == (HOSTILE[make].code, True, True), (
            file
        )


@pytest.mark.slow
def test_a_blob_cut_at_any_byte_of_its_header_is_called_truncated() -> None:
    """All 12,608 of them, of an adapter of the usual size."""
    attacked = Attacked(LAYOUTS["usual"])
    for size in range(len(attacked.header)):
        with pytest.raises(BlobTruncated):
            require_header(attacked.header[:size], size, attacked.layout)
