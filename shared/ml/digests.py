"""Digests by which two machines know that they have the same tokenizer and the same base model.

By content: a copied, renamed or resharded model keeps its digest. Weights are read in small pieces and never held.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from shared.errors import ModelUnreadable
from shared.ml.models import load_tokenizer, model_directory

_PIECE_BYTES = 1 << 20
_LARGEST_HEADER_BYTES = 100_000_000  # the safetensors format's own limit

# Fields of config.json that say how a model was saved or is to be run, not what it computes.
_IRRELEVANT_CONFIG = frozenset(
    {
        "_name_or_path",
        "_attn_implementation",
        "auto_map",
        "dtype",
        "id2label",
        "label2id",
        "pad_token_id",
        "problem_type",
        "task_specific_params",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
)


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return "sha256:<hex>" of everything that decides which token ids a text becomes.

    That is vocabulary, merges, normaliser, splitting, added and special tokens, and what is put around a text. File
    names, chat templates and the present state of truncation and padding are left out.

    Raises:
        ModelUnreadable: the tokenizer has no such description (it is not a fast one).
    """
    if not tokenizer.is_fast:
        raise ModelUnreadable("the tokenizer has no tokenizer.json form to take a digest of: convert it to one")
    content: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    for state in ("truncation", "padding"):
        content.pop(state, None)
    return _named(hashlib.sha256(_canonical(content)))


def base_model_digest(path: str | Path, *, cache: Path | None = None) -> str:
    """Return "sha256:<hex>" of a base model: weights, tokenizer, and the configuration that decides what it computes.

    The weights count by sorted (tensor name, dtype, shape, bytes), whichever files they are spread over.

    Args:
        path: a folder in Hugging Face format, or a hub id.
        cache: a JSON file that keeps digests by size and modification time of the model's files, so that only a changed
            model is read again. It is made when absent, and a damaged one counts as absent.

    Raises:
        ModelUnreadable: configuration, tokenizer or weights are missing or damaged.
    """
    directory = model_directory(path).resolve()
    stats = _file_stats(directory)
    known = _read_cache(cache)
    entry = known.get(str(directory))
    if isinstance(entry, dict) and entry.get("files") == stats and isinstance(entry.get("digest"), str):
        return str(entry["digest"])
    digest = _digest(directory)
    if cache is not None:
        _write_cache(cache, known | {str(directory): {"files": stats, "digest": digest}})
    return digest


@dataclass(frozen=True)
class _Stored:
    """Where a tensor's bytes lie."""

    file: Path
    dtype: str
    shape: list[int]
    start: int
    stop: int


def _digest(directory: Path) -> str:
    whole = hashlib.sha256(b"fedcollm base model 1\n")
    config = _read_json(directory / "config.json")
    whole.update(_canonical({name: value for name, value in config.items() if name not in _IRRELEVANT_CONFIG}))
    whole.update(f"\n{tokenizer_digest(load_tokenizer(directory))}\n".encode())
    stored: dict[str, _Stored] = {}
    for file in _weight_files(directory):
        for name, tensor in _read_header(file):
            if name in stored:
                raise ModelUnreadable(
                    f"tensor {name!r} is in both {stored[name].file.name} and {file.name} of {directory}: "
                    "fetch the model again"
                )
            stored[name] = tensor
    for name in sorted(stored):
        tensor = stored[name]
        # Each tensor's own digest has a fixed length, so no bytes can move from one tensor to the next unseen.
        line = [name, tensor.dtype, tensor.shape, _bytes_digest(tensor)]
        whole.update(_canonical(line) + b"\n")
    return _named(whole)


def _weight_files(directory: Path) -> list[Path]:
    """The files that transformers would load: others beside them (another format's copy, say) are not the model."""
    single = directory / "model.safetensors"
    if single.is_file():
        return [single]
    index = directory / "model.safetensors.index.json"
    if not index.is_file():
        raise ModelUnreadable(
            f"{directory} has neither model.safetensors nor model.safetensors.index.json: "
            "weights are read from safetensors only, convert the model"
        )
    weight_map = _read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelUnreadable(f"{index} has no weight_map: fetch the model again")
    return [directory / name for name in sorted({str(name) for name in weight_map.values()})]


def _read_header(file: Path) -> Iterator[tuple[str, _Stored]]:
    """Yield the tensors that a safetensors file says it holds (8 bytes length, JSON, then the data)."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > min(size, _LARGEST_HEADER_BYTES):
                raise _damaged(file)
            header = json.loads(stream.read(length))
        data = 8 + length
        for name, entry in header.items():
            if name != "__metadata__":
                start, stop = entry["data_offsets"]
                if not 0 <= start <= stop <= size - data:
                    raise _damaged(file)
                yield name, _Stored(file, str(entry["dtype"]), list(entry["shape"]), data + start, data + stop)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(file) from error


def _bytes_digest(tensor: _Stored) -> str:
    own = hashlib.sha256()
    left = tensor.stop - tensor.start
    try:
        with tensor.file.open("rb") as stream:
            stream.seek(tensor.start)
            while left:
                piece = stream.read(min(left, _PIECE_BYTES))
                if not piece:
                    raise _damaged(tensor.file)
                own.update(piece)
                left -= len(piece)
    except OSError as error:
        raise _damaged(tensor.file) from error
    return own.hexdigest()


def _damaged(file: Path) -> ModelUnreadable:
    return ModelUnreadable(f"{file} is missing, or is not a whole safetensors file: fetch the model again")


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelUnreadable(f"{file} is missing, or is not JSON: fetch the model again") from error
    if not isinstance(content, dict):
        raise ModelUnreadable(f"{file} is not a JSON object: fetch the model again")
    return content


def _file_stats(directory: Path) -> list[list[str | int]]:
    """Name, size in bytes and modification time in nanoseconds of every file, in the form that JSON gives back."""
    files = sorted(entry for entry in directory.iterdir() if entry.is_file())
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _read_cache(cache: Path | None) -> dict[str, Any]:
    if cache is None:
        return {}
    try:
        content = json.loads(cache.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_cache(cache: Path, content: dict[str, Any]) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    new = cache.with_name(f"{cache.name}.{os.getpid()}.new")
    new.write_text(json.dumps(content, sort_keys=True, indent=1), encoding="utf-8")
    new.replace(cache)


def _canonical(content: object) -> bytes:
    return json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def _named(digest: "hashlib._Hash") -> str:
    return f"sha256:{digest.hexdigest()}"
