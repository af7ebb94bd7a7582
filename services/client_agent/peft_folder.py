"""The folder in which an organisation finds the adapter that its agent holds, as PEFT loads it, with its model card."""

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue

from shared.adapter_folder import CONFIG, WEIGHTS
from shared.folders import sync, write_whole


def export_adapter(folder: Path, blob: Path, adapter_config: dict[str, JsonValue], beside: Mapping[str, bytes]) -> None:
    """Write a PEFT directory, what ``PeftModel.from_pretrained`` loads; ``blob`` is on the same disk and durable.

    ``beside`` are the files of its model card.
    """
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{WEIGHTS}.part"
    part.unlink(missing_ok=True)
    part.hardlink_to(blob)  # blobs never change, so a second name is as good as a copy
    part.replace(folder / WEIGHTS)
    part.unlink(missing_ok=True)  # a rename leaves two names of one file as they are
    sync(folder)
    for name, content in {CONFIG: json.dumps(adapter_config, indent=2).encode(), **beside}.items():
        file = folder / name
        if not file.exists() or file.read_bytes() != content:
            write_whole(file, content)
