"""Folders that appear whole, or not at all."""

from pathlib import Path

import pytest

from shared.errors import OutputExists
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


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_of_another_kind_is_never_replaced(tmp_path: Path, *, force: bool):
    """It has no marker, so it is somebody's."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "note").write_text("mine")
    with pytest.raises(OutputExists), appearing(tmp_path / "out", marker="config.json", force=force):
        pass
    assert names_in(tmp_path / "out") == ["note"]
