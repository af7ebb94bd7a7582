import math
import random

import pytest

from shared.ml.intervals import mean_interval, paired_interval, ratio_interval, share_interval


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


def test_a_mean_over_tokens_has_the_interval_of_a_mean_where_all_examples_are_alike() -> None:
    """The textbook's, for as many tokens each; and it may be negative, as differences are."""
    assert mean_interval([1.0, -2.0, 4.0, -7.0], [1] * 4) == pytest.approx((-1 - 1.959964 * 2.345208, -1 + 4.596523))
    assert mean_interval([2.0, -4.0, 8.0, -14.0], [2] * 4) == pytest.approx((-1 - 4.596523, -1 + 4.596523))
    assert mean_interval([1.0], [1]) is None


def test_a_paired_interval_holds_the_truth_about_95_times_in_100() -> None:
    """Counted over all that can come of 30 examples, also where hardly any differ; an unadjusted one does not."""
    count = 30
    for first, second in ((0.2, 0.1), (0.05, 0.05), (0.3, 0.02), (0.0, 0.03)):
        held = sum(
            math.comb(count, gained)
            * math.comb(count - gained, lost)
            * first**gained
            * second**lost
            * (1 - first - second) ** (count - gained - lost)
            for gained in range(count + 1)
            for lost in range(count + 1 - gained)
            if paired_interval(gained, lost, count)[0] <= first - second <= paired_interval(gained, lost, count)[1]
        )
        assert held > 0.94


def test_a_paired_interval_is_one_for_extremes_too() -> None:
    """No example differs, or every one does; those on which both agree make it narrower, whatever they say."""
    low, high = paired_interval(0, 0, 100)
    assert -low == high == pytest.approx(1.959964 * math.sqrt(2 / 102 / 102))
    assert paired_interval(3, 0, 3)[1] == 1.0
    assert paired_interval(0, 3, 3)[0] == -1.0
    assert paired_interval(5, 5, 100)[1] < paired_interval(5, 5, 20)[1]
