"""This process of the agent, told from those before it on its state folder, and from one on a copy of the folder.

    <folder>/instances.json     the processes since the last one that the coordinator has let in, that one first

A process is in the file before it asks anything, so that the one after it can say that it follows, wherever this one
was killed. That is no secret and no proof: it lets a restart in at once, and the coordinator finds out a copy that says
the same, because what it says to follow goes on asking (docs/adr/0026).
"""

import json
from collections.abc import Callable
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from shared.credentials import new_nonce
from shared.folders import write_whole
from shared.protocol.messages import MOST_FOLLOWED
from shared.protocol.names import InstanceId

INSTANCES = TypeAdapter(list[InstanceId])


class Instance:
    """The process that owns the state folder; to be made once it does."""

    def __init__(self, folder: Path, new_id: Callable[[], str] = new_nonce) -> None:
        self._file = folder / "instances.json"
        known = self._known()
        self.id = new_id()
        # Of many that the coordinator has never let in, the newest; the one that it did let in is the first.
        self.follows = [*known[:1], *known[1:][1 - MOST_FOLLOWED :]]
        self._write([*self.follows, self.id])

    def let_in(self) -> None:
        """Remember that the coordinator has answered this process: those before it are of no use any more."""
        if self.follows:
            self._write([self.id])
            self.follows = []

    def _known(self) -> list[str]:
        try:
            return INSTANCES.validate_json(self._file.read_bytes())
        except (FileNotFoundError, ValidationError):
            return []  # it is let in all the same, only later

    def _write(self, ids: list[str]) -> None:
        write_whole(self._file, json.dumps(ids).encode())
