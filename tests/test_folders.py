"""Folders that appear whole, or not at all."""

import errno
import os
from pathlib import Path

import pytest

from shared.errors import OutputExists, OutputUnwritable
from shared.folders import appearing


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_appears_when_all_of_it_is_written(tmp_path: Path):
    """Nobody sees a part of it under its name, nor anything else afterwards."""
    with appearing(tmp_path / "out", marker="config.json", force=False) as folder:
        (folder / "config.json").write_text("{}")
        assert not (tmp_path / "out").exists()
    assert names_in(tmp_path) == ["out"]
    assert names_in(tmp_path / "out") == ["config.json"]


def test_what_was_there_stays_until_the_new_one_is_whole(tmp_path: Path):
    """Whoever is interrupted in the middle keeps the old one."""
    with appearing(tmp_path / "out", marker="config.json", force=False) as folder:
        (folder / "config.json").write_text("old")

    def be_interrupted() -> None:
        with appearing(tmp_path / "out", marker="config.json", force=True) as folder:
            (folder / "config.json").write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        be_interrupted()
    assert (tmp_path / "out" / "config.json").read_text() == "old"
    assert names_in(tmp_path) == ["out"]


def test_what_was_there_comes_back_when_the_new_one_cannot_take_its_place(tmp_path: Path):
    """The last step is two renames; when the second fails, the first is undone, and the message says what to do."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text("old")

    def lose_the_new_one() -> None:
        with appearing(tmp_path / "out", marker="config.json", force=True) as folder:
            folder.rmdir()

    with pytest.raises(OutputUnwritable, match="choose another folder"):
        lose_the_new_one()
    assert (tmp_path / "out" / "config.json").read_text() == "old"
    assert names_in(tmp_path) == ["out"]


def test_what_fails_inside_is_not_told_as_a_folder_that_cannot_be_written(tmp_path: Path):
    """A file that is missing elsewhere says so itself."""
    with pytest.raises(FileNotFoundError), appearing(tmp_path / "out", marker="config.json", force=False):
        (tmp_path / "elsewhere").read_text()
    assert names_in(tmp_path) == []


def test_a_disk_that_is_full_is_told_with_what_to_do(tmp_path: Path):
    """Whatever was being written inside, it is this folder that had no room."""
    with (
        pytest.raises(OutputUnwritable, match="make room"),
        appearing(tmp_path / "out", marker="config.json", force=False),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_of_another_kind_is_never_replaced(tmp_path: Path, *, force: bool):
    """It has no marker, so it is somebody's."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "note").write_text("mine")
    with pytest.raises(OutputExists), appearing(tmp_path / "out", marker="config.json", force=force):
        pass
    assert names_in(tmp_path / "out") == ["note"]
