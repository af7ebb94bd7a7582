"""A PEFT directory: an adapter as its weights and its configuration, what ``PeftModel.from_pretrained`` loads."""

import json
import shutil
from pathlib import Path

from pydantic import BaseModel, JsonValue, ValidationError

from shared.errors import CardInvalid, ModelUnreadable
from shared.protocol.card import SignedCard
from shared.protocol.card_text import card_text
from shared.protocol.messages import ArtefactName
from shared.protocol.terms import FROZEN

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
CARD = "card.json"
README = "README.md"

# Of an adapter of 8,000 tensors. The library parses a header of any length: of a million empty tensors in half a minute
# and 1.7 GB.
MOST_HEADER_BYTES = 1 << 20


class Written(BaseModel):
    """What a command wrote: a PEFT directory, or a merged model with the base model that is in it."""

    folder: Path
    bytes: int
    merged_with: str | None = None
    model_config = FROZEN


def write_adapter_config(folder: Path, config: dict[str, JsonValue]) -> None:
    """Write the configuration beside the weights."""
    (folder / CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")


def card_files(signed: SignedCard, adapter: ArtefactName) -> dict[str, bytes]:
    """Return the files that tell where an adapter comes from: for whoever checks it, and for people."""
    return {
        CARD: signed.model_dump_json(indent=2).encode(),
        README: card_text(signed.card, adapter).encode(),
    }


def write_card(folder: Path, signed: SignedCard, adapter: ArtefactName) -> None:
    """Write an adapter's model card beside it."""
    for name, content in card_files(signed, adapter).items():
        (folder / name).write_bytes(content)


def read_card(folder: Path) -> SignedCard:
    """Return the model card that lies beside an adapter.

    Raises:
        CardInvalid: there is none, or it is none.
    """
    try:
        return SignedCard.model_validate_json((folder / CARD).read_bytes())
    except FileNotFoundError:
        raise CardInvalid(f"{folder} has no {CARD}: fetch the adapter again") from None
    except ValidationError as error:
        raise CardInvalid(f"{folder / CARD} is no model card: {error.errors()[0]['msg']}") from None


def require_adapter(folder: Path) -> Path:
    """Return the folder, if it is a PEFT directory.

    Raises:
        ModelUnreadable: a file is missing.
    """
    for name in (WEIGHTS, CONFIG):
        if not (folder / name).is_file():
            raise ModelUnreadable(f"{folder} is no PEFT directory: it has no {name}")
    return folder


def require_short_header(weights: Path) -> None:
    """Raise ModelUnreadable unless a safetensors file says that its header is one that an adapter may have."""
    with weights.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MOST_HEADER_BYTES:
        raise ModelUnreadable(
            f"{weights} is no adapter: it announces a header of {length} bytes, and an adapter's has at most "
            f"{MOST_HEADER_BYTES}; do not use it"
        )


def copy_adapter(source: Path, into: Path) -> None:
    """Copy an adapter with its card, if it has one, and nothing else that may lie beside them."""
    for name in (WEIGHTS, CONFIG, CARD, README):
        if name in {WEIGHTS, CONFIG} or (source / name).is_file():
            shutil.copyfile(source / name, into / name)


def adapter_config_in(folder: Path) -> dict[str, JsonValue]:
    """Return what the configuration of an adapter says.

    Raises:
        ModelUnreadable: it is none.
    """
    try:
        said = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise ModelUnreadable(f"{folder / CONFIG} is no adapter's configuration: fetch the adapter again")
    return said


def readme_in(folder: Path) -> str | None:
    """Return what the README beside an adapter says, if there is one."""
    file = folder / README
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else None


def named_base(folder: Path) -> str:
    """Return the base model that the configuration names.

    Raises:
        ModelUnreadable: it names none.
    """
    name = adapter_config_in(folder).get("base_model_name_or_path")
    if not isinstance(name, str):
        raise ModelUnreadable(f"{folder / CONFIG} names no base model: name it with --base")
    return name


def bytes_in(folder: Path) -> int:
    """Return how many bytes the files in a folder have."""
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
