"""Paths that settings name, before anything is loaded from them."""

import os
from pathlib import Path

import pytest

from shared.access import require_model, require_readable, require_writable
from shared.errors import ConfigurationError
from tests.support.users import as_nobody, folder_for_all


def test_a_file_and_a_folder_can_be_read(tmp_path: Path):
    """Nothing is said of what is well."""
    (tmp_path / "file").write_text("x")
    require_readable(tmp_path / "file")
    require_readable(tmp_path)


def test_a_path_that_is_not_there_is_told_with_what_was_meant(tmp_path: Path):
    """A misspelt name, and a folder that is not mounted."""
    (tmp_path / "token").write_text("x")
    with pytest.raises(ConfigurationError, match=r"there is no 'tokn' in .*: 'token' was meant\?"):
        require_readable(tmp_path / "tokn")
    with pytest.raises(ConfigurationError, match="mount the folder"):
        require_readable(tmp_path / "no" / "such" / "folder")


@pytest.mark.timeout(10)
def test_a_pipe_can_be_read_and_is_not_waited_for(tmp_path: Path):
    """Who writes to it may come later: a token from a password manager does."""
    os.mkfifo(tmp_path / "token")
    require_readable(tmp_path / "token")


def test_a_link_to_nothing_is_told_as_such(tmp_path: Path):
    """Its own name is in the folder, and is not what was meant; in a container the folder of its aim may be missing."""
    (tmp_path / "data.jsonl").symlink_to("elsewhere/data.jsonl")
    with pytest.raises(
        ConfigurationError, match=r"data\.jsonl is a link to elsewhere/data\.jsonl, which is not there: "
    ):
        require_readable(tmp_path / "data.jsonl")
    (tmp_path / "slm").symlink_to("elsewhere")
    with pytest.raises(ConfigurationError, match=r"there is no folder .*/slm: correct the path"):
        require_model(str(tmp_path / "slm"))


def test_a_path_through_a_file_or_one_that_no_disk_takes_is_told_with_what_to_do(tmp_path: Path):
    """Rather than in the system's words alone."""
    (tmp_path / "data.jsonl").write_text("x")
    (tmp_path / "loop").symlink_to("loop")
    for wrong, told in (
        ("data.jsonl/train", "data.jsonl is a file and no folder; correct the path"),
        ("data.jsonl/a/b", "data.jsonl is a file and no folder; correct the path"),
        ("x" * 300, "File name too long.*: correct the path"),
        ("loop", "symbolic links.*: correct the path"),
    ):
        with pytest.raises(ConfigurationError, match=told):
            require_readable(tmp_path / wrong)


def test_a_file_that_is_only_of_the_same_kind_was_not_meant(tmp_path: Path):
    """All settings end in .toml."""
    (tmp_path / "run.toml").write_text("x")
    with pytest.raises(ConfigurationError, match="correct the path"):
        require_readable(tmp_path / "ada.toml")


@pytest.mark.parametrize("name", ["gpt2", "HuggingFaceTB/SmolLM2-135M", "org/name.v1_2"])
def test_a_hub_id_needs_no_folder(name: str):
    """Whether a hub has it is found out when it is loaded."""
    require_model(name)


def test_a_name_that_no_file_can_have_is_told_so():
    """What was pasted by mistake may be long."""
    with pytest.raises(ConfigurationError, match=r"a+ cannot be read \(File name too long\)"):
        require_model("a" * 300)


@pytest.mark.parametrize("name", ["~/slm", "/models/slm", "./slm", "../slm", "models/deep/slm", "C:\\slm"])
def test_a_path_without_a_folder_is_no_hub_id(name: str):
    """A typing error does not become a question to a hub."""
    with pytest.raises(ConfigurationError, match="there is no folder"):
        require_model(name)


def test_what_begins_at_a_folder_that_is_there_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`models/lm` beside `models/llm` and `models/slm` is mistyped; elsewhere it may be the id of a model."""
    require_model("models/lm")
    for name in ("llm", "slm"):
        (tmp_path / "models" / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"there is no folder models/lm: 'llm' or 'slm' was meant\?"):
        require_model("models/lm")


def test_a_folder_must_look_like_a_model(tmp_path: Path):
    """Configuration and weights are looked for, and the message names what is missing."""
    with pytest.raises(ConfigurationError, match=r"holds no config\.json"):
        require_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigurationError, match=r"holds no \*\.safetensors: it is not"):
        require_model(str(tmp_path))
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ConfigurationError, match=r"holds no \*\.safetensors, and pytorch_model\.bin is not read"):
        require_model(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"")
    require_model(str(tmp_path))


def test_a_folder_to_write_to_is_made(tmp_path: Path):
    """With the folders above it; one that is there already will do."""
    for _ in range(2):
        require_writable(tmp_path / "state" / "ada")
    assert (tmp_path / "state" / "ada").is_dir()


def test_a_folder_of_another_user_is_told_with_a_way_out():
    """A container's user meets a volume of another one: at the folder itself, or above what is to be made."""
    with folder_for_all() as folder:
        for wanted in (folder, folder / "state", folder / "state" / "ada"):
            with as_nobody(), pytest.raises(ConfigurationError, match=rf"{wanted} cannot be written to"):
                require_writable(wanted)


def test_a_file_in_the_place_of_a_folder_is_told(tmp_path: Path):
    """Nothing is moved away for it."""
    (tmp_path / "state").write_text("x")
    for wanted in (tmp_path / "state", tmp_path / "state" / "ada"):
        with pytest.raises(ConfigurationError, match="cannot be a folder"):
            require_writable(wanted)


def test_a_missing_file_in_a_folder_that_cannot_be_listed_is_told():
    """Its neighbours cannot be named then, and that it is not there can."""
    with folder_for_all() as folder:
        (folder / "data.jsonl").write_text("x")
        folder.chmod(0o711)
        with as_nobody(), pytest.raises(ConfigurationError, match=r"there is no 'date\.jsonl' in .*: correct the path"):
            require_readable(folder / "date.jsonl")
