import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from shared.errors import ModelUnreadable
from shared.ml import checkpoint, digests
from shared.ml.digests import base_model_digest, tokenizer_digest
from shared.ml.models import load_tokenizer
from tests.support.tiny_models import tiny_directory, tiny_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_directory(tmp_path / "model")


def edit_json(file: Path, **fields: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def edit_weights(file: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def test_a_tokenizers_digest_is_of_its_content(folder: Path, tmp_path: Path):
    """Saved, moved and loaded it is the same; its state of truncation and padding is no content."""
    expected = tokenizer_digest(load_tokenizer(folder))
    assert expected.startswith("sha256:")
    assert len(expected) == 71
    moved = load_tokenizer(folder.rename(tmp_path / "moved"))
    moved.backend_tokenizer.enable_truncation(5)
    moved.backend_tokenizer.enable_padding(pad_id=3)
    assert tokenizer_digest(moved) == expected


def test_another_token_or_merge_is_another_tokenizer(folder: Path):
    """Added tokens and the order of merges change what a text becomes."""
    seen = {tokenizer_digest(tiny_tokenizer())}
    added = load_tokenizer(folder)
    added.add_tokens(["<extra>"])
    seen.add(tokenizer_digest(added))
    special = load_tokenizer(folder)
    special.add_special_tokens({"pad_token": "<extra>"})
    seen.add(tokenizer_digest(special))
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["merges"].reverse()
    (folder / "tokenizer.json").write_text(json.dumps(content))
    seen.add(tokenizer_digest(load_tokenizer(folder)))
    assert len(seen) == 4


def test_copying_and_resharding_keep_a_models_digest(folder: Path, tmp_path: Path):
    """Names of files and how tensors are spread over them are not the model."""
    resharded = tiny_directory(tmp_path / "shards", max_shard_size="40KB")
    assert len(list(resharded.glob("*.safetensors"))) > 2
    assert not (resharded / "model.safetensors").exists()
    assert base_model_digest(resharded) == base_model_digest(folder)
    assert base_model_digest(str(folder)) == base_model_digest(folder)


def test_other_checkpoints_beside_the_model_are_not_the_model(folder: Path):
    """What transformers does not load does not count (some repositories hold a second format)."""
    expected = base_model_digest(folder)
    save_file({"x": torch.ones(3)}, folder / "consolidated.safetensors")
    (folder / "README.md").write_text("read me")
    assert base_model_digest(folder) == expected


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors["model.norm.weight"].view(-1)[3:4].add_(1e-6),
        lambda tensors: tensors.update({"model.norm.weight": tensors["model.norm.weight"].to(torch.bfloat16)}),
        lambda tensors: tensors.update({"model.norm.weight": tensors["model.norm.weight"].reshape(2, -1)}),
        lambda tensors: tensors.update({"model.norm.gain": tensors.pop("model.norm.weight")}),
        lambda tensors: tensors.pop("model.norm.weight"),
    ],
    ids=["value", "dtype", "shape", "name", "absence"],
)
def test_any_change_of_the_weights_changes_the_digest(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], object]
):
    """One bit, a number format, a shape, a name: each is another base model."""
    before = base_model_digest(folder)
    edit_weights(folder / "model.safetensors", change)
    assert base_model_digest(folder) != before


def test_tokenizer_and_relevant_configuration_count_and_the_rest_does_not(folder: Path):
    """How a model was saved does not matter; what it computes does."""
    before = base_model_digest(folder)
    edit_json(folder / "config.json", transformers_version="0.0.1", torch_dtype="float16", _name_or_path="/elsewhere")
    assert base_model_digest(folder) == before
    seen = {before}
    for field, value in {
        "rms_norm_eps": 0.5,
        "num_attention_heads": 8,
        "rope_theta": 5e5,  # as older releases write it
        "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"},
        "tie_word_embeddings": True,
    }.items():
        edit_json(folder / "config.json", **{field: value})
        seen.add(base_model_digest(folder))
    tokenizer = load_tokenizer(folder)
    tokenizer.add_tokens(["<extra>"])
    tokenizer.save_pretrained(folder)
    seen.add(base_model_digest(folder))
    assert len(seen) == 7


