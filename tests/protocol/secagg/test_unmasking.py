"""From released shares to the masks in the sum: whoever is wrong has a name, and the others finish the attempt."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import pytest

from bench.exchange import Member, agree, attempt_terms, deal_from, masked_vector
from shared.errors import ShareInvalid
from shared.protocol.identity import to_text
from shared.protocol.secagg.attempt import Roster
from shared.protocol.secagg.masks import Ring
from shared.protocol.secagg.member import open_shares, shares_to_release
from shared.protocol.secagg.sealing import AttemptSecrets, Shares, private_key, seal
from shared.protocol.secagg.unmasking import Masks, Released, masks_left, remove

NAMES = tuple(f"agent-{place}" for place in range(1, 8))  # a threshold of five
LOST = "agent-7"
PARAMETERS = 11


@dataclass(frozen=True)
class Attempt:
    """An attempt among seven, up to where each survivor has said which shares it releases."""

    roster: Roster
    dealt: dict[str, dict[str, str]]
    survivors: tuple[str, ...]
    released: dict[str, Released]
    total: Ring
    expected: Ring

    def left(self, others: Mapping[str, Released] = MappingProxyType({})) -> Masks:
        """Return the masks that are left where some release something else."""
        released = {**self.released, **others}
        return masks_left(self.roster, dealt=self.dealt, survivors=self.survivors, released=released)

    def require_sum(self, left: Masks) -> None:
        """Raise unless taking these masks out gives the sum of the survivors' vectors."""
        total = self.total.copy()
        remove(left.masks, total)
        assert np.array_equal(total, self.expected)


def attempt(*, lost: Collection[str] = (LOST,), dealing_garbage: Collection[str] = ()) -> Attempt:
    """Return an attempt in which some are lost after they have dealt, and some have dealt shares of other secrets."""
    members = {name: Member(name) for name in NAMES}
    roster = agree(attempt_terms(len(NAMES), PARAMETERS), members.values(), ())
    dealt = {}
    for name, member in members.items():
        dealer = Member(name, secrets=replace(AttemptSecrets.generate(), encryption=member.secrets.encryption))
        dealt[name] = deal_from(roster, dealer if name in dealing_garbage else member)
        member.shares |= dealer.shares
    for name, member in members.items():
        sealed = {dealer: shares[name] for dealer, shares in dealt.items() if dealer != name}
        shares, unreadable = open_shares(roster, name, member.secrets, sealed)
        assert not unreadable
        member.shares |= shares
    random = np.random.default_rng(1)
    vectors = {name: random.integers(0, 2**32, PARAMETERS, dtype=np.uint32) for name in NAMES}
    survivors = tuple(name for name in NAMES if name not in lost)
    masked = [masked_vector(vectors[name], roster, members[name], NAMES) for name in survivors]
    return Attempt(
        roster,
        dealt,
        survivors,
        {
            name: Released(*shares_to_release(members[name].shares, survivors=survivors, dealers=NAMES))
            for name in survivors
        },
        np.sum(masked, axis=0, dtype=np.uint32),
        np.sum([vectors[name] for name in survivors], axis=0, dtype=np.uint32),
    )


@pytest.fixture(scope="module")
def honest() -> Attempt:
    """Return an attempt in which nobody does anything wrong but fall silent."""
    return attempt()


def without(released: Released, *dealers: str) -> Released:
    """Return what is released but for some dealers' shares."""
    return Released(
        {name: share for name, share in released.own_masks.items() if name not in dealers},
        {name: share for name, share in released.mask_secrets.items() if name not in dealers},
    )


def lying(released: Released, share: str, *dealers: str) -> Released:
    """Return a release with another share of some dealers."""
    return Released(
        {name: share if name in dealers else right for name, right in released.own_masks.items()},
        {name: share if name in dealers else right for name, right in released.mask_secrets.items()},
    )


def test_one_own_mask_a_survivor_and_one_mask_a_lost_pair(honest: Attempt) -> None:
    """And once they are out, the sum is what it should be."""
    left = honest.left()
    assert len(left.masks) == 6 + 6
    assert not left.wrong
    honest.require_sum(left)


