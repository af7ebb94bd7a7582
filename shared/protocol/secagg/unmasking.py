"""The coordinator's side of an attempt: from the shares that survivors release to the masks that are left in the sum.

Pure, so that it may run anywhere and twice: the same shares give the same masks. Each released share is compared with
the hash that its dealer sent along, and each secret that is put together with what its member announced, so that
whoever is wrong is known by name.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import islice

from shared.errors import ShareInvalid
from shared.protocol.identity import from_text
from shared.protocol.secagg.attempt import AnnouncedKeys, Roster
from shared.protocol.secagg.masks import Mask, Ring, add_masks
from shared.protocol.secagg.sealing import (
    Kind,
    commitment_to,
    is_dealt,
    own_mask_key,
    pair_mask_key,
    private_key,
    public_of,
)
from shared.protocol.secagg.shamir import SECRET_BYTES, combine


@dataclass(frozen=True)
class Released:
    """What one survivor releases: shares of b_v by survivor v, and of s_v by lost dealer v, as they travel."""

    own_masks: Mapping[str, str]
    mask_secrets: Mapping[str, str]


@dataclass(frozen=True)
class Masks:
    """All masks that are left in the sum as they are in it, and the members whose released shares were wrong."""

    masks: tuple[Mask, ...]
    wrong: frozenset[str]


def masks_left(
    roster: Roster,
    *,
    dealt: Mapping[str, Mapping[str, str]],
    survivors: Collection[str],
    released: Mapping[str, Released],
) -> Masks:
    """Return which masks are left in the sum of the survivors' vectors.

    ``dealt`` has what each dealer has sealed, by the names of the dealers and of the holders.

    Raises:
        ShareInvalid: a dealer's secret cannot be put together; the message names the dealer, and whether it has dealt
            something else than shares of it or too few right ones were released.
    """
    masks: list[Mask] = []
    wrong: set[str] = set()
    for dealer in sorted(dealt):
        kind: Kind = "own_mask" if dealer in survivors else "mask_secret"
        secret = _secret_of(roster, dealer, kind, sealed=dealt[dealer], released=released, wrong=wrong)
        if dealer in survivors:
            masks.append(Mask(own_mask_key(secret, roster.context, dealer)))
        else:
            private = private_key(secret)
            for peer in sorted(survivors):
                key = pair_mask_key(private, roster.keys[peer].mask_key, roster.context, dealer, peer)
                masks.append(Mask(key, negative=peer < dealer))
    return Masks(tuple(masks), frozenset(wrong))


def remove(masks: tuple[Mask, ...], total: Ring, *, start: int = 0) -> None:
    """Take masks out of ``total`` in place, a part of the sum that begins at word ``start``: see ``add_masks``."""
    add_masks(total, (mask.opposite for mask in masks), start=start)


def _secret_of(
    roster: Roster,
    dealer: str,
    kind: Kind,
    *,
    sealed: Mapping[str, str],
    released: Mapping[str, Released],
    wrong: set[str],
) -> bytes:
    """Return a dealer's secret, and add to ``wrong`` who has released something else than its share of it.

    Right shares that do not give the secret are the dealer's own doing, and so is its own share, of which there is no
    hash: that one counts like the others, and is left out where it is wrong.
    """
    shares: dict[int, bytes] = {}
    for name in sorted(released):
        texts = released[name].own_masks if kind == "own_mask" else released[name].mask_secrets
        if dealer in texts:
            share = _bytes_of(texts[dealer])
            if name == dealer or is_dealt(share, kind, sealed[name], roster.context, dealer=dealer, holder=name):
                shares[roster.holders[name]] = share
            else:
                wrong.add(name)
    threshold, announced = roster.terms.threshold, roster.keys[dealer]
    if len(shares) < threshold:
        raise ShareInvalid(
            f"the mask of {dealer} cannot be taken out of the sum of {roster.terms.label}: {len(shares)} right shares "
            f"of its secret were released, and {threshold} give it; who released wrong ones: "
            f"{', '.join(sorted(wrong)) or 'nobody'}",
            members=sorted(wrong),
        )
    if _is_secret(secret := _combined(shares, threshold), kind, announced):
        return secret
    shares.pop(roster.holders[dealer], None)
    if _is_secret(secret := _combined(shares, threshold), kind, announced):
        wrong.add(dealer)
        return secret
    raise ShareInvalid(
        f"the mask of {dealer} cannot be taken out of the sum of {roster.terms.label}: what it has dealt are no shares "
        "of the secret that it announced",
        members=sorted({dealer, *wrong}),
    )


def _is_secret(secret: bytes, kind: Kind, announced: AnnouncedKeys) -> bool:
    if kind == "own_mask":
        return commitment_to(secret) == announced.commitment
    return public_of(secret) == announced.mask_key


def _combined(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """Return the secret that the first shares give; where they are too few or give none, one that is nobody's."""
    try:
        return combine(dict(islice(shares.items(), threshold)))
    except ShareInvalid:
        return bytes(SECRET_BYTES)


def _bytes_of(text: str) -> bytes:
    """Return a share from its text, and nothing from what is no text of one."""
    try:
        return from_text(text)
    except ValueError:
        return b""
