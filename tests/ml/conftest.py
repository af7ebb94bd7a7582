"""One thread: the machine's cores are shared, and tiny tensors gain nothing from more."""

from collections.abc import Iterator

import pytest
import torch

from shared.data.examples import Example
from shared.ml.encoding import Encoded, encode_examples
from tests.support.tiny_models import tiny_tokenizer


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def examples() -> list[Example]:
    """Ten questions of different lengths, with answers of different lengths."""
    colours = ("red", "tan", "blue", "no hue")
    return [Example(f"{'x' * (i % 4)}{i} is", colours, (i * 7) % 4) for i in range(10)]


@pytest.fixture
def encoded(examples: list[Example]) -> list[Encoded]:
    """The same, tokenised with the right answers."""
    return encode_examples(tiny_tokenizer(), examples, max_tokens=64)
