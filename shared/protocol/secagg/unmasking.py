"""The coordinator's side of an attempt: from the shares that survivors release to the masks that are left in the sum.

Pure, so that it may run anywhere and twice: the same shares give the same masks. Every secret that is put together is
compared with what its member announced, so that a wrong share is found, and whose it is.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from shared.errors import ShareInvalid
from shared.protocol.identity import from_text
from shared.protocol.secagg.attempt import Roster
from shared.protocol.secagg.masks import Ring, add_mask
from shared.protocol.secagg.sealing import commitment_to, own_mask_key, pair_mask_key, public_of
from shared.protocol.secagg.shamir import decode, recover


@dataclass(frozen=True)
class Released:
    """What one survivor releases: shares of b_v by survivor v, and of s_v by lost dealer v, as they travel."""

    own_masks: Mapping[str, str]
    mask_secrets: Mapping[str, str]


@dataclass(frozen=True)
class Mask:
    """A mask that is left in the sum: its key, and whether it is in it with a minus."""

    key: bytes
    negative: bool


@dataclass(frozen=True)
class Masks:
    """All masks that are left in the sum, and the members whose released shares were wrong."""

    masks: tuple[Mask, ...]
    wrong: frozenset[str]


def masks_left(
    roster: Roster, *, dealers: Collection[str], survivors: Collection[str], released: Mapping[str, Released]
) -> Masks:
    """Return which masks are left in the sum of the survivors' vectors.

    Raises:
        ShareInvalid: too few right shares of a member's secret were released; the message names that member.
    """
    masks: list[Mask] = []
    wrong: set[str] = set()
    lost = sorted(set(dealers) - set(survivors))
    for member in sorted(survivors):
        shares = {name: given.own_masks.get(member) for name, given in released.items()}
        own_mask = _recover(
            roster, member, shares, announced_by=commitment_to, announced=roster.keys[member].commitment, wrong=wrong
        )
        masks.append(Mask(own_mask_key(own_mask, roster.context, member), negative=False))
    for member in lost:
        shares = {name: given.mask_secrets.get(member) for name, given in released.items()}
        secret = _recover(
            roster, member, shares, announced_by=public_of, announced=roster.keys[member].mask_key, wrong=wrong
        )
        for peer in sorted(survivors):
            key = pair_mask_key(secret, roster.keys[peer].mask_key, roster.context, member, peer)
            masks.append(Mask(key, negative=peer < member))
    return Masks(tuple(masks), frozenset(wrong))


def remove(masks: tuple[Mask, ...], total: Ring, *, start: int = 0) -> None:
    """Take masks out of ``total`` in place, a range of the sum that begins at word ``start``, a multiple of four."""
    for each in masks:
        add_mask(total, each.key, negative=not each.negative, start=start)


def _recover(
    roster: Roster,
    member: str,
    shares: Mapping[str, str | None],
    *,
    announced_by: Callable[[bytes], str],
    announced: str,
    wrong: set[str],
) -> bytes:
    """Return a member's secret, and add to ``wrong`` who has released something else than a share of it."""
    usable: dict[int, bytes] = {}
    for name, text in shares.items():
        if text is None:
            continue
        try:
            share = from_text(text)
            decode(share)
        except (ValueError, ShareInvalid):
            wrong.add(name)
        else:
            usable[roster.holders[name]] = share
    try:
        secret, liars = recover(
            usable, threshold=roster.terms.threshold, is_secret=lambda found: announced_by(found) == announced
        )
    except ShareInvalid as error:
        raise ShareInvalid(
            f"the mask of {member} cannot be taken out of the sum of {roster.terms.label}: {error}"
        ) from None
    wrong |= {name for name, holder in roster.holders.items() if holder in liars}
    return secret
