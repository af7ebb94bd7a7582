import random

import pytest

from shared.ml.intervals import ratio_interval, share_interval


@pytest.mark.parametrize(
    ("right", "count", "interval"),
    [(0, 10, (0.0, 0.2775)), (10, 10, (0.7225, 1.0)), (5, 10, (0.2366, 0.7634)), (81, 263, (0.2553, 0.3662))],
)
def test_a_share_has_wilsons_interval(right: int, count: int, interval: tuple[float, float]) -> None:
    """As others have printed it; the last row is Newcombe's (Statistics in Medicine 17, 1998, table I)."""
    assert share_interval(right, count) == pytest.approx(interval, abs=5e-5)


def test_a_share_of_tokens_holds_the_truth_about_95_times_in_100() -> None:
    """Where whole examples go right or wrong: an interval over tokens would hold it far less often."""
    draw, held = random.Random(7), 0  # noqa: S311 - examples are no secret
    for _ in range(400):
        counts = [draw.randint(1, 20) for _ in range(80)]
        right = [count if draw.random() < 0.6 else 0 for count in counts]
        found = ratio_interval(right, counts)
        assert found is not None
        held += found[0] <= 0.6 <= found[1]
    assert 0.92 < held / 400 < 0.98


def test_one_example_has_no_interval() -> None:
    """It says nothing of how examples differ."""
    assert ratio_interval([3], [4]) is None
    assert ratio_interval([3, 3], [4, 4]) == (0.75, 0.75)
