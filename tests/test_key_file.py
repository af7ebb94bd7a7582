import os
import stat
from pathlib import Path

import pytest

from shared.errors import ConfigurationError, OutputExists, OutputUnwritable
from shared.key_file import keep_key, key_of, read_key
from shared.protocol.identity import IdentityKey


def test_a_key_comes_back_from_its_file_and_nobody_else_reads_it(tmp_path: Path):
    """Made once, and from then on the same one; its folder is made with it."""
    file = tmp_path / "folder" / "agent.key"
    key = key_of(file)
    keep_key(file, key)
    assert read_key(file).public == key_of(file).public == key.public
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_key_is_never_written_over(tmp_path: Path):
    """What it has signed would be lost with it; the same key again changes nothing."""
    file, key = tmp_path / "agent.key", IdentityKey.generate()
    keep_key(file, key)
    keep_key(file, key)
    with pytest.raises(OutputExists, match="holds another key"):
        keep_key(file, IdentityKey.generate())
    assert read_key(file).public == key.public


def test_who_is_killed_while_a_key_is_written_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """And not half of one, with which nobody would start again; the next one takes its place."""

    class Kill(BaseException):
        """The process ends here."""

    def die(_: int) -> None:
        raise Kill

    file, key = tmp_path / "agent.key", IdentityKey.generate()
    with monkeypatch.context() as patch, pytest.raises(Kill):
        patch.setattr(os, "fsync", die)
        keep_key(file, IdentityKey.generate())
    assert not file.exists()
    keep_key(file, key)
    assert read_key(file).public == key.public
    assert [one.name for one in tmp_path.iterdir()] == ["agent.key"]


@pytest.mark.parametrize("content", ["", "x" * 42, "ö" * 43, "no base64!" * 5, "A" * 44])
def test_what_is_no_key_is_told_and_not_shown(content: str, tmp_path: Path):
    """A token in its place is as secret as a key."""
    file = tmp_path / "agent.key"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigurationError, match="holds no key of ours") as told:
        read_key(file)
    assert not content or content not in str(told.value)


def test_a_key_that_cannot_be_read_or_written_is_told(tmp_path: Path):
    """By the file's name, with what to do."""
    with pytest.raises(ConfigurationError, match=r"the key file: there is no 'agent.key' in"):
        read_key(tmp_path / "agent.key")
    (tmp_path / "file").touch()
    with pytest.raises(OutputUnwritable, match="choose another folder"):
        keep_key(tmp_path / "file" / "agent.key", IdentityKey.generate())
