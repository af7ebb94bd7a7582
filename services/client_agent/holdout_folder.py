"""What a hold-out's report is made of, run by run; nothing of it leaves this machine.

    <folder>/holdout/<run>/run.json         the run's manifest, and the rounds that this agent has trained for
    <folder>/holdout/<run>/standalone-<k>   the adapter of this organisation's data alone, after k trainings
    <folder>/holdout/<run>/published-<t>    theta^t, and aggregate-<t> what it was co-tuned from; of the newest t alone
    <folder>/holdout/<run>/measured-<what>.json    what such an adapter has scored, or the base model (base-0)
    <folder>/holdout/<run>/report.json      the report (``holdout_report.py``)

As in ``state.py``, files appear whole. Measurements are of one set of examples: with the first of another set those
before are gone.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ValidationError

from services.client_agent.trainer import Measured
from shared.folders import is_whole, sync, write_whole
from shared.protocol.digests import Digest
from shared.protocol.manifest import Manifest
from shared.protocol.messages import Assignment, PublishedAdapter
from shared.protocol.names import RoundNumber
from shared.protocol.terms import FROZEN

# Of more runs than this no adapters are kept: whoever goes on in an older one trains it again from the beginning.
RUNS_KEPT = 4

STANDALONE, PUBLISHED, AGGREGATE = "standalone", "published", "aggregate"


class Model(NamedTuple):
    """Something that is measured: an adapter by its kind and number, or the base model."""

    kind: str
    number: int

    @property
    def file(self) -> str:
        """How its adapter is called."""
        return f"{self.kind}-{self.number}"


BASE = Model("base", 0)


class TrainedRound(BaseModel):
    """A round that this agent has trained for, and the adapter that it began from."""

    round: RoundNumber
    adapter: Digest
    model_config = FROZEN


class RunNote(BaseModel):
    """What is known of a run; of rounds in a row from one adapter the last alone, for the others came to nothing."""

    manifest: Manifest
    rounds: tuple[TrainedRound, ...] = ()
    model_config = FROZEN

    def trainings(self, number: int) -> int:
        """Return by how many trainings of this agent's the run has gone on until a round."""
        return sum(trained.round <= number for trained in self.rounds)


