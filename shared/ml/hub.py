"""From the name of a base model to the folder of its files: a folder itself, the local cache, or a hub. No torch.

What is in the cache and whole is used as it is, and no hub is asked: a run's models do not change under it. Where the
cache is, whether a hub may be asked at all, and as whom are Hugging Face's own settings (HF_HOME, HF_HUB_OFFLINE,
HF_TOKEN, HF_ENDPOINT).
"""

from pathlib import Path

import httpx2  # what the hub's client raises when nobody answers; nothing is sent from here
from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from shared.access import is_path, no_model
from shared.errors import ModelUnreadable
from shared.ml.checkpoint import read_config, reading, require_safetensors, stored_tensors

# What a base model consists of for us; keeps other checkpoints of the same repository from being fetched.
_MODEL_FILES = ("*.json", "model*.safetensors", "tokenizer*", "merges.txt", "vocab.txt", "README.md")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")

ANSWER_SECONDS = 10.0


def model_directory(path: str | Path) -> Path:
    """Return the folder that holds the model's files: ``path`` itself, or the local snapshot of a hub id.

    Raises:
        ModelUnreadable: there is neither such a folder nor such a snapshot, and no hub gives one, or this process may
            not read it; it says why.
    """
    directory = Path(path)
    with reading(directory):
        if directory.is_dir():
            return directory
    name = str(path)
    if is_path(name):
        raise ModelUnreadable(no_model(name))
    try:
        with reading(Path(constants.HF_HUB_CACHE)):
            cached = _cached(name)
        return cached or _fetched(name)
    except HFValidationError as error:
        raise ModelUnreadable(
            f"{name!r} is neither a folder on this machine nor the id of a model on a hub (owner/name): name a folder "
            "with config.json, tokenizer.json and weights as safetensors, in full and without ~, or correct the id"
        ) from error


def _cached(name: str) -> Path | None:
    """The newest snapshot in the local cache; None if there is none, or not all of it."""
    try:
        directory = Path(snapshot_download(name, allow_patterns=list(_MODEL_FILES), local_files_only=True))
        for file in directory.iterdir():
            if file.is_file():
                file.open("rb").close()  # what may not be read is there, and not to be fetched
        read_config(directory)
        stored_tensors(directory)
    except (LocalEntryNotFoundError, ModelUnreadable):
        return None
    return directory if any((directory / file).is_file() for file in _TOKENIZER_FILES) else None


def _fetched(name: str) -> Path:
    """The newest snapshot of a hub."""
    try:
        # First whether anybody is there: the download by itself would wait for an answer without a limit.
        there = HfApi().model_info(name, timeout=ANSWER_SECONDS).siblings
        if there:
            require_safetensors(f"{constants.ENDPOINT}/{name}", [one.rfilename for one in there])
        return Path(snapshot_download(name, allow_patterns=list(_MODEL_FILES)))
    except GatedRepoError as error:
        raise ModelUnreadable(
            f"{name} is gated: ask for access on {constants.ENDPOINT}/{name}, and then log in as who has it "
            "(`hf auth login`, or HF_TOKEN in the environment)"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelUnreadable(
            f"there is no folder {name!r} on this machine, and {constants.ENDPOINT} knows no model by that id, or "
            "shows it to its members only: correct it, or log in (`hf auth login`, or HF_TOKEN in the environment)"
        ) from error
    except OfflineModeIsEnabled as error:
        raise ModelUnreadable(
            f"{name} is not, or not wholly, in the local cache, and HF_HUB_OFFLINE forbids to fetch it: unset that, "
            "fetch it with `hf download` where there is a network and copy the cache, or name a folder with the model"
        ) from error
    except (httpx2.HTTPError, OSError) as error:
        raise ModelUnreadable(
            f"{name} is not, or not wholly, in the local cache, and fetching it from {constants.ENDPOINT} failed "
            f"({type(error).__name__}): check the network, the proxy (HTTPS_PROXY), and room and rights in the cache "
            "(HF_HOME), and start again (what has come is kept), or name a folder with the model"
        ) from error