@pytest.mark.parametrize(
    "share",
    [to_text(bytes(33)), to_text(b"\xff" * 33), "garbage!", "", "A" * 45, "é" * 44],
    ids=["of another secret", "above the prime", "no text", "nothing", "too long", "no letters"],
)
@pytest.mark.parametrize("dealer", ["agent-2", LOST])
def test_a_wrong_share_is_found_and_whose_it_is(honest: Attempt, share: str, dealer: str) -> None:
    """Of a survivor's own mask or of a lost member's secret: the others' shares finish the attempt."""
    left = honest.left({"agent-1": lying(honest.released["agent-1"], share, dealer)})
    assert left.wrong == {"agent-1"}
    honest.require_sum(left)


def test_a_share_for_another_dealer_or_of_another_kind_is_wrong(honest: Attempt) -> None:
    """Only the share that was dealt is one."""
    released = honest.released["agent-1"]
    for share in (released.own_masks["agent-3"], released.mask_secrets[LOST]):
        left = honest.left({"agent-1": lying(released, share, "agent-2")})
        assert left.wrong == {"agent-1"}
    other_holder = honest.released["agent-4"].own_masks["agent-2"]
    assert honest.left({"agent-1": lying(released, other_holder, "agent-2")}).wrong == {"agent-1"}


def test_two_that_lie_together_cannot_put_it_on_another() -> None:
    """Each share is compared with what was dealt, and not with the others: all liars that can be borne have names."""
    whole = attempt(lost=())
    lies = {liar: lying(whole.released[liar], to_text(bytes(33)), *NAMES) for liar in ("agent-1", "agent-6")}
    left = whole.left(lies)
    assert left.wrong == {"agent-1", "agent-6"}
    whole.require_sum(left)


@pytest.mark.parametrize("share", [to_text(bytes(33)), "garbage!"])
def test_a_wrong_share_of_ones_own_mask_is_left_out(honest: Attempt, share: str) -> None:
    """There is no hash of it, and it is not needed."""
    left = honest.left({"agent-1": lying(honest.released["agent-1"], share, "agent-1")})
    assert left.wrong == {"agent-1"}
    honest.require_sum(left)


def test_who_releases_nothing_is_not_wrong(honest: Attempt) -> None:
    """It could not read what was sealed for it, or was lost again: as many as the threshold are enough."""
    left = honest.left({"agent-1": Released({}, {})})
    assert not left.wrong
    honest.require_sum(left)


@pytest.mark.parametrize("dealer", ["agent-3", LOST])
def test_too_few_right_shares_give_no_sum(honest: Attempt, dealer: str) -> None:
    """The error says whose mask is left, and how many shares of its secret were right."""
    silent = {"agent-1": without(honest.released["agent-1"], dealer)}
    lie = {"agent-2": lying(honest.released["agent-2"], to_text(bytes(33)), dealer)}
    with pytest.raises(ShareInvalid, match=f"mask of {dealer} cannot .* 4 right .* 5 give it; .* wrong ones: agent-2"):
        honest.left({**silent, **lie})
    lie = {"agent-2": without(honest.released["agent-2"], dealer)}
    with pytest.raises(ShareInvalid, match=f"mask of {dealer} cannot .* 4 right .* 5 give it; .* wrong ones: nobody"):
        honest.left({**silent, **lie})


@pytest.mark.parametrize("dealer", ["agent-1", "agent-3", LOST])
def test_a_dealer_of_garbage_is_named(dealer: str) -> None:
    """Everybody has released what it has dealt, and that is not of the secret that it announced."""
    garbage = attempt(dealing_garbage=[dealer])
    with pytest.raises(ShareInvalid, match=f"the mask of {dealer} cannot .* what it has dealt are no shares"):
        garbage.left()


def test_a_dealer_of_what_is_no_share_is_named(honest: Attempt) -> None:
    """Its hashes are of that, so that its holders are not the ones who are wrong."""
    roster, dealer, share = honest.roster, "agent-3", b"\xff" * 33
    sealed = {
        name: seal(
            Shares(share, share),
            private_key(bytes(32)),
            keys.encryption_key,
            roster.context,
            dealer=dealer,
            holder=name,
        )
        for name, keys in roster.keys.items()
    }
    released = {name: lying(given, to_text(share), dealer) for name, given in honest.released.items()}
    changed = replace(honest, dealt={**honest.dealt, dealer: sealed}, released=released)
    with pytest.raises(ShareInvalid, match=f"the mask of {dealer} cannot .* what it has dealt are no shares"):
        changed.left()
