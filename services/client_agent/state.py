"""What an agent must not lose: the adapter that it holds, and the update that it has trained.

    <folder>/owner.lock              one agent owns the folder
    <folder>/published.json          the newest adapter and where it comes from
    <folder>/adapters/<hex>          adapters by digest: theta^t, kept while it is needed
    <folder>/updates/<run>-<round>   a trained update, complete once the .json beside it is there
    <folder>/audit-head.json         the newest head of the coordinator's audit log that it was told
    <folder>/audit-broken.json       two heads that cannot be of one log, if it was told such
    <folder>/ledger/                 what has left this machine (``egress_ledger.py``)
    <folder>/digests.json            what the base model is, by its files (``Settings.digest_cache``)
    <folder>/slm-adapter/            the newest adapter as a PEFT directory, for whoever uses it here

Files appear whole (temporary file, fsync, rename, fsync of the folder), so a kill at any moment leaves either the
old or the new state, and a trained update is not trained again while it is whole.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, JsonValue, ValidationError

from shared.adapter_folder import CONFIG, WEIGHTS
from shared.folders import is_whole, owned
from shared.protocol.audit import SignedHead
from shared.protocol.digests import Digest
from shared.protocol.messages import Assignment, PublishedAdapter
from shared.protocol.names import RoundNumber, RunId
from shared.protocol.terms import FROZEN


class StoredUpdate(BaseModel):
    """An update that was trained for a round: by ``manifest``, from ``adapter``, in the order of ``seed``."""

    run_id: RunId
    round: RoundNumber
    manifest: Digest
    adapter: Digest
    seed: int
    digest: Digest
    examples: int
    model_config = FROZEN


class AuditContradiction(BaseModel):
    """Why a head that was told cannot be of the log whose head is known: with both signatures, for others to see."""

    known: SignedHead
    told: SignedHead | None
    why: str
    model_config = FROZEN


class StateFolder:
    """The state of one agent."""

    def __init__(self, root: Path) -> None:
        """Use (and make) the folder ``root``."""
        self._root = root
        self._adapters = root / "adapters"
        self._updates = root / "updates"
        self._adapters.mkdir(parents=True, exist_ok=True)
        self._updates.mkdir(exist_ok=True)

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Own the folder while the block runs, or raise StoreBusy."""
        with owned(self._root, "agent"):
            yield

    @property
    def published(self) -> PublishedAdapter | None:
        """The newest adapter that this agent holds; None before the first, or where its note was damaged."""
        try:
            return PublishedAdapter.model_validate_json((self._root / "published.json").read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    @property
    def audit_head(self) -> SignedHead | None:
        """The newest head of the coordinator's audit log; None before the first, or where the file was damaged."""
        try:
            return SignedHead.model_validate_json((self._root / "audit-head.json").read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def keep_audit_head(self, head: SignedHead) -> None:
        """Remember a head of the coordinator's audit log."""
        write_whole(self._root / "audit-head.json", head.model_dump_json().encode())

    @property
    def audit_contradiction(self) -> AuditContradiction | None:
        """Two heads that cannot be of one log, if this agent was told such."""
        try:
            return AuditContradiction.model_validate_json((self._root / "audit-broken.json").read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def keep_audit_contradiction(self, found: AuditContradiction) -> None:
        """Keep two heads that cannot be of one log, until somebody takes the file away."""
        write_whole(self._root / "audit-broken.json", found.model_dump_json().encode())

    def adapter(self, digest: str) -> Path:
        """Return where the adapter named ``digest`` lies or will lie."""
        return self._adapters / digest.removeprefix("sha256:")

    def has_adapter(self, digest: str) -> bool:
        """Return whether the adapter is here, whole; a file that a power cut left short is not."""
        return is_whole(self.adapter(digest), digest)

    @property
    def peft_folder(self) -> Path:
        """Where the newest adapter lies as a PEFT directory, once there is one."""
        return self._root / "slm-adapter"

    def keep_published(self, published: PublishedAdapter, adapter_config: dict[str, JsonValue]) -> None:
        """Make ``published``, whose file is there, the adapter that this agent holds and serves from its folder."""
        file = self.adapter(published.digest)
        _sync(file)
        export_adapter(self.peft_folder, file, adapter_config)
        write_whole(self._root / "published.json", published.model_dump_json().encode())
        for other in self._adapters.iterdir():
            if other != file:
                other.unlink()

    def update_file(self, run_id: str, number: int) -> Path:
        """Return where the update of a round lies or will lie."""
        return self._updates / f"{run_id}-{number}"

    def trained_update(self, assignment: Assignment) -> StoredUpdate | None:
        """Return the update that was trained for exactly this assignment; None if there is none, whole, to be sent."""
        try:
            update = StoredUpdate.model_validate_json(self._note(assignment.run_id, assignment.round).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None
        trained_for = (update.manifest, update.adapter, update.seed)
        same = trained_for == (assignment.manifest, assignment.adapter, assignment.seed)
        return update if same and is_whole(self.update_file(update.run_id, update.round), update.digest) else None

    def keep_update(self, update: StoredUpdate) -> None:
        """Make a trained update, whose file is there, durable, and forget those of other rounds."""
        file, note = self.update_file(update.run_id, update.round), self._note(update.run_id, update.round)
        _sync(file)
        write_whole(note, update.model_dump_json().encode())
        for other in self._updates.iterdir():
            if other not in {file, note}:
                other.unlink()

    def _note(self, run_id: str, number: int) -> Path:
        return self._updates / f"{run_id}-{number}.json"


def export_adapter(folder: Path, blob: Path, adapter_config: dict[str, JsonValue]) -> None:
    """Write a PEFT directory, what ``PeftModel.from_pretrained`` loads; ``blob`` is on the same disk and durable."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{WEIGHTS}.part"
    part.unlink(missing_ok=True)
    part.hardlink_to(blob)  # blobs never change, so a second name is as good as a copy
    part.replace(folder / WEIGHTS)
    _sync(folder)
    config, content = folder / CONFIG, json.dumps(adapter_config, indent=2).encode()
    if not config.exists() or config.read_bytes() != content:
        write_whole(config, content)


def write_whole(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path`` so that a reader, or a power cut, sees all of it or what was there before."""
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(content)
    _sync(part)
    part.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
