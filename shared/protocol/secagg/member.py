"""A member's side of an attempt, stage by stage; nothing here remembers what was sent (``attempt_journal`` does).

The stages and their letters are those of Bonawitz et al. 2017, figure 4: U1 is the roster, U2 the members whose sealed
shares came, U3 the survivors, whose masked vectors came.
"""

from collections.abc import Iterable, Mapping

from shared.errors import AttemptRefused, ShareInvalid, SignatureInvalid
from shared.protocol.identity import IdentityKey, Signed, require_signatures, to_text
from shared.protocol.secagg.attempt import Advert, AnnouncedKeys, AttemptTerms, KeysOfAttempt, Roster, Survivors
from shared.protocol.secagg.masks import Mask, Ring, add_masks
from shared.protocol.secagg.sealing import (
    AttemptSecrets,
    Shares,
    commitment_to,
    own_mask_key,
    pair_mask_key,
    private_key,
    public_of,
    seal,
    unseal,
)
from shared.protocol.secagg.shamir import split


def announce(terms: AttemptTerms, me: str, identity: IdentityKey, secrets: AttemptSecrets) -> Advert:
    """Return the keys stage's message: this member's keys, signed for this attempt."""
    keys = AnnouncedKeys(
        agent=me,
        identity=identity.public,
        encryption_key=public_of(secrets.encryption),
        mask_key=public_of(secrets.mask),
        commitment=commitment_to(secrets.own_mask),
    )
    return Advert(keys=keys, signature=identity.sign("attempt-keys", KeysOfAttempt(terms=terms, keys=keys)))


def deal(roster: Roster, me: str, secrets: AttemptSecrets) -> tuple[dict[str, str], Shares]:
    """Return the shares stage's message, for each other member its shares of s_u and b_u, sealed; and one's own."""
    terms, count = roster.terms, len(roster.adverts)
    mask_shares = split(secrets.mask, threshold=terms.threshold, count=count)
    own_shares = split(secrets.own_mask, threshold=terms.threshold, count=count)
    encryption = private_key(secrets.encryption)
    shares = {name: Shares(mask_shares[holder - 1], own_shares[holder - 1]) for name, holder in roster.holders.items()}
    sealed = {
        name: seal(
            shares[name],
            encryption,
            roster.keys[name].encryption_key,
            roster.context,
            dealer=me,
            holder=name,
        )
        for name in roster.holders
        if name != me
    }
    return sealed, shares[me]


def open_shares(
    roster: Roster, me: str, secrets: AttemptSecrets, sealed: Mapping[str, str]
) -> tuple[dict[str, Shares], tuple[str, ...]]:
    """Return the shares that the other dealers have dealt to this member, and whose could not be read."""
    shares, unreadable, encryption = {}, [], private_key(secrets.encryption)
    for dealer in sorted(sealed):
        try:
            key = roster.keys[dealer].encryption_key
            shares[dealer] = unseal(sealed[dealer], encryption, key, roster.context, dealer=dealer, holder=me)
        except ShareInvalid:
            unreadable.append(dealer)
    return shares, tuple(unreadable)


def mask(vector: Ring, roster: Roster, me: str, secrets: AttemptSecrets, *, dealers: Iterable[str]) -> None:
    """Mask a coded vector in place: y_u = x_u + PRG(b_u) + sum over v in U2 of +-PRG(s_uv), + where u is after v."""
    masks, private = [Mask(own_mask_key(secrets.own_mask, roster.context, me))], private_key(secrets.mask)
    for peer in dealers:
        if peer != me:
            key = pair_mask_key(private, roster.keys[peer].mask_key, roster.context, me, peer)
            masks.append(Mask(key, negative=me < peer))
    add_masks(vector, masks)


def sign_survivors(roster: Roster, identity: IdentityKey, survivors: tuple[str, ...]) -> str:
    """Return the consistency stage's message: a signature over U3 as this member was told it."""
    return identity.sign("survivors", _survivors(roster, survivors))


def require_consistent(roster: Roster, survivors: tuple[str, ...], signatures: Mapping[str, str]) -> None:
    """Raise unless as many survivors as the threshold have signed the same survivors that this member was told.

    Raises:
        AttemptRefused: too few have signed.
        SignatureInvalid: one that is given is not over these survivors: members were told different things.
    """
    document, what = _survivors(roster, survivors), f"was told of the survivors of {roster.terms.label}"
    for name in signatures.keys() - set(survivors):
        raise SignatureInvalid(f"{name} has signed the survivors of {roster.terms.label} and is none of them")
    told = [
        Signed(roster.keys[name].identity, document, signature, f"what {name} {what}")
        for name, signature in signatures.items()
    ]
    require_signatures("survivors", told)
    if len(signatures) < roster.terms.threshold:
        raise AttemptRefused(
            f"{len(signatures)} members have signed the survivors of {roster.terms.label}, and "
            f"{roster.terms.threshold} must have been told the same before anybody unmasks"
        )


def shares_to_release(
    shares: Mapping[str, Shares], *, survivors: Iterable[str], dealers: Iterable[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the unmasking stage's message: shares of b_v for v in U3, and of s_v for v in U2 without U3.

    Never both of one v: with both, the coordinator could read v's update (Bonawitz et al., section 4). ``shares`` has
    this member's own ones too, because it counts among those whose shares give its b_v back.
    """
    there, lost = set(survivors), set(dealers) - set(survivors)
    own_masks = {name: to_text(held.own_mask) for name, held in shares.items() if name in there}
    mask_secrets = {name: to_text(held.mask_secret) for name, held in shares.items() if name in lost}
    return own_masks, mask_secrets


def _survivors(roster: Roster, survivors: tuple[str, ...]) -> Survivors:
    return Survivors(context=to_text(roster.context), survivors=survivors)
