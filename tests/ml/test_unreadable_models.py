"""Models of another user, as a container meets them, and what each part of the program says of them."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from shared.errors import ModelUnreadable
from shared.ml import hub
from shared.ml.digests import base_model_digest
from shared.ml.memory import Load, estimate
from shared.ml.models import load_base, load_tokenizer
from shared.protocol.terms import LoraTerms
from tests.support.tiny_models import tiny_directory
from tests.support.users import as_nobody, folder_for_all


@pytest.fixture
def model() -> Iterator[Path]:
    """A model in a folder of its own, all of which others may read."""
    with folder_for_all() as parent:
        folder = tiny_directory(parent / "models" / "llm")
        for path in parent.rglob("*"):
            path.chmod(0o755)
        yield folder
        for path in (parent / "models", folder):
            path.chmod(0o755)


def tokenizer(folder: Path) -> None:
    load_tokenizer(folder)


def digest(folder: Path) -> None:
    base_model_digest(folder)


def weights(folder: Path) -> None:
    load_base(folder, dtype="float32", device=torch.device("cpu"))


def memory(folder: Path) -> None:
    estimate(folder, dtype="float32", lora=LoraTerms(), training=Load(1, 8, 2))


EVERYBODY = (tokenizer, digest, weights, memory)


@pytest.mark.parametrize(
    ("closed", "readers"),
    [
        ("config.json", EVERYBODY),
        ("model.safetensors", (digest, weights)),
        ("tokenizer.json", (tokenizer, digest)),
        (".", EVERYBODY),
        ("..", EVERYBODY),
    ],
)
def test_what_may_not_be_read_is_named_with_a_way_out(
    model: Path, closed: str, readers: tuple[Callable[[Path], None], ...]
):
    """Whose it is, and whose this process is; to fetch the model again would not help."""
    path = Path(os.path.normpath(model / closed))
    path.chmod(0)
    for read in readers:
        with as_nobody(), pytest.raises(ModelUnreadable) as told:
            read(model)
        assert f"{path} belongs to user" in str(told.value)
        assert "chmod o+r" in str(told.value)
    path.chmod(0o755)
    with as_nobody():
        for read in readers:
            read(model)


def test_a_cached_model_that_may_not_be_read_is_not_fetched_again(model: Path, monkeypatch: pytest.MonkeyPatch):
    """A cache that another user filled: to fetch the same once more would end the same way."""
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: str(model))
    monkeypatch.setattr(hub, "_fetched", lambda _: pytest.fail("a hub was asked"))
    weights_file = model / "model.safetensors"
    weights_file.chmod(0)
    with as_nobody(), pytest.raises(ModelUnreadable, match=r"model\.safetensors belongs to user"):
        hub.model_directory("org/model")
