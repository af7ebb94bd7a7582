import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.client_agent.state import StateFolder, StoredUpdate
from shared.errors import StoreBusy
from shared.folders import write_whole
from shared.protocol.digests import digest_of
from shared.protocol.messages import Assignment, PublishedAdapter
from tests.support.federations import adapter

THETA = [adapter(float(index)) for index in range(3)]
CONFIG = {"peft_type": "LORA", "r": 8}


class PowerCut(BaseException):
    """The machine stops here."""


class Disk:
    """Stops the machine at a chosen call."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.stop_at: int | None = None
        for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "unlink"), (Path, "hardlink_to")):
            self._watch(patch, owner, name)

    def _watch(self, patch: pytest.MonkeyPatch, owner: Any, name: str) -> None:  # noqa: ANN401 - a module or class
        real = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - passed on
            if self.stop_at is not None and len(self.calls) >= self.stop_at:
                raise PowerCut
            self.calls.append(name)
            return real(*args, **kwargs)

        patch.setattr(owner, name, call)


def published(index: int) -> PublishedAdapter:
    """Return the name of the adapter of a round."""
    return PublishedAdapter(run_id="run", round=index, digest=digest_of(THETA[index]))


def fetched(state: StateFolder, index: int) -> PublishedAdapter:
    """Put an adapter where a download would."""
    named = published(index)
    state.adapter(named.digest).write_bytes(THETA[index])
    return named


def test_a_kept_adapter_is_there_after_a_restart(tmp_path: Path) -> None:
    """Another agent on the same folder holds what the first one held."""
    state = StateFolder(tmp_path)
    assert state.published is None
    state.keep_published(fetched(state, 1), CONFIG, {})
    again = StateFolder(tmp_path)
    assert again.published == published(1)
    assert again.adapter(published(1).digest).read_bytes() == THETA[1]


def test_a_damaged_note_of_the_adapter_is_no_adapter(tmp_path: Path) -> None:
    """An agent fetches it again, and does not end for good."""
    state = StateFolder(tmp_path)
    state.keep_published(fetched(state, 1), CONFIG, {})
    (tmp_path / "published.json").write_text('{"run_id": "run", "rou')
    assert StateFolder(tmp_path).published is None


def test_the_adapter_is_there_as_a_peft_directory(tmp_path: Path) -> None:
    """What the organisation uses is a folder with the two files that PEFT loads."""
    state = StateFolder(tmp_path)
    state.keep_published(fetched(state, 1), CONFIG, {})
    folder = tmp_path / "slm-adapter"
    assert (folder / "adapter_model.safetensors").read_bytes() == THETA[1]
    assert json.loads((folder / "adapter_config.json").read_bytes()) == CONFIG


def test_older_adapters_are_forgotten(tmp_path: Path) -> None:
    """The folder does not grow with the number of rounds."""
    state = StateFolder(tmp_path)
    for index in range(3):
        state.keep_published(fetched(state, index), CONFIG, {})
    assert [path.name for path in (tmp_path / "adapters").iterdir()] == [published(2).digest.removeprefix("sha256:")]
    assert (tmp_path / "slm-adapter" / "adapter_model.safetensors").read_bytes() == THETA[2]


def test_a_power_cut_leaves_the_old_adapter_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever call the machine stops at, what the note names is there whole, and the next try succeeds."""
    seen = set()
    for stop_at in range(40):
        state = StateFolder(tmp_path / str(stop_at))
        state.keep_published(fetched(state, 1), CONFIG, {})
        new = fetched(state, 2)
        with monkeypatch.context() as patch:
            disk = Disk(patch)
            disk.stop_at = stop_at
            with suppress(PowerCut):
                state.keep_published(new, CONFIG, {})
        again = StateFolder(tmp_path / str(stop_at))
        held = again.published
        assert held in {published(1), published(2)}
        seen.add(held.round)
        assert again.adapter(held.digest).read_bytes() == THETA[held.round]
        assert (tmp_path / str(stop_at) / "slm-adapter" / "adapter_model.safetensors").read_bytes() in THETA[1:]
        again.keep_published(new, CONFIG, {})
        assert again.published == published(2)
        if len(disk.calls) < stop_at:
            break
    else:
        pytest.fail("the power was always cut")
    assert seen == {1, 2}


UPDATE = StoredUpdate(
    run_id="run",
    round=3,
    manifest=digest_of(b"manifest"),
    base_model=digest_of(b"base model"),
    adapter=digest_of(THETA[0]),
    layout=digest_of(b"layout"),
    clip_norm=50.0,
    fewest_parties=3,
    most_parties=4,
    weighted=False,
    seed=1,
    digest=digest_of(THETA[1]),
    examples=9,
    blinded_count=12,
)
DELTA = np.full(14, 0.5, dtype=np.float32)


