"""What an agent has said in the attempts that it takes part in: on the disk, synced, before it is sent.

    <folder>/attempts/<run>-<round>.json     the round's newest attempt: keys, what was shown, and what was answered
    <folder>/attempts/<run>-<round>.masked   its one masked vector

An answer is made once. Asked again, by a coordinator that restarted or by one that hopes for another answer, the agent
sends the same bytes; shown something else than before, it refuses. Secrets are gone once shares are released, and
otherwise once the round is over, or at the agent's next step after a day.
"""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ValidationError

from shared.errors import AttemptRefused
from shared.folders import write_whole
from shared.protocol.attempts import AttemptPlace, ReleasedShares, SignedSurvivors
from shared.protocol.digests import Digest
from shared.protocol.identity import from_text, to_text
from shared.protocol.names import PrincipalName
from shared.protocol.secagg.attempt import Advert, AttemptTerms, Bytes32, Roster
from shared.protocol.secagg.sealing import AttemptSecrets, Sealed, Share, Shares
from shared.protocol.terms import FROZEN


class StoredSecrets(BaseModel):
    """An attempt's secrets as they are stored."""

    encryption: Bytes32
    mask: Bytes32
    own_mask: Bytes32
    model_config = FROZEN

    @classmethod
    def of(cls, secrets: AttemptSecrets) -> Self:
        """Return secrets as they are stored."""
        return cls(
            encryption=to_text(secrets.encryption), mask=to_text(secrets.mask), own_mask=to_text(secrets.own_mask)
        )

    @property
    def secrets(self) -> AttemptSecrets:
        """The secrets."""
        return AttemptSecrets(from_text(self.encryption), from_text(self.mask), from_text(self.own_mask))


class StoredShares(BaseModel):
    """One member's shares of another's secrets, or of its own, as they are stored."""

    mask_secret: Share
    own_mask: Share
    model_config = FROZEN

    @classmethod
    def of(cls, shares: Shares) -> Self:
        """Return shares as they are stored."""
        return cls(mask_secret=to_text(shares.mask_secret), own_mask=to_text(shares.own_mask))

    @property
    def shares(self) -> Shares:
        """The shares."""
        return Shares(from_text(self.mask_secret), from_text(self.own_mask))


class AttemptRecord(BaseModel):
    """One attempt as this agent knows it; a field is None until its stage, and never changes after it.

    But for ``shares``: this member's own are there from the shares stage on, the others' from the consistency stage on.
    """

    terms: AttemptTerms
    advert: Advert
    secrets: StoredSecrets | None = None
    roster: Roster | None = None
    dealt: dict[PrincipalName, Sealed] | None = None
    sealed: dict[PrincipalName, Sealed] | None = None
    shares: dict[PrincipalName, StoredShares] | None = None
    masked: Digest | None = None
    survivors: tuple[PrincipalName, ...] | None = None
    confirmed: SignedSurvivors | None = None
    released: ReleasedShares | None = None
    model_config = FROZEN


class AttemptJournal:
    """The attempts' part of an agent's state folder: of each round, the newest attempt that it has announced keys for.

    Keys for another attempt take the place of those before, in one rename: no two attempts of a round can be answered.
    """

    def __init__(self, folder: Path) -> None:
        """Use (and make) the folder, which nobody but this agent may read."""
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def find(self, run_id: str, number: int) -> AttemptRecord | None:
        """Return what is known of the newest attempt of a round; None where this agent has announced no keys.

        Raises:
            AttemptRefused: the record was damaged, and what was said by it is not said anew.
        """
        note = self._beside(run_id, number, "json")
        try:
            return AttemptRecord.model_validate_json(note.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError:
            raise AttemptRefused(
                f"{note} was damaged, and says no more what this agent has answered in round {number} of run {run_id}: "
                "it answers nothing in that round any more; check the disk"
            ) from None

    def get(self, place: AttemptPlace) -> AttemptRecord:
        """Return what is known of an attempt in which this agent has announced keys.

        Raises:
            AttemptRefused: it has not, or has announced others for a later attempt, or the record was damaged.
        """
        record = self.find(place.run_id, place.round)
        if record is None or record.terms.attempt != place.attempt:
            raise AttemptRefused(
                f"this agent has no keys of attempt {place.attempt} of round {place.round} of run {place.run_id}: it "
                "answers in the newest attempt of a round that it has announced keys for"
            )
        return record

    def keep(self, record: AttemptRecord) -> AttemptRecord:
        """Make a record durable; it is on the disk when this returns."""
        note = self._beside(record.terms.run_id, record.terms.round, "json")
        write_whole(note, record.model_dump_json(exclude_none=True).encode(), mode=0o600)
        return record

    def vector(self, place: AttemptPlace) -> Path:
        """Return where the masked vector of a round's newest attempt lies or will lie."""
        return self._beside(place.run_id, place.round, "masked")

    def forget(self, run_id: str, *, below: int) -> None:
        """Delete what is known of the rounds of a run before ``below``: they are past their attempts."""
        for file in self._folder.iterdir():
            of_run, number = round_of(file)
            if of_run == run_id and number < below:
                file.unlink()

    def forget_older(self, than: float) -> None:
        """Delete what was last written before ``than``, seconds since 1970: secrets of attempts that led nowhere."""
        for file in self._folder.iterdir():
            if file.stat().st_mtime < than:
                file.unlink()

    def _beside(self, run_id: str, number: int, what: str) -> Path:
        return self._folder / f"{run_id}-{number}.{what}"


def round_of(file: Path) -> tuple[str, int]:
    """Return the run and the number of the round that a file is called after."""
    run_id, _, number = file.name.split(".")[0].rpartition("-")
    return run_id, int(number)
