"""Who is barred from a round, and that nobody is who has done nothing wrong, as far as that can be known."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.coordinator.disputes import in_dispute, sharing_keys
from shared.protocol.identity import to_text
from shared.protocol.secagg.attempt import Advert, AnnouncedKeys, threshold_of


def names(count: int) -> list[str]:
    """Return so many members."""
    return [f"agent-{number:02}" for number in range(count)]


def advert(name: str, *keys: int) -> Advert:
    """Return keys that are called by numbers."""
    encryption, mask, commitment = (to_text(bytes([key]) * 32) for key in keys)
    announced = AnnouncedKeys(
        agent=name,
        identity=f"ed25519:{to_text(name.encode().ljust(32))}",
        encryption_key=encryption,
        mask_key=mask,
        commitment=commitment,
    )
    return Advert(keys=announced, signature="A" * 86)


def test_members_with_keys_of_their_own_share_none() -> None:
    """The same bytes as another kind of key are another key."""
    assert not sharing_keys([advert("ada", 1, 2, 3), advert("bob", 2, 3, 1)])


@pytest.mark.parametrize(
    ("keys", "field"), [((1, 5, 6), "encryption_key"), ((4, 2, 6), "mask_key"), ((4, 5, 3), "commitment")]
)
def test_whoever_shares_a_key_is_barred(keys: tuple[int, int, int], field: str) -> None:
    """Both of them, for each kind of key; the third is not."""
    told = sharing_keys([advert("ada", 1, 2, 3), advert("bob", *keys), advert("cleo", 7, 8, 9)])
    assert told == dict.fromkeys(("ada", "bob"), f"it has announced the same {field} as another")


def test_nobody_is_barred_where_enough_can_read() -> None:
    """Of seven, five are enough: two complaints about each of two dealers change nothing."""
    unreadable = dict.fromkeys(names(7), ()) | {"agent-05": ("agent-00", "agent-01"), "agent-06": ("agent-00",)}
    assert not in_dispute(names(7), unreadable, threshold=5)


@pytest.mark.parametrize("count", [3, 4, 7, 20])
def test_a_dealer_of_garbage_is_barred_alone(count: int) -> None:
    """Everybody else complains about it, and about nobody else."""
    unreadable = {name: () if name == "agent-01" else ("agent-01",) for name in names(count)}
    barred = in_dispute(names(count), unreadable, threshold=threshold_of(count))
    assert barred == {"agent-01": f"it is one side of {count - 1} disputes over shares that cannot be read"}


@pytest.mark.parametrize("count", [3, 4, 7, 20])
def test_a_liar_is_barred_alone(count: int) -> None:
    """It complains about everybody, where no more have signed than must read everything."""
    signers = names(count)[: threshold_of(count)]
    others = [name for name in names(count) if name != signers[0]]
    unreadable = {name: others if name == signers[0] else () for name in signers}
    assert in_dispute(names(count), unreadable, threshold=threshold_of(count)).keys() == {signers[0]}


def test_where_it_is_one_word_against_another_the_dealer_goes() -> None:
    """Nobody can know; its shares are what is missing."""
    unreadable = {"ada": ("bob",), "bob": (), "cleo": ()}
    assert in_dispute(("ada", "bob", "cleo"), unreadable, threshold=3).keys() == {"bob"}


@st.composite
def complaints(draw: st.DrawFn) -> tuple[int, set[str], dict[str, list[str]]]:
    """Draw a cohort, its hostile members, and who complains about whom; the honest complain about the hostile alone."""
    count = draw(st.integers(3, 16))
    hostile = set(draw(st.permutations(names(count)))[: draw(st.integers(0, count - threshold_of(count)))])
    unreadable = {}
    for name in names(count):
        about = names(count) if name in hostile else sorted(hostile)
        unreadable[name] = draw(st.lists(st.sampled_from(about), unique=True)) if about else []
    return count, hostile, {name: [each for each in about if each != name] for name, about in unreadable.items()}


def stuck(unreadable: Mapping[str, list[str]], barred: Mapping[str, str], *, signers: int, threshold: int) -> set[str]:
    """Return the dealers whose shares too few can read, were those who are barred not there."""
    counts = {
        dealer: sum(dealer in about for name, about in unreadable.items() if name not in barred)
        for about in unreadable.values()
        for dealer in about
        if dealer not in barred
    }
    return {dealer for dealer, count in counts.items() if signers - count < threshold}


@given(complaints())
def test_nobody_honest_is_barred_where_everybody_has_signed(drawn: tuple[int, set[str], dict[str, list[str]]]) -> None:
    """Whatever the hostile third says and deals: who is barred is of it, and the rest can be read by enough."""
    count, hostile, unreadable = drawn
    threshold = threshold_of(count)
    barred = in_dispute(names(count), unreadable, threshold=threshold)
    assert barred.keys() <= hostile
    assert not stuck(unreadable, barred, signers=count, threshold=threshold)


@given(complaints(), st.data())
def test_the_rest_can_go_on_whoever_has_signed(
    drawn: tuple[int, set[str], dict[str, list[str]]], data: st.DataObject
) -> None:
    """Where some are silent as well, somebody honest may be barred too; but nobody who is in no dispute."""
    count, _, unreadable = drawn
    threshold = threshold_of(count)
    order = data.draw(st.permutations(names(count)))
    signers = order[: data.draw(st.integers(threshold, count))]
    said = {name: unreadable[name] for name in signers}
    barred = in_dispute(names(count), said, threshold=threshold)
    assert not stuck(said, barred, signers=len(signers), threshold=threshold)
    assert barred.keys() <= {name for name in signers if said[name]} | {
        each for about in said.values() for each in about
    }
