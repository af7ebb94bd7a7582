"""The files of a base model in Hugging Face format: which they are, and what they say of it. No torch.

Nothing here reads the weights themselves, so that a model can be looked at before there is room for it.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.access import refusal
from shared.adapter_folder import CONFIG as ADAPTER_CONFIG
from shared.errors import ModelUnreadable

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_LARGEST_HEADER_BYTES = 100_000_000  # the safetensors format's own limit

# What decides which tokens a text becomes, and goes where a model goes.
_TOKENIZER_FILES = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "chat_template*",
)

# A card begins with its metadata, between two lines of dashes; a licence of its own is ``other`` with a name.
_CARD_CHARACTERS, _CARD_PARTS = 100_000, 3
_LICENCE = re.compile(r"^(license|license_name): *[\"']?([A-Za-z0-9][A-Za-z0-9._+ -]{0,63}?)[\"']? *$", re.MULTILINE)

# What families call the longest text that they take in; most the first, GPT-2 the second.
_CONTEXT_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len", "model_max_length")


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor's bytes lie."""

    file: Path
    dtype: str
    shape: list[int]
    start: int
    stop: int


def licence(directory: Path) -> str | None:
    """Return the licence that a model's own card states, in ``README.md``; None if there is none to be read."""
    try:
        text = (directory / "README.md").read_text(encoding="utf-8", errors="replace")[:_CARD_CHARACTERS]
    except OSError:  # nobody needs the card to train
        return None
    parts = text.split("---", 2)
    if parts[0].strip() or len(parts) != _CARD_PARTS:
        return None
    stated = dict(_LICENCE.findall(parts[1]))
    return stated.get("license_name") or stated.get("license")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Read a model's files, below ``path``, inside this: what the disk refuses is told in words.

    Raises:
        ModelUnreadable: a file is not there, or this process may not read it.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise ModelUnreadable(f"{error.filename or path} is missing: fetch the model again") from error
    except OSError as error:
        raise ModelUnreadable(refusal(Path(error.filename or path), error)) from error


def read_config(directory: Path) -> dict[str, Any]:
    """Return what ``config.json`` says.

    Raises:
        ModelUnreadable: there is none, this process may not read it, or it is not JSON.
    """
    file = directory / "config.json"
    with reading(file):
        if not file.is_file():
            raise ModelUnreadable(
                f"{str(directory)!r} has no config.json: it is not the folder of a Hugging Face model"
            )
    return _read_json(file)


def base_config(directory: Path) -> dict[str, Any]:
    """Return what ``config.json`` says of a folder that holds a base model as it was trained.

    Raises:
        ModelUnreadable: as ``read_config``, or the folder holds something that libraries would make another model of,
            without a word: an adapter, which its digest does not see, or weights that are quantised already.
    """
    with reading(directory):
        names = {file.name for file in directory.iterdir()}
    if ADAPTER_CONFIG in names:
        raise ModelUnreadable(
            f"{directory} holds an adapter: merge it first with `adapters export --merged`, or move {ADAPTER_CONFIG} "
            "away, if the model beside it is meant"
        )
    config = read_config(directory)
    for part in (config, config.get("text_config")):
        if isinstance(part, dict) and part.get("quantization_config"):
            raise ModelUnreadable(
                f"the weights in {directory} are quantised already: name the unquantised model (dtype nf4 holds it in "
                "four bits)"
            )
    return config


def tokenizer_files(directory: Path) -> list[Path]:
    """Return the files of the model's tokenizer, each of which can be read.

    Raises:
        ModelUnreadable: one cannot. A library might pass over it, and make another tokenizer of the others.
    """
    with reading(directory):
        files = sorted(file for pattern in _TOKENIZER_FILES for file in directory.glob(pattern) if file.is_file())
        for file in files:
            file.open("rb").close()
    return files