def test_weights_are_streamed(folder: Path):
    """A tensor of 32 MB takes no more than a few pieces of memory."""
    edit_weights(folder / "model.safetensors", lambda tensors: tensors.update(large=torch.zeros(8_000_000)))
    tensor = next(stored for name, stored in checkpoint.read_header(folder / "model.safetensors") if name == "large")
    tracemalloc.start()
    try:
        digests._bytes_digest(tensor)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_the_cache_spares_reading_an_unchanged_model_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The second call reads no weights; a file with a new time or size does away with the entry."""
    cache, read = tmp_path / "state" / "digests.json", []
    real = digests._digest
    monkeypatch.setattr(digests, "_digest", lambda directory: read.append(directory) or real(directory))
    first = base_model_digest(folder, cache=cache)
    assert base_model_digest(folder, cache=cache) == first
    assert len(read) == 1
    os.utime(folder / "model.safetensors", ns=(1, 1))
    assert base_model_digest(folder, cache=cache) == first
    assert len(read) == 2
    edit_weights(folder / "model.safetensors", lambda tensors: tensors["model.norm.weight"].add_(1))
    assert base_model_digest(folder, cache=cache) != first
    assert len(read) == 3
    other = tiny_directory(tmp_path / "other", seed=1)
    assert base_model_digest(other, cache=cache) == base_model_digest(other, cache=cache)
    base_model_digest(folder, cache=cache)
    assert len(read) == 4
    assert [file.name for file in cache.parent.iterdir()] == ["digests.json"]


@pytest.mark.parametrize("damage", ["", "[]", '{"half', '{"DIR": 3}', '{"DIR": {"files": [], "digest": "x"}}'])
def test_a_damaged_cache_counts_as_none(folder: Path, tmp_path: Path, damage: str):
    """It is only a cache: whatever it holds, the digest is right, and it is mended."""
    cache = tmp_path / "digests.json"
    cache.write_text(damage.replace("DIR", str(folder.resolve())))
    expected = base_model_digest(folder)
    assert base_model_digest(folder, cache=cache) == expected
    assert json.loads(cache.read_text())[str(folder.resolve())]["digest"] == expected


def test_a_cache_that_cannot_be_written_is_done_without(folder: Path, tmp_path: Path):
    """The disk is full, or the folder another user's."""
    (tmp_path / "file").write_text("")
    assert base_model_digest(folder, cache=tmp_path / "file" / "digests.json") == base_model_digest(folder)


def shorten(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])


def claim_a_huge_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((2**62).to_bytes(8, "little") + b"{}")


def break_the_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((4).to_bytes(8, "little") + b'{"a"')


def list_for_a_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"[]")


def nest_the_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((100_000).to_bytes(8, "little") + b"[" * 100_000)


def point_elsewhere(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "model.safetensors")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../model.safetensors"}}')


def lose_a_shard(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors"}}')


def empty_the_index(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text("{}")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shorten, "is not a whole safetensors file"),
        (claim_a_huge_header, "is not a whole safetensors file"),
        (break_the_header, "is not a whole safetensors file"),
        (list_for_a_header, "is not a whole safetensors file"),
        (nest_the_header, "is not a whole safetensors file"),
        (point_elsewhere, "names files that are not beside it"),
        (lambda folder: (folder / "config.json").write_text("[" * 100_000), "is not JSON"),
        (lose_a_shard, r"model-1\.safetensors is missing"),
        (empty_the_index, "has no weight_map"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"has neither model\.safetensors nor"),
        (lambda folder: (folder / "config.json").unlink(), r"has no config\.json"),
        (lambda folder: (folder / "config.json").write_text("[]"), "is not a JSON object"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "no tokenizer can be loaded"),
    ],
)
def test_a_damaged_model_is_unreadable(folder: Path, damage: Callable[[Path], object], message: str):
    """Each damage has a message that names the file."""
    damage(folder)
    with pytest.raises(ModelUnreadable, match=message):
        base_model_digest(folder)


def test_a_tensor_in_two_shards_is_refused(folder: Path):
    """Which of the two counts would depend on who loads it."""
    for shard in ("a", "b"):
        save_file({"x": torch.ones(3)}, folder / f"{shard}.safetensors")
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelUnreadable, match="'x' is in both"):
        base_model_digest(folder)
