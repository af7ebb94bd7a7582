"""Files and folders that cannot be read, or not as they are, and what their users are told."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.data.files import format_by_name, held_still
from shared.errors import DataChanged, DataUnreadable
from tests.support.users import as_nobody, folder_for_all


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that any user may look into."""
    with folder_for_all() as path:
        yield path


def refused(path: Path) -> str:
    """What is said when the path is read."""
    with pytest.raises(DataUnreadable) as caught, held_still(path):
        path.read_bytes()
    return str(caught.value)


def test_a_file_that_is_not_there_is_told_with_what_may_have_been_meant(tmp_path: Path):
    """A misspelt name, a folder that was not mounted, a dead end."""
    (tmp_path / "train.jsonl").write_text("")
    assert refused(tmp_path / "trian.jsonl").endswith(f"no 'trian.jsonl' in {tmp_path}: 'train.jsonl' was meant?")
    assert refused(tmp_path / "zzz").endswith("correct the path")
    assert f"nor its folder: {tmp_path} is there" in refused(tmp_path / "data" / "train.jsonl")
    assert f"{tmp_path / 'train.jsonl'} is a file and no folder" in refused(tmp_path / "train.jsonl" / "inside")


def test_a_file_of_another_user_is_told_with_both_users_and_a_way_out(folder: Path):
    """A container's user meets files of the host's."""
    file = folder / "data.jsonl"
    file.write_text("{}")
    file.chmod(0)
    with as_nobody():
        told = refused(file)
        me = os.geteuid()
    owner = file.stat().st_uid
    assert f"runs as user {me} and group {os.getegid()}: {file} belongs to user {owner} and group" in told
    assert "has mode 0000" in told
    assert f"chown {me} {file}" in told
    assert f"chmod o+r {file}" in told
    assert f"as user {owner}" in told


def test_a_folder_in_the_way_is_named_rather_than_the_file(folder: Path):
    """Changing the file's mode would not help."""
    closed = folder / "closed"
    closed.mkdir()
    (closed / "data.jsonl").write_text("{}")
    closed.chmod(0)
    with as_nobody():
        told = refused(closed / "data.jsonl")
    closed.chmod(0o755)
    assert f"{closed} belongs to user" in told
    assert f"chmod o+rx {closed}" in told


def test_a_file_in_a_datasets_folder_is_named(folder: Path):
    """A folder may be open and what is in it not."""
    inside = folder / "data.arrow"
    inside.write_bytes(b"")
    inside.chmod(0)
    with as_nobody(), pytest.raises(DataUnreadable, match=r"data\.arrow belongs to user"), held_still(folder):
        inside.read_bytes()


@pytest.mark.timeout(10)
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path):
    """Opening it would wait for whoever writes to it, and nobody may; also inside a folder."""
    pipe = tmp_path / "data.jsonl"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path, Path(os.devnull)):
        with pytest.raises(DataUnreadable, match=r"is a pipe or a device, .*: save what comes out"), held_still(path):
            pipe.read_bytes()


@pytest.mark.parametrize("change", ["written", "touched", "rewritten", "replaced", "removed"])
def test_what_changes_is_refused(tmp_path: Path, change: str):
    """Size, time and inode: also where the new content is as long as the old, or the file is another one."""
    file, other = tmp_path / "data.jsonl", tmp_path / "other"
    file.write_text("old")
    state = file.stat()
    with pytest.raises(DataChanged, match="rename it"), held_still(file):
        match change:
            case "written":
                file.write_text("longer")
            case "touched":
                os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
            case "rewritten":  # as long as before, and dated back; again, until the disk's clock has gone on
                while file.stat().st_ctime_ns == state.st_ctime_ns:
                    file.write_text("new")
                    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
            case "replaced":
                other.write_text("new")
                os.utime(other, ns=(state.st_atime_ns, state.st_mtime_ns))
                other.replace(file)
            case "removed":
                file.unlink()


def test_a_fault_of_a_file_that_changes_is_told_as_the_change(tmp_path: Path):
    """Half a line is no JSON, and that is not what its owner must correct."""
    file = tmp_path / "data.jsonl"
    file.write_text("{}")
    with pytest.raises(DataChanged), held_still(file):
        file.write_text("{}{")
        raise DataUnreadable("not JSON")
    with pytest.raises(DataUnreadable, match="not JSON"), held_still(file):
        raise DataUnreadable("not JSON")


def test_a_folder_changes_with_what_is_in_it(tmp_path: Path):
    """A dataset that is being saved again."""
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "data.arrow").write_text("old")
    with held_still(tmp_path):
        pass
    with pytest.raises(DataChanged), held_still(tmp_path):
        (tmp_path / "train" / "data.arrow").write_text("longer")
    with pytest.raises(DataChanged), held_still(tmp_path):
        (tmp_path / "train" / "more.arrow").write_text("")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.jsonl", "jsonl"), ("a.ndjson", "jsonl"), ("a.json", "json"), ("a.b.CSV", "csv"), ("a.tsv", "tsv")],
)
def test_an_ending_says_the_format(name: str, kind: str):
    """In capitals too."""
    assert format_by_name(Path(name)) == kind


@pytest.mark.parametrize("name", ["data", "data.txt", "data.jsonl.old"])
def test_an_ending_that_says_nothing_asks_for_the_format(name: str):
    """Rather than guess from what is in the file."""
    with pytest.raises(DataUnreadable, match="add `format`, one of jsonl, json, csv, tsv, parquet"):
        format_by_name(Path(name))


@pytest.mark.parametrize(
    ("name", "advice"), [("data.jsonl.gz", "decompress it first"), ("data.XLSX", 'in the spreadsheet, .*"CSV UTF-8"')]
)
def test_an_ending_of_what_is_packed_says_what_to_do_first(name: str, advice: str):
    """No word on the format would help."""
    with pytest.raises(DataUnreadable, match=f"{name} cannot be read as it is: {advice}"):
        format_by_name(Path(name))