def context_length(config: Mapping[str, Any]) -> int | None:
    """Return how many tokens a model takes in, or None where its configuration does not say so.

    A file need not say what is its family's default: transformers' configuration, as a dictionary, says that too.
    """
    text = config.get("text_config")  # of a model that sees as well
    text = text if isinstance(text, dict) else config
    return next((text[name] for name in _CONTEXT_NAMES if isinstance(text.get(name), int)), None)


def stored_tensors(directory: Path) -> dict[str, StoredTensor]:
    """Return where each tensor of the model lies, by its name.

    Raises:
        ModelUnreadable: weights are missing, damaged, or in no format that is safe to read.
    """
    stored: dict[str, StoredTensor] = {}
    with reading(directory):
        files = _weight_files(directory)
    for file in files:
        for name, tensor in read_header(file):
            if name in stored:
                raise ModelUnreadable(
                    f"tensor {name!r} is in both {stored[name].file.name} and {file.name} of {directory}: "
                    "fetch the model again"
                )
            stored[name] = tensor
    return stored


def read_header(file: Path) -> Iterator[tuple[str, StoredTensor]]:
    """Yield the tensors that a safetensors file says it holds (8 bytes length, JSON, then the data).

    Raises:
        ModelUnreadable: the file cannot be read, or does not hold what its header says.
    """
    try:
        with reading(file), file.open("rb") as stream:
            size = file.stat().st_size
            length = int.from_bytes(stream.read(8), "little")
            if length > min(size, _LARGEST_HEADER_BYTES):
                raise damaged(file)
            header = json.loads(stream.read(length))
        data = 8 + length
        for name, entry in header.items():
            if name != "__metadata__":
                start, stop = entry["data_offsets"]
                if not 0 <= start <= stop <= size - data:
                    raise damaged(file)
                yield name, StoredTensor(file, str(entry["dtype"]), list(entry["shape"]), data + start, data + stop)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise damaged(file) from error


def damaged(file: Path) -> ModelUnreadable:
    """Return what is wrong with a file of weights that cannot be read to its end."""
    return ModelUnreadable(
        f"{file} is not a whole safetensors file: fetch the model again (a copy made with git needs `git lfs pull`)"
    )


def _weight_files(directory: Path) -> list[Path]:
    """The files that transformers would load: others beside them (another format's copy, say) are not the model."""
    require_safetensors(str(directory), [file.name for file in directory.iterdir() if file.is_file()])
    single, index = directory / _WEIGHTS, directory / _INDEX
    if single.is_file():
        return [single]
    weight_map = _read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelUnreadable(f"{index} has no weight_map: fetch the model again")
    names = sorted({str(name) for name in weight_map.values()})
    if any(Path(name).name != name for name in names):
        raise ModelUnreadable(f"{index} names files that are not beside it: fetch the model again")
    return [directory / name for name in names]


def require_safetensors(where: str, names: Collection[str]) -> None:
    """Check that there are weights to read among the files by these names, in a folder or on a hub.

    Raises:
        ModelUnreadable: there are none.
    """
    if not {_WEIGHTS, _INDEX}.isdisjoint(names):
        return
    what = f"{where} has neither {_WEIGHTS} nor {_INDEX}"
    if pickled := sorted(name for name in names if name.endswith((".bin", ".pt", ".pth"))):
        raise ModelUnreadable(
            f"{what}, and {pickled[0]} is not read, because reading it may run code that came with it: convert the "
            "model to safetensors where you trust it, with transformers' from_pretrained and save_pretrained "
            "(docs/models.md)"
        )
    raise ModelUnreadable(
        f"{what}: fetch the model's weights, or convert them to safetensors, the one format that is read"
    )


def _read_json(file: Path) -> dict[str, Any]:
    try:
        with reading(file):
            content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelUnreadable(f"{file} is not JSON: fetch the model again") from error
    if not isinstance(content, dict):
        raise ModelUnreadable(f"{file} is not a JSON object: fetch the model again")
    return content
