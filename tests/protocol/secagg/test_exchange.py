"""Whole attempts in memory: whoever falls silent, the sum is the survivors' to the last bit."""

import numpy as np
import pytest

from bench.exchange import Lost, exchange
from shared.protocol.secagg.masks import Ring


def vectors(members: int, parameters: int = 9) -> dict[str, Ring]:
    """Return a random vector for each member."""
    random = np.random.default_rng(members)
    return {f"agent-{place}": random.integers(0, 2**32, parameters, dtype=np.uint32) for place in range(members)}


@pytest.mark.parametrize("stage", ["keys", "shares", "masked", "consistency", "unmasking"])
def test_the_sum_is_that_of_the_survivors_to_the_last_bit(stage: str) -> None:
    """One of four may fall silent at any stage, and the masks are gone from the sum all the same."""
    given = vectors(4)
    outcome = exchange(given, Lost(**{stage: ("agent-1",)}))
    expected = [given[name] for name in outcome.survivors]
    assert len(expected) == (3 if stage in {"keys", "shares", "masked"} else 4)
    assert np.array_equal(outcome.total, np.sum(expected, axis=0, dtype=np.uint32))
