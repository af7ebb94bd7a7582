import random
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

from tests.fuzz import header_reader, share_decoder, signature_parser

ROOT = Path(__file__).parents[2]
TARGETS = (header_reader, signature_parser, share_decoder)
SECONDS = 20

targets = pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.__name__.rpartition(".")[2])


def mutated(seed: bytes, chance: random.Random) -> bytes:
    """Return a seed with some of its bytes changed, left out or doubled."""
    data = bytearray(seed)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(data) + 1)
        cut = chance.choice((0, 1, 1, 8))
        data[at : at + cut] = chance.choice((b"", b'"', b"\xff", chance.randbytes(2), bytes(data[at : at + 9])))
    return bytes(data)


@targets
def test_nothing_but_errors_of_the_tree_comes_out(target: ModuleType) -> None:
    """A fixed sample: each input that a fuzzer begins with, and a hundred that are nearly the same."""
    chance = random.Random(1)  # noqa: S311 - the same inputs each time
    for seed in target.SEEDS:
        target.target(seed)
        for _ in range(100):
            target.target(mutated(seed, chance))


@pytest.mark.slow
@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris 3.0.0 is for Python 3.11 only")
@targets
def test_fuzzing_finds_nothing(target: ModuleType, tmp_path: Path) -> None:
    """Twenty seconds of inputs that are led by which code they reach."""
    name = target.__name__.rpartition(".")[2]
    command = [sys.executable, "-m", "tests.fuzz.fuzzing", name, str(tmp_path / "found"), str(SECONDS)]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    assert answer.returncode == 0, answer.stderr[-4000:]
    tried = re.search(r"number_of_executed_units: (\d+)", answer.stderr)
    assert tried
    assert int(tried[1]) > 1000
