"""The messages of an attempt: what an agent is summoned for, stage by stage, and what it answers.

Each stage's answer goes to ``/v1/runs/{run}/rounds/{round}/attempts/{attempt}/{stage}``. A masked vector is no JSON: it
is its numbers, little-endian uint32, and nothing else.
"""

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, Field

from shared.protocol.identity import Signature
from shared.protocol.membership import SignedCertificate
from shared.protocol.names import PrincipalName, RoundNumber, RunId
from shared.protocol.secagg.attempt import Advert, AttemptNumber, AttemptTerms
from shared.protocol.secagg.sealing import Sealed, Share
from shared.protocol.terms import FROZEN, LARGEST_GROUP


class Enlisted(BaseModel):
    """A member as the others are shown it: its signed keys, and the operator's certificate for who signed them."""

    advert: Advert
    membership: SignedCertificate
    model_config = FROZEN


class AttemptPlace(BaseModel):
    """Which attempt is meant."""

    run_id: RunId
    round: RoundNumber
    attempt: AttemptNumber
    model_config = FROZEN


class KeysWanted(BaseModel):
    """An attempt has opened: announce keys for it."""

    stage: Literal["keys"] = "keys"
    place: AttemptPlace
    terms: AttemptTerms
    model_config = FROZEN


class SharesWanted(BaseModel):
    """These are the members: seal shares of the secrets for each of the others."""

    stage: Literal["shares"] = "shares"
    place: AttemptPlace
    members: Annotated[tuple[Enlisted, ...], Field(max_length=LARGEST_GROUP)]
    model_config = FROZEN


class MaskedWanted(BaseModel):
    """These members have dealt shares, and this is what they have sealed: mask the vector with them and send it."""

    stage: Literal["masked"] = "masked"
    place: AttemptPlace
    sealed: dict[PrincipalName, Sealed]
    model_config = FROZEN


class ConsistencyWanted(BaseModel):
    """These members' vectors are there: sign that this is what was told."""

    stage: Literal["consistency"] = "consistency"
    place: AttemptPlace
    survivors: Annotated[tuple[PrincipalName, ...], Field(max_length=LARGEST_GROUP)]
    model_config = FROZEN


class UnmaskingWanted(BaseModel):
    """So many have signed the same survivors: release one share of each member."""

    stage: Literal["unmasking"] = "unmasking"
    place: AttemptPlace
    signatures: dict[PrincipalName, Signature]
    model_config = FROZEN


Summons: TypeAlias = Annotated[
    KeysWanted | SharesWanted | MaskedWanted | ConsistencyWanted | UnmaskingWanted, Field(discriminator="stage")
]


class DealtShares(BaseModel):
    """A member's shares of its two secrets, sealed for each of the others."""

    sealed: Annotated[dict[PrincipalName, Sealed], Field(max_length=LARGEST_GROUP)]
    model_config = FROZEN


class SignedSurvivors(BaseModel):
    """A member's signature over the survivors, and whose sealed shares it could not read."""

    signature: Signature
    unreadable: Annotated[tuple[PrincipalName, ...], Field(max_length=LARGEST_GROUP)] = ()
    model_config = FROZEN


class ReleasedShares(BaseModel):
    """A member's shares of the own masks of survivors, and of the mask secrets of those who were lost; never both."""

    own_masks: Annotated[dict[PrincipalName, Share], Field(max_length=LARGEST_GROUP)]
    mask_secrets: Annotated[dict[PrincipalName, Share], Field(max_length=LARGEST_GROUP)]
    model_config = FROZEN