def assigned(**changes: Any) -> Assignment:  # noqa: ANN401 - fields differ in type
    """Return the assignment that ``UPDATE`` was trained for, bent."""
    fields = UPDATE.model_dump(include={"run_id", "round", "manifest", "adapter"})
    return Assignment(**{**fields, **changes})


def test_a_trained_update_is_there_after_a_restart(tmp_path: Path) -> None:
    """What was trained once is sent, not trained again."""
    state = StateFolder(tmp_path)
    assert state.trained_update(assigned()) is None
    state.update_file("run", 3).write_bytes(THETA[1])
    assert state.trained_update(assigned()) is None  # a file without its note was perhaps half written
    state.keep_update(UPDATE, DELTA)
    assert StateFolder(tmp_path).trained_update(assigned()) == UPDATE


@pytest.mark.parametrize(
    "other",
    [
        {"round": 4},
        {"run_id": "other"},
        {"manifest": digest_of(b"other")},
        {"adapter": digest_of(THETA[2])},
    ],
)
def test_an_update_for_something_else_is_not_sent(other: dict[str, Any], tmp_path: Path) -> None:
    """Another run, round, manifest or theta needs another training."""
    state = StateFolder(tmp_path)
    state.update_file("run", 3).write_bytes(THETA[1])
    state.keep_update(UPDATE, DELTA)
    assert state.trained_update(assigned(**other)) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state.update_file("run", 3).write_bytes(THETA[1][:-1] + b"!"),
        lambda state: state.update_file("run", 3).unlink(),
        lambda state: state._note("run", 3).write_bytes(b"{"),
    ],
)
def test_an_update_that_is_not_whole_is_trained_again(damage: Callable[[StateFolder], None], tmp_path: Path) -> None:
    """A file that has rotted would be refused whenever it is sent: a new one is made, and it counts."""
    state = StateFolder(tmp_path)
    state.update_file("run", 3).write_bytes(THETA[1])
    state.keep_update(UPDATE, DELTA)
    damage(state)
    assert state.trained_update(assigned()) is None
    state.update_file("run", 3).write_bytes(THETA[1])
    state.keep_update(UPDATE, DELTA)
    assert state.trained_update(assigned()) == UPDATE


def test_a_power_cut_leaves_the_old_update_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever call the machine stops at, a trained update is there whole, and the next try succeeds."""
    old, seen = UPDATE.model_copy(update={"round": 2}), set()
    for stop_at in range(40):
        state = StateFolder(tmp_path / str(stop_at))
        state.update_file("run", 2).write_bytes(THETA[1])
        state.keep_update(old, DELTA)
        state.update_file("run", 3).write_bytes(THETA[1])
        with monkeypatch.context() as patch:
            disk = Disk(patch)
            disk.stop_at = stop_at
            with suppress(PowerCut):
                state.keep_update(UPDATE, DELTA)
        assert disk.calls[:2] == ["fsync", "fsync"][:stop_at]  # the update is durable before its note is
        again = StateFolder(tmp_path / str(stop_at))
        there = {number for number in (2, 3) if again.trained_update(assigned(round=number))}
        assert there
        seen |= there
        again.keep_update(UPDATE, DELTA)
        assert again.trained_update(assigned()) == UPDATE
        if len(disk.calls) < stop_at:
            break
    else:
        pytest.fail("the power was always cut")
    assert seen == {2, 3}


def test_older_updates_are_forgotten(tmp_path: Path) -> None:
    """Only the newest update needs its place on the disk."""
    state = StateFolder(tmp_path)
    for number in (1, 2, 3):
        state.update_file("run", number).write_bytes(THETA[1])
        state.keep_update(UPDATE.model_copy(update={"round": number}), DELTA)
    assert sorted(path.name for path in (tmp_path / "updates").iterdir()) == ["run-3", "run-3.changed", "run-3.json"]


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader sees the old content or the new, never a part, and new content is synced before it is named."""
    path = tmp_path / "note"
    write_whole(path, b"old")
    with monkeypatch.context() as patch:
        disk = Disk(patch)
        write_whole(path, b"new")
        assert disk.calls == ["fsync", "replace", "fsync"]
    for stop_at in range(3):
        write_whole(path, b"old")
        with monkeypatch.context() as patch:
            Disk(patch).stop_at = stop_at
            with suppress(PowerCut):
                write_whole(path, b"new")
        assert path.read_bytes() == (b"new" if stop_at == 2 else b"old")


def test_one_agent_owns_a_folder(tmp_path: Path) -> None:
    """A second one is refused while the first runs, and welcome after it."""
    with StateFolder(tmp_path).owned(), pytest.raises(StoreBusy, match="another agent"), StateFolder(tmp_path).owned():
        pass
    with StateFolder(tmp_path).owned():
        pass
