"""Models by hub id, against a hub of our own on loopback: each process is its own, for the settings are read once."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from shared.errors import ModelUnreadable
from shared.ml.hub import model_directory
from tests.support.tiny_models import tiny_directory

COMMIT = "1" * 40
ASK = """
import sys
from shared.errors import FedCoLLMError
from shared.ml import hub
hub.ANSWER_SECONDS = 2.0
try:
    print(hub.model_directory(sys.argv[1]))
except FedCoLLMError as error:
    print(f"{error.code}: {error}")
"""


class Hub(BaseHTTPRequestHandler):
    """Has one model, ``org/model``; others are gated, private, or not there."""

    files: dict[str, bytes]
    refused: dict[str, tuple[int, str]]
    asked: list[str]

    def do_HEAD(self) -> None:
        """Say what a file is."""
        self.do_GET()

    def do_GET(self) -> None:
        """Answer as huggingface.co does, as far as its client asks."""
        path = self.path.partition("?")[0]
        self.asked.append(path)
        for name, (status, code) in self.refused.items():
            if name in path:
                self._answer(status, b"", {"X-Error-Code": code})
                return
        if path.startswith("/api/models/org/model/tree/"):
            tree = [{"type": "file", "path": name, "size": len(data), "oid": name} for name, data in self.files.items()]
            self._answer(200, json.dumps(tree).encode())
        elif path.startswith("/api/models/org/model"):
            siblings = [{"rfilename": name} for name in self.files]
            self._answer(200, json.dumps({"id": "org/model", "sha": COMMIT, "siblings": siblings}).encode())
        else:
            data = self.files[path.rpartition("/")[2]]
            self._answer(200, data, {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT})

    def log_message(self, *_: object) -> None:
        """Be silent."""

    def _answer(self, status: int, body: bytes, fields: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (fields or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@contextmanager
def hub_with(files: dict[str, bytes], **refused: tuple[int, str]) -> Iterator[tuple[str, list[str]]]:
    """Run a hub; give its address and what it was asked."""
    handler = type("OneHub", (Hub,), {"files": files, "refused": refused, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", handler.asked
    finally:
        server.shutdown()
        server.server_close()


def ask(name: str, cache: Path, endpoint: str, **environment: str) -> str:
    """Ask for a model in a process of its own, and return its answer."""
    answer = subprocess.run(  # noqa: S603 - our own text
        [sys.executable, "-c", ASK, name],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "HF_HOME": str(cache),
            "HF_ENDPOINT": endpoint,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "*",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return answer.stdout.strip()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A tiny model's, and one that is nobody's business."""
    folder = tiny_directory(tmp_path_factory.mktemp("model"))
    return {file.name: file.read_bytes() for file in folder.iterdir()} | {"pytorch_model.bin": b"a pickle"}


@pytest.fixture
def nobody() -> str:
    """An address where nobody listens."""
    with hub_with({}) as (address, _):
        return address


def test_a_model_is_fetched_once_and_then_used_as_it_is(files: dict[str, bytes], nobody: str, tmp_path: Path):
    """The hub is asked for what a model consists of, and after that not at all, whether it is there or not."""
    with hub_with(files) as (address, asked):
        directory = Path(ask("org/model", tmp_path, address))
        assert {file.name for file in directory.iterdir()} == set(files) - {"pytorch_model.bin"}
        assert all(file.read_bytes() == files[file.name] for file in directory.iterdir())
        asked.clear()
        assert ask("org/model", tmp_path, address) == str(directory)
        assert asked == []
    assert ask("org/model", tmp_path, nobody) == str(directory)
    assert ask("org/model", tmp_path, nobody, HF_HUB_OFFLINE="1") == str(directory)


def test_a_model_that_came_in_half_is_completed_and_not_used(files: dict[str, bytes], nobody: str, tmp_path: Path):
    """Without a hub its user is told; with one it is fetched to its end."""
    with hub_with(files) as (address, _):
        directory = Path(ask("org/model", tmp_path, address))
        (directory / "model.safetensors").unlink()
        for environment, told in (({}, "not wholly, in the local cache"), ({"HF_HUB_OFFLINE": "1"}, "not wholly")):
            answer = ask("org/model", tmp_path, nobody, **environment)
            assert answer.startswith("model_unreadable: org/model is not, or ")
            assert told in answer
        assert ask("org/model", tmp_path, address) == str(directory)
    assert (directory / "model.safetensors").read_bytes() == files["model.safetensors"]


