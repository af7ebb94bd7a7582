"""Which processes an agent says that it follows, wherever the one before it was killed."""

from pathlib import Path

from services.client_agent.instance import Instance
from shared.protocol.messages import MOST_FOLLOWED


def started(folder: Path, number: int) -> Instance:
    """Start a process on a state folder."""
    return Instance(folder, lambda: f"process-{number}".ljust(22, "-"))


def test_a_process_follows_the_one_that_the_coordinator_has_let_in(tmp_path: Path) -> None:
    """And once it is let in itself, nobody."""
    first = started(tmp_path, 1)
    assert first.follows == []
    first.let_in()
    second = started(tmp_path, 2)
    assert second.follows == [first.id]
    second.let_in()
    assert second.follows == []
    assert started(tmp_path, 3).follows == [second.id]


def test_a_process_that_was_killed_before_it_had_an_answer_is_followed_too(tmp_path: Path) -> None:
    """It may have been let in without knowing it; so may each before it since the last one that knew."""
    ids = [started(tmp_path, number).id for number in range(3)]
    assert started(tmp_path, 3).follows == ids


def test_however_often_it_is_killed_the_one_that_was_let_in_is_followed(tmp_path: Path) -> None:
    """Of the others, the newest: an address has room for a few."""
    first = started(tmp_path, 0)
    first.let_in()
    ids = [started(tmp_path, number).id for number in range(1, 30)]
    assert started(tmp_path, 30).follows == [first.id, *ids[1 - MOST_FOLLOWED :]]


def test_a_damaged_file_is_no_reason_not_to_start(tmp_path: Path) -> None:
    """Whoever follows nobody is let in all the same, only later."""
    started(tmp_path, 1)
    (tmp_path / "instances.json").write_text('["' + "x" * 23)
    assert started(tmp_path, 2).follows == []
    (tmp_path / "instances.json").write_text('["not an id"]')
    assert started(tmp_path, 3).follows == []
    assert len(started(tmp_path, 4).follows) == 1