class HoldOutFolder:
    """The hold-out's part of an agent's state folder."""

    def __init__(self, root: Path) -> None:
        """Use (and make) the part of the state folder ``root``."""
        self._root = holdout_folder(root)
        # What this organisation's data has changed is its own.
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def newest_run(self) -> str | None:
        """Return the run that this agent has begun a round of last."""
        return next((file.parent.name for file in _newest_first(self._root, "run.json")), None)

    def note(self, run_id: str) -> RunNote | None:
        """Return what is known of a run; None if that is nothing, or was damaged."""
        try:
            return RunNote.model_validate_json((self._root / run_id / "run.json").read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def take_part(self, assignment: Assignment, manifest: Manifest) -> None:
        """Note that this agent trains for a round; a run by another manifest is another run."""
        note, folder = self.note(manifest.run_id), self._root / manifest.run_id
        if note is None or note.manifest != manifest:
            note = RunNote(manifest=manifest)
            self._begin(folder)
        before = note.rounds
        if before and before[-1].adapter == assignment.adapter:
            before = before[:-1]
        rounds = (*before, TrainedRound(round=assignment.round, adapter=assignment.adapter))
        if rounds != note.rounds:
            write_whole(folder / "run.json", note.model_copy(update={"rounds": rounds}).model_dump_json().encode())

    def adapter(self, run_id: str, model: Model) -> Path | None:
        """Return where a model's adapter lies or will lie; None for the base model."""
        return None if model == BASE else self._root / run_id / model.file

    def hold(self, published: PublishedAdapter, file: Path) -> None:
        """Keep a second name of the file of a published adapter, which never changes; those before are let go."""
        self._keep(published.run_id, Model(PUBLISHED, published.round), file)
        self.forget(published.run_id, AGGREGATE, but=published.round)

    def newest(self, run_id: str, kind: str) -> Model | None:
        """Return the newest adapter of a kind that is here."""
        numbers = [int(file.name.rpartition("-")[2]) for file in (self._root / run_id).glob(f"{kind}-*[0-9]")]
        return Model(kind, max(numbers)) if numbers else None

    def draft(self, run_id: str) -> Path:
        """Return where an adapter is written before it has a name."""
        return self._root / run_id / "adapter.part"

    def keep(self, run_id: str, model: Model, digest: str) -> bool:
        """Give the draft its name, if it is whole, and let go of those of its kind before; return whether it was."""
        draft = self.draft(run_id)
        if not is_whole(draft, digest):
            return False
        self._keep(run_id, model, draft)
        draft.unlink()
        return True

    def has(self, run_id: str, model: Model) -> bool:
        """Return whether a model is measured, or need not be."""
        return self._measured(run_id, model).exists()

    def measured(self, run_id: str) -> dict[Model, Measured]:
        """Return all measurements of a run; those that were damaged are none."""
        return dict(self._read(run_id))

    def keep_measured(self, run_id: str, model: Model, measured: Measured) -> None:
        """Keep a measurement; those on other examples are gone."""
        for other, found in self._read(run_id):
            if found.examples != measured.examples:
                self._measured(run_id, other).unlink()
        write_whole(self._measured(run_id, model), measured.model_dump_json().encode())

    def forget(self, run_id: str, kind: str, *, but: int) -> None:
        """Delete the adapters of a kind, but for one."""
        for file in (self._root / run_id).glob(f"{kind}-*[0-9]"):
            if file.name != Model(kind, but).file:
                file.unlink()

    def write_report(self, run_id: str, report: BaseModel) -> None:
        """Put a run's report where its organisation finds it."""
        write_whole(self._root / run_id / "report.json", report.model_dump_json(indent=2).encode())

    def _begin(self, folder: Path) -> None:
        """Make the folder of a run anew, and let go of the adapters of runs that are long past."""
        folder.mkdir(exist_ok=True)
        for file in folder.iterdir():
            file.unlink()
        for note in list(_newest_first(self._root, "run.json"))[RUNS_KEPT - 1 :]:
            for kind in (STANDALONE, PUBLISHED, AGGREGATE):
                self.forget(note.parent.name, kind, but=0)

    def _keep(self, run_id: str, model: Model, file: Path) -> None:
        kept = self._root / run_id / model.file
        sync(file)
        part = kept.with_name(f"{kept.name}.part")
        part.unlink(missing_ok=True)
        part.hardlink_to(file)
        part.replace(kept)
        sync(kept.parent)
        self.forget(run_id, model.kind, but=model.number)

    def _measured(self, run_id: str, model: Model) -> Path:
        return self._root / run_id / f"measured-{model.file}.json"

    def _read(self, run_id: str) -> Iterator[tuple[Model, Measured]]:
        for file in (self._root / run_id).glob("measured-*.json"):
            kind, _, number = file.stem.removeprefix("measured-").rpartition("-")
            try:
                yield Model(kind, int(number)), Measured.model_validate_json(file.read_bytes())
            except ValidationError:
                file.unlink()


def holdout_folder(state_dir: Path) -> Path:
    """Return the hold-out's part of a state folder."""
    return state_dir / "holdout"


def reports_in(state_dir: Path) -> Iterator[bytes]:
    """Yield the reports of all runs, the newest first, as they are on the disk."""
    for file in _newest_first(holdout_folder(state_dir), "report.json"):
        yield file.read_bytes()


def _newest_first(folder: Path, name: str) -> Iterator[Path]:
    found = [(file.stat().st_mtime_ns, file) for file in folder.glob(f"*/{name}")]
    yield from (file for _, file in sorted(found, reverse=True))
