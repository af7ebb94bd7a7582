from collections.abc import Iterator
from functools import cache
from statistics import median
from typing import Any

import pytest

from tests.crash.conductor import Ready, conducted
from tests.crash.points import LIST, Point, as_list, listed
from tests.crash.seams import points_in
from tests.crash.stories import STORIES, Story

pytestmark = pytest.mark.timeout(300)

# By the clock it is below two on a machine that does nothing else, and here others may run beside.
MOST_CPU_SECONDS = 4.0


@pytest.fixture(scope="module")
def ready() -> Iterator[list[Ready]]:
    """How long coordinators that were killed took until they answered again; told at the end (``pytest -s``)."""
    measured: list[Ready] = []
    yield measured
    if measured:
        seconds = [one.seconds for one in measured]
        told = f"{median(seconds):.2f} s in the median and {max(seconds):.2f} s at most of {len(seconds)}"
        print(f"\nready again after {told}")  # noqa: T201 - for whoever runs it for that


@cache
def undisturbed(story: Story) -> tuple[dict[str, Any], frozenset[Point]]:
    """Return what comes of a story in which nobody is killed, and the points that its processes pass."""
    with conducted(story) as conductor:
        return conductor.play(), frozenset(points_in(conductor.site.passed))


def cases() -> Iterator[Any]:
    """Yield every point of the list; but for those of the sample, they are slow together."""
    for story in STORIES.values():
        for point in listed(story.name):
            marks = () if point.is_sampled(story.name) else pytest.mark.slow
            yield pytest.param(story, point, id=point.name(story.name), marks=marks)


@pytest.mark.parametrize(("story", "point"), list(cases()))
def test_who_is_killed_at_any_point_loses_nothing(story: Story, point: Point, ready: list[Ready]) -> None:
    """Killed at this point and started again, a story ends with every digest and count that it has without a kill."""
    expected, _ = undisturbed(story)
    with conducted(story, point) as conductor:
        outcome = conductor.play()
    assert conductor.kills == 1, f"nobody passes {point} any more: python -m tests.crash.record"
    assert outcome == expected, f"killed {point}"
    if conductor.ready is not None:
        ready.append(conductor.ready)
        assert conductor.ready.cpu_seconds < MOST_CPU_SECONDS


def test_the_list_has_every_point_that_there_is() -> None:
    """A durable step that somebody adds, or takes away, shows in the list: python -m tests.crash.record."""
    lines: list[str] = []
    for story in STORIES.values():
        _, passed = undisturbed(story)
        assert {*listed(story.name)} <= passed
        lines += as_list(story.name, passed)
    assert lines == LIST.read_text(encoding="utf-8").splitlines()
