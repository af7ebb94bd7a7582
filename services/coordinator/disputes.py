"""Who cannot stay in an attempt: members that share a key, and one side of shares that somebody cannot read.

Pure: what members have sent goes in, and who is barred comes out, with the reason.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from shared.protocol.secagg.attempt import Advert

KEYS = ("encryption_key", "mask_key", "commitment")


def sharing_keys(adverts: Iterable[Advert]) -> dict[str, str]:
    """Return the members of an attempt that have announced the same key as another, each with what is held against it.

    The others would refuse them both. Keys are made for one attempt, and shown to nobody before all are there, so that
    whoever has another's key was given it.
    """
    all_keys = [(advert.keys.agent, field, getattr(advert.keys, field)) for advert in adverts for field in KEYS]
    times = Counter((field, key) for _, field, key in all_keys)
    return {
        name: f"it has announced the same {field} as another" for name, field, key in all_keys if times[field, key] > 1
    }


def in_dispute(
    dealers: Collection[str], unreadable: Mapping[str, Collection[str]], *, threshold: int
) -> dict[str, str]:
    """Return the members without whom every dealer's shares can be read by as many as the threshold.

    ``unreadable`` has for each member that goes on whose shares it says that it cannot read. Either the dealer has
    dealt garbage or the holder does not tell the truth, and nobody else can know which. So whoever is in most disputes
    goes: a dealer of garbage is in one with each of its holders, a liar in one with each dealer that it accuses, and
    everybody else in one with either. Where both are in as many, the dealer goes.
    """
    disputes = {(dealer, holder) for holder, named in unreadable.items() for dealer in named}
    barred: dict[str, str] = {}
    while True:
        against = Counter(dealer for dealer, _ in disputes)
        stuck = [dealer for dealer in sorted(dealers) if len(unreadable) - against[dealer] < threshold]
        if not any(against[dealer] for dealer in stuck):
            return barred
        times = Counter(name for dispute in disputes if dispute[0] in stuck for name in dispute)
        worst = max(sorted(times), key=lambda name: (times[name], name in stuck))
        barred[worst] = f"it is one side of {times[worst]} disputes over shares that cannot be read"
        disputes = {dispute for dispute in disputes if worst not in dispute}