def test_a_model_that_came_without_its_tokenizer_is_not_whole(files: dict[str, bytes], nobody: str, tmp_path: Path):
    """Its owners may have added that later: they are asked again, as long as it is not there."""
    without = {name: data for name, data in files.items() if not name.startswith("tokenizer")}
    with hub_with(without) as (address, _):
        ask("org/model", tmp_path, address)
    assert "not wholly, in the local cache" in ask("org/model", tmp_path, nobody)


def test_a_hub_that_is_not_there_is_told_within_seconds(nobody: str, tmp_path: Path):
    """No network is no reason to wait: which address failed, and what to do."""
    started = time.monotonic()
    answer = ask("org/model", tmp_path, nobody)
    assert time.monotonic() - started < 20
    assert f"fetching it from {nobody} failed (ConnectError): check the network" in answer


def test_a_hub_that_does_not_answer_is_not_waited_for(tmp_path: Path):
    """A firewall that swallows packets looks like this: connected, and then silence."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        answer = ask("org/model", tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert time.monotonic() - started < 30
    assert "failed (ReadTimeout)" in answer


def test_without_leave_to_ask_a_hub_the_message_names_the_setting(files: dict[str, bytes], tmp_path: Path):
    """Offline is a choice, and it is told apart from a network that fails."""
    with hub_with(files) as (address, asked):
        answer = ask("org/model", tmp_path, address, HF_HUB_OFFLINE="1")
        assert "HF_HUB_OFFLINE forbids to fetch it" in answer
        assert asked == []


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (401, "RepoNotFound", "knows no model by that id"),
        (404, "RepoNotFound", "correct it, or log in"),
        (401, "GatedRepo", "is gated: ask for access on"),
        (403, "GatedRepo", "log in as who has it"),
        (500, "Broken", "failed (HfHubHTTPError): check the network"),
    ],
)
def test_what_a_hub_refuses_is_told_with_what_to_do(status: int, code: str, told: str, tmp_path: Path):
    """A wrong id, a model behind a consent, and a broken hub ask for different things."""
    with hub_with({}, other=(status, code)) as (address, _):
        answer = ask("org/other", tmp_path, address)
    assert answer.startswith("model_unreadable: ")
    assert "org/other" in answer
    assert told in answer


def test_a_gated_model_shows_itself_and_keeps_its_files(files: dict[str, bytes], tmp_path: Path):
    """Its page is public: it is the files that are refused."""
    with hub_with(files, resolve=(403, "GatedRepo")) as (address, _):
        assert "is gated: ask for access on" in ask("org/model", tmp_path, address)


def test_a_path_that_begins_at_a_folder_is_no_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`models/lm` beside `models/llm` would be a possible id; what was mistyped there is no reason for a request."""
    (tmp_path / "models" / "llm").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelUnreadable, match=r"there is no folder models/lm: 'llm' was meant\?"):
        model_directory("models/lm")
    for name in ("../models/llm", "/no/such/folder"):
        with pytest.raises(ModelUnreadable, match=f"there is no folder {name}: correct the path"):
            model_directory(name)


@pytest.mark.parametrize("name", ["a/b/c", "not a name"])
def test_what_is_neither_a_folder_nor_an_id_is_told_so_and_nobody_is_asked(name: str, tmp_path: Path):
    """A mistyped path is no reason for a request."""
    with hub_with({}) as (address, asked):
        assert "is neither a folder on this machine nor the id of a model" in ask(name, tmp_path, address)
        assert asked == []


def test_a_hubs_model_without_safetensors_is_told_so(files: dict[str, bytes], tmp_path: Path):
    """Only a pickle is there, which is named, and nothing is fetched."""
    with hub_with({name: data for name, data in files.items() if name != "model.safetensors"}) as (address, asked):
        answer = ask("org/model", tmp_path, address)
    assert f"{address}/org/model has neither model.safetensors nor " in answer
    assert "pytorch_model.bin is not read" in answer
    assert not [path for path in asked if "resolve" in path]
