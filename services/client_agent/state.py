"""What an agent must not lose: the adapter that it holds, and the update that it has trained.

    <folder>/owner.lock              one agent owns the folder
    <folder>/instances.json          which processes of the agent have owned it (``instance.py``)
    <folder>/published.json          the newest adapter and where it comes from
    <folder>/adapters/<hex>          adapters by digest: theta^t, kept while it is needed
    <folder>/audit-head.json         the newest head of the coordinator's audit log that it was told
    <folder>/audit-heads.jsonl       every head that it was told, one a line, as evidence of what the log was
    <folder>/audit-broken.json       two heads that cannot be of one log, if it was told such
    <folder>/ledger/                 what has left this machine (``egress_ledger.py``)
    <folder>/updates/<run>-<round>   a trained update, complete once the .json beside it is there; .changed is what it
                                     has changed, as integers that were rounded once
    <folder>/attempts/               what was said in attempts (``attempt_journal``)
    <folder>/spent.json              the last round of each run whose update, or count, has been unmasked in a sum
    <folder>/taken.json              when this agent took part in which round, of the last day
    <folder>/holdout/                what the report on the hold-out is made of (``holdout_folder``), if there is one
    <folder>/digests.json            what the base model is, by its files (``Settings.digest_cache``)
    <folder>/slm-adapter/            the newest adapter as a PEFT directory, for whoever uses it here

Files appear whole (temporary file, fsync, rename, fsync of the folder), so a kill at any moment leaves either the
old or the new state, and a trained update is not trained again while it is whole.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from pydantic import BaseModel, JsonValue, TypeAdapter, ValidationError

from services.client_agent.attempt_journal import AttemptJournal, round_of
from services.client_agent.audit_heads import AuditHeads
from services.client_agent.peft_folder import export_adapter
from services.client_agent.trainer import LocalEvaluation
from shared.adapter_folder import CARD, WEIGHTS
from shared.errors import AttemptRefused, PolicyRefused
from shared.folders import is_whole, owned, sync, write_whole
from shared.protocol.attempts import AttemptPlace
from shared.protocol.digests import Digest
from shared.protocol.messages import Assignment, PublishedAdapter
from shared.protocol.names import RoundNumber, RunId
from shared.protocol.secagg.attempt import AttemptNumber, AttemptTerms, Content
from shared.protocol.secagg.coding import MICRO, Coding, Statistics, encode, encode_statistics
from shared.protocol.secagg.masks import WORD_BYTES, Ring
from shared.protocol.tensors import Array
from shared.protocol.terms import FROZEN

DAY_SECONDS = 86_400.0

# An agent that takes part in more runs at once than this trains some updates again.
RUNS_KEPT = 4

# What terms of an attempt and an update have in common, because the manifest says it.
FIXED_BY_MANIFEST = (
    *("manifest", "base_model", "adapter", "layout"),
    *("clip_norm", "fewest_parties", "most_parties", "weighted"),
)


class StoredUpdate(BaseModel):
    """An update that was trained for a round: by ``manifest``, from ``adapter``, in the order of ``seed``.

    What follows from the manifest is kept beside its digest, because an attempt must say the same. ``blinded_count`` is
    what this agent tells of ``examples`` where updates are weighted, ``total_count`` what it was told first that all
    counts add up to; trained for again, from another adapter, a round keeps these three.
    """

    run_id: RunId
    round: RoundNumber
    manifest: Digest
    base_model: Digest
    adapter: Digest
    layout: Digest
    clip_norm: float
    fewest_parties: int
    most_parties: int
    weighted: bool
    seed: int
    digest: Digest
    examples: int
    blinded_count: int
    total_count: int | None = None
    evaluation: LocalEvaluation | None = None
    model_config = FROZEN

    @property
    def coding(self) -> Coding:
        """How it becomes integers."""
        return Coding(self.clip_norm, self.most_parties, self.weighted)

    @property
    def statistics(self) -> Statistics:
        """What travels in masked slots beside this update."""
        told = self.evaluation or LocalEvaluation(loss=0.0, correct=0, total=0)
        weight = self.examples if self.weighted else 0
        return Statistics(round(told.loss * MICRO), told.correct, told.total, weight)


class Spent(BaseModel):
    """The last rounds of a run whose update, and whose count, has been unmasked in a sum; 0 for none.

    ``attempt`` is the one whose sum it was, of the last time.
    """

    updates: RoundNumber = 0
    counts: RoundNumber = 0
    attempt: AttemptNumber | None = None
    model_config = FROZEN


SPENT = TypeAdapter(dict[str, Spent])


class StateFolder:
    """The state of one agent."""

    def __init__(self, root: Path) -> None:
        """Use (and make) the folder ``root``."""
        self._root = root
        self.audit = AuditHeads(root)
        self._adapters = root / "adapters"
        self._updates = root / "updates"
        self._adapters.mkdir(parents=True, exist_ok=True)
        self._updates.mkdir(mode=0o700, exist_ok=True)  # what this organisation's data has changed is its own
        self.journal = AttemptJournal(root / "attempts")

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

    def settled(self) -> PublishedAdapter | None:
        """Return what this agent holds, as it starts; a kill may have left another adapter's weights in the folder."""
        published = self.published
        if published is None or is_whole(self.peft_folder / WEIGHTS, published.digest):
            return published
        (self._root / "published.json").unlink()
        return None

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

    def keep_published(
        self, published: PublishedAdapter, adapter_config: dict[str, JsonValue], beside: Mapping[str, bytes]
    ) -> None:
        """Make ``published``, whose file is there, the adapter that this agent holds and serves from its folder.

        ``beside`` are the files of its model card.
        """
        file = self.adapter(published.digest)
        sync(file)
        export_adapter(self.peft_folder, file, adapter_config, beside)
        write_whole(self._root / "published.json", published.model_dump_json().encode())
        self.forget_adapters_but(published.digest)
        self.journal.forget(published.run_id, below=published.round + 1)

    @property
    def has_card(self) -> bool:
        """Whether the adapter that this agent holds has its model card beside it."""
        return (self.peft_folder / CARD).is_file()

    def forget_adapters_but(self, digest: str) -> None:
        """Delete all adapters but this one and the one that this agent holds."""
        held = self.published
        kept = {self.adapter(each) for each in (digest, held and held.digest) if each}
        for other in self._adapters.iterdir():
            if other not in kept:
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
        same = (update.manifest, update.adapter) == (assignment.manifest, assignment.adapter)
        return update if same and is_whole(self.update_file(update.run_id, update.round), update.digest) else None

    def keep_update(self, update: StoredUpdate, delta: Array) -> StoredUpdate:
        """Make a trained update, whose file is there, durable, and forget the run's other rounds; return what is kept.

        ``delta``, shape [parameters], is what it has changed in the adapter, clipped. It is stored as the integers that
        every attempt masks, rounded once; where updates are weighted these follow from the sum of the weights.

        Raises:
            AttemptRefused: its count has been in a sum, and nothing is known any more of what was told.
        """
        update = self._with_what_was_told(update)
        file, note = self.update_file(update.run_id, update.round), self._note(update.run_id, update.round)
        sync(file)
        changed = self._beside(update, "changed")
        stored = delta if update.weighted else encode(delta, update.coding, share=1.0, seed=update.seed)
        write_whole(changed, stored.tobytes())
        write_whole(note, update.model_dump_json().encode())
        notes = sorted(self._updates.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
        others = [(run_id, number) for run_id, number in map(round_of, notes) if run_id != update.run_id]
        kept = {(update.run_id, update.round), *others[: RUNS_KEPT - 1]}
        for other in self._updates.iterdir():
            if round_of(other) not in kept:
                other.unlink()
        self.journal.forget(update.run_id, below=update.round)
        return update

    def _with_what_was_told(self, update: StoredUpdate) -> StoredUpdate:
        """Return an update with the count and the total that its round has had since it was trained for first.

        Drawn and told anew each time that the round is assigned, they would let a coordinator try one total after the
        other.
        """
        try:
            before = StoredUpdate.model_validate_json(self._note(update.run_id, update.round).read_bytes())
        except (FileNotFoundError, ValidationError):
            if update.weighted:
                self.require_unspent(update.run_id, update.round, "counts")
            return update
        return update.model_copy(update=before.model_dump(include={"examples", "blinded_count", "total_count"}))

    # --- attempts -----------------------------------------------------------------------------------------------

    def unspent_update(self, terms: AttemptTerms) -> StoredUpdate:
        """Return the update that an attempt is for.

        Raises:
            AttemptRefused: it was trained for something else, is not there, or has been unmasked in a sum before.
        """
        self.require_unspent(terms.run_id, terms.round, terms.content)
        try:
            update = StoredUpdate.model_validate_json(self._note(terms.run_id, terms.round).read_bytes())
            parameters = self._beside(update, "changed").stat().st_size // WORD_BYTES
        except (FileNotFoundError, ValidationError):
            raise AttemptRefused(f"this agent has trained nothing for {terms.label}") from None
        counts = terms.content == "counts"
        trained_for = {field: getattr(update, field) for field in FIXED_BY_MANIFEST}
        trained_for["parameters"] = 0 if counts else parameters
        for field, value in trained_for.items():
            if getattr(terms, field) != value:
                raise AttemptRefused(
                    f"the {field} of {terms.label} is {getattr(terms, field)}, and this agent's update was trained for "
                    f"{value}"
                )
        if counts and not update.weighted:
            raise AttemptRefused(f"{terms.label} asks for counts, and nothing in its run is weighted by them")
        return self._weighed(update, terms) if update.weighted and not counts else update

    def _weighed(self, update: StoredUpdate, terms: AttemptTerms) -> StoredUpdate:
        """Return an update with what all counts add up to, which is what this agent was told first.

        A coordinator that could try one total after the other would learn below which this agent refuses.

        Raises:
            AttemptRefused: its own count is in no sum, or it is another total, or less than this agent's own count.
        """
        if self._spent().get(update.run_id, Spent()).counts != update.round:
            raise AttemptRefused(
                f"{terms.label} asks for updates that are weighted by counts, and this agent's count of that round has "
                "been in no sum"
            )
        if update.total_count is None:
            update = update.model_copy(update={"total_count": terms.total_count})
            write_whole(self._note(update.run_id, update.round), update.model_dump_json().encode())
        if terms.total_count != update.total_count:
            raise AttemptRefused(
                f"the counts of {terms.label} are said to add up to {terms.total_count}, and were said to add up to "
                f"{update.total_count} before"
            )
        if terms.total_count < update.blinded_count:
            raise AttemptRefused(
                f"the counts of {terms.label} are said to add up to {terms.total_count}, less than this agent has told"
            )
        return update

    def coded_vector(self, update: StoredUpdate, terms: AttemptTerms) -> Ring:
        """Return what this agent adds to the sum of an attempt that fits its update, shape [parameters + slots]."""
        if terms.content == "counts":
            return encode_statistics(Statistics(weight=update.blinded_count))
        stored = self._beside(update, "changed").read_bytes()
        if update.weighted:
            share, delta = update.examples / terms.total_count, np.frombuffer(stored, dtype="<f4")
            coded = encode(delta, update.coding, share=share, seed=update.seed)
        else:
            coded = np.frombuffer(stored, dtype="<u4")
        return np.concatenate([coded, encode_statistics(update.statistics)])

    def spend(self, place: AttemptPlace, content: Content) -> None:
        """Note, before shares are released, that an update or its count is in an attempt's sum, and goes into no other.

        For the same attempt it is noted again: an agent that was killed right after it releases what it would have.

        Raises:
            AttemptRefused: it has been in another sum.
        """
        spent = self._spent()
        before = spent.get(place.run_id, Spent())
        after = before.model_copy(update={content: place.round, "attempt": place.attempt})
        if after == before:
            return
        self.require_unspent(place.run_id, place.round, content)
        write_whole(self._root / "spent.json", SPENT.dump_json(spent | {place.run_id: after}))

    def require_unspent(self, run_id: str, number: int, content: Content = "updates") -> None:
        """Raise AttemptRefused if an update of this round, or of a later one, has been unmasked in a sum before.

        Where counts are asked for, an update's count must not have been in a sum either.
        """
        spent = self._spent().get(run_id, Spent())
        for what, last in (("update", spent.updates), ("count", spent.counts if content == "counts" else 0)):
            if number <= last:
                raise AttemptRefused(
                    f"round {number} of run {run_id} is asked for, and this agent's {what} of round {last} has been in "
                    "a sum: two sums that differ by one agent would tell it"
                )

    def _spent(self) -> dict[str, Spent]:
        file = self._root / "spent.json"
        try:
            return SPENT.validate_json(file.read_bytes())
        except FileNotFoundError:
            return {}
        except ValidationError:
            raise AttemptRefused(
                f"{file} was damaged, and says no more which updates have been in a sum: none goes into one until you "
                "have put the file back, or deleted it after the last round of every run; check the disk"
            ) from None

    # --- how often ----------------------------------------------------------------------------------------------

    def taken_within_a_day(self, now: float, *, but: tuple[str, int]) -> int:
        """Return in how many rounds this agent took part in the last 24 hours; ``but`` is one that does not count."""
        return len({(run_id, number) for run_id, number, _ in self._taken(now)} - {but})

    def take_part(self, run_id: str, number: int, now: float) -> None:
        """Note that this agent takes part in a round, once, however often it is asked to."""
        taken = self._taken(now)
        if (run_id, number) not in {(run, round_number) for run, round_number, _ in taken}:
            write_whole(self._root / "taken.json", json.dumps([*taken, (run_id, number, now)]).encode())

    def _taken(self, now: float) -> list[tuple[str, int, float]]:
        try:
            taken = TypeAdapter(list[tuple[str, int, float]]).validate_json((self._root / "taken.json").read_bytes())
        except FileNotFoundError:
            return []
        except ValidationError:
            raise PolicyRefused(
                f"{self._root / 'taken.json'} was damaged, and says no more in how many rounds this agent took part "
                "within 24 hours: check the disk, and delete it"
            ) from None
        return [each for each in taken if each[2] > now - DAY_SECONDS]

    def _beside(self, update: StoredUpdate, what: str) -> Path:
        return self._updates / f"{update.run_id}-{update.round}.{what}"

    def _note(self, run_id: str, number: int) -> Path:
        return self._updates / f"{run_id}-{number}.json"
