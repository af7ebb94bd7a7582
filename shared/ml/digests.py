"""Digests by which two machines know that they have the same tokenizer and the same base model.

By content: a copied, renamed or resharded model keeps its digest. Weights are read in small pieces and never held.
``config.json`` counts as it is written: what transformers makes of it differs from release to release, and the same
files would then be two models on two machines.
"""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from shared.errors import ModelUnreadable
from shared.ml.checkpoint import StoredTensor, damaged, read_config, reading, stored_tensors
from shared.ml.models import base_directory, load_tokenizer

_PIECE_BYTES = 1 << 20

SAME_FILES = (
    "copy the folder that the run was prepared with, or fetch the same files; a model that was saved again, by another "
    "release of transformers or in another number format, is another one"
)
"""What to do where another model is installed."""

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
        ModelUnreadable: configuration, tokenizer or weights are missing or damaged, or may not be read.
    """
    directory = base_directory(path).resolve()
    with reading(directory):
        stats = _file_stats(directory)
    known = _read_cache(cache)
    entry = known.get(str(directory))
    if isinstance(entry, dict) and entry.get("files") == stats and isinstance(entry.get("digest"), str):
        return str(entry["digest"])
    digest = _digest(directory)
    if cache is not None:
        _write_cache(cache, known | {str(directory): {"files": stats, "digest": digest}})
    return digest


def _digest(directory: Path) -> str:
    whole = hashlib.sha256(b"fedcollm base model 1\n")
    config = read_config(directory)
    whole.update(_canonical({name: value for name, value in config.items() if name not in _IRRELEVANT_CONFIG}))
    whole.update(f"\n{tokenizer_digest(load_tokenizer(directory))}\n".encode())
    stored = stored_tensors(directory)
    for name in sorted(stored):
        tensor = stored[name]
        # Each tensor's own digest has a fixed length, so no bytes can move from one tensor to the next unseen.
        line = [name, tensor.dtype, tensor.shape, _bytes_digest(tensor)]
        whole.update(_canonical(line) + b"\n")
    return _named(whole)


def _bytes_digest(tensor: StoredTensor) -> str:
    own = hashlib.sha256()
    left = tensor.stop - tensor.start
    with reading(tensor.file), tensor.file.open("rb") as stream:
        stream.seek(tensor.start)
        while left:
            piece = stream.read(min(left, _PIECE_BYTES))
            if not piece:
                raise damaged(tensor.file)
            own.update(piece)
            left -= len(piece)
    return own.hexdigest()


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
    new = cache.with_name(f"{cache.name}.{os.getpid()}.new")
    with suppress(OSError):  # a disk that is full, or somebody else's: the digest is known, and taken again next time
        cache.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(json.dumps(content, sort_keys=True, indent=1), encoding="utf-8")
        new.replace(cache)


def _canonical(content: object) -> bytes:
    return json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def _named(digest: "hashlib._Hash") -> str:
    return f"sha256:{digest.hexdigest()}"
