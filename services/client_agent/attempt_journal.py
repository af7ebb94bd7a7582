"""What an agent has said in the attempts that it takes part in: on the disk, synced, before it is sent.

    <folder>/attempts/<run>-<round>-<attempt>.json     keys, what was shown, and what was answered
    <folder>/attempts/<run>-<round>-<attempt>.masked   the one masked vector

An answer is made once. Asked again, by a coordinator that restarted or by one that hopes for another answer, the agent
sends the same bytes; shown something else than before, it refuses. Secrets are gone once shares are released.
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
    """A member's shares of its own secrets, as they are stored."""

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
    """One attempt as this agent knows it; a field is None until its stage, and never changes after it."""

    terms: AttemptTerms
    advert: Advert
    secrets: StoredSecrets | None = None
    own_shares: StoredShares | None = None
    roster: Roster | None = None
    dealt: dict[PrincipalName, Sealed] | None = None
    sealed: dict[PrincipalName, Sealed] | None = None
    masked: Digest | None = None
    survivors: tuple[PrincipalName, ...] | None = None
    confirmed: SignedSurvivors | None = None
    released: ReleasedShares | None = None
    model_config = FROZEN


class AttemptJournal:
    """The attempts' part of an agent's state folder."""

    def __init__(self, folder: Path) -> None:
        """Use (and make) the folder, which nobody but this agent may read."""
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def find(self, place: AttemptPlace) -> AttemptRecord | None:
        """Return what is known of an attempt; None where nothing is, or it was damaged."""
        try:
            return AttemptRecord.model_validate_json(self._note(place).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def get(self, place: AttemptPlace) -> AttemptRecord:
        """Return what is known of an attempt in which this agent has announced keys.

        Raises:
            AttemptRefused: it has not, or has forgotten them.
        """
        record = self.find(place)
        if record is None:
            raise AttemptRefused(
                f"this agent has no keys of attempt {place.attempt} of round {place.round} of run {place.run_id}: it "
                "answers in the attempts that it has announced keys for"
            )
        return record

    def keep(self, place: AttemptPlace, record: AttemptRecord) -> AttemptRecord:
        """Make a record durable; it is on the disk when this returns."""
        write_whole(self._note(place), record.model_dump_json(exclude_none=True).encode(), mode=0o600)
        return record

    def vector(self, place: AttemptPlace) -> Path:
        """Return where the masked vector of an attempt lies or will lie."""
        return self._folder / f"{_name(place)}.masked"

    def forget(self, run_id: str) -> None:
        """Delete what is known of a run's attempts: their keys are of no use any more, and must not be found."""
        for file in self._folder.iterdir():
            if file.name.rsplit("-", 2)[0] == run_id:
                file.unlink()

    def _note(self, place: AttemptPlace) -> Path:
        return self._folder / f"{_name(place)}.json"


def _name(place: AttemptPlace) -> str:
    return f"{place.run_id}-{place.round}-{place.attempt}"
