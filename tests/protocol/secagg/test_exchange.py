"""Whole attempts in memory: whoever falls silent, the sum is the survivors' to the last bit."""

from collections.abc import Iterator, Mapping
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.exchange import Lost, exchange
from shared.errors import AttemptRefused, FedCoLLMError, ShareInvalid
from shared.protocol.secagg.attempt import threshold_of
from shared.protocol.secagg.masks import Ring

STAGES = ("keys", "shares", "masked", "consistency", "unmasking")
PARAMETERS = 5


def vectors(members: int) -> dict[str, Ring]:
    """Return a random vector for each member; the members' names are not in the order of their numbers."""
    random = np.random.default_rng(members)
    return {f"agent-{place}": random.integers(0, 2**32, PARAMETERS, dtype=np.uint32) for place in range(members)}


def lost(stages: Mapping[str, str]) -> Lost:
    """Return who is lost at which stage, from each lost member's stage."""
    return Lost(**{stage: [name for name, at in stages.items() if at == stage] for stage in STAGES})


def dropout_sets(members: int) -> Iterator[dict[str, str]]:
    """Yield every way in which as many members as can be done without fall silent, each at any stage."""
    for count in range(members - threshold_of(members) + 1):
        for places in combinations(range(members), count):
            for stages in product(STAGES, repeat=count):
                yield {f"agent-{place}": stage for place, stage in zip(places, stages, strict=True)}


def require_exact(members: int, stages: Mapping[str, str]) -> None:
    """Raise unless the sum is that of those whose masked vector came, whoever was silent before or after."""
    given_ = vectors(members)
    outcome = exchange(given_, lost(stages))
    assert set(outcome.survivors) == {
        name for name in given_ if stages.get(name) not in {"keys", "shares", "masked"}
    }, stages
    expected = np.sum([given_[name] for name in outcome.survivors], axis=0, dtype=np.uint32)
    assert np.array_equal(outcome.total, expected), stages
    assert not outcome.left.wrong


@pytest.mark.parametrize("members", [4, 5, 6])
def test_every_dropout_set_of_a_small_cohort_gives_the_sum(members: int) -> None:
    """All members that an attempt can do without, at all stages."""
    for stages in dropout_sets(members):
        require_exact(members, stages)


@pytest.mark.parametrize("members", [7, 8])
def test_a_sample_of_the_dropout_sets_of_more_gives_the_sum(members: int) -> None:
    """Two are lost here; the sample is spread over members and stages."""
    for stages in list(dropout_sets(members))[::29]:
        require_exact(members, stages)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("members", [7, 8])
def test_every_dropout_set_of_up_to_eight_gives_the_sum(members: int, part: int) -> None:
    """All of them, in four parts."""
    for stages in list(dropout_sets(members))[part::4]:
        require_exact(members, stages)


@settings(max_examples=20)
@given(
    st.integers(9, 16).flatmap(
        lambda members: st.tuples(
            st.just(members),
            st.dictionaries(
                st.sampled_from([f"agent-{place}" for place in range(members)]),
                st.sampled_from(STAGES),
                max_size=members - threshold_of(members),
            ),
        )
    )
)
def test_dropout_sets_of_larger_cohorts_give_the_sum(case: tuple[int, dict[str, str]]) -> None:
    """Any of them."""
    require_exact(*case)


@pytest.mark.parametrize("members", [3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize(
    ("stage", "kind"),
    [
        ("keys", AttemptRefused),
        ("shares", AttemptRefused),
        ("masked", AttemptRefused),
        ("consistency", AttemptRefused),
        ("unmasking", ShareInvalid),
    ],
)
def test_with_one_lost_more_there_is_no_sum(members: int, stage: str, kind: type[FedCoLLMError]) -> None:
    """Below the threshold the attempt fails, at the stage where that is so, and says which attempt it is."""
    silent = members - threshold_of(members) + 1
    with pytest.raises(kind, match="attempt 1 of round 1 of run bench"):
        exchange(vectors(members), lost({f"agent-{place}": stage for place in range(silent)}))


def test_losses_at_different_stages_add_up() -> None:
    """Seven can do without two in all, not without two a stage, where the two are needed."""
    with pytest.raises(ShareInvalid, match="4 right shares"):
        exchange(vectors(7), lost({"agent-1": "shares", "agent-2": "masked", "agent-3": "unmasking"}))


def test_a_masked_vector_says_nothing() -> None:
    """What the coordinator holds is unrelated to the vectors, and so is its sum before the masks are out."""
    zeros: dict[str, Ring] = {name: np.zeros(20_000, dtype=np.uint32) for name in vectors(4)}
    outcome = exchange(zeros)
    assert not outcome.total.any()
    for masked in (*outcome.masked.values(), np.sum(list(outcome.masked.values()), axis=0, dtype=np.uint32)):
        bits = np.unpackbits(masked.view(np.uint8))
        assert abs(bits.mean() - 0.5) < 5 * 0.5 / np.sqrt(bits.size)
