"""The egress ledger: an entry for every request that leaves this machine, on the disk before its first byte goes.

    <state_dir>/ledger/2026-11.jsonl    an entry a line, a file a month, only ever appended to
    <state_dir>/ledger/writer.lock      `run`, `doctor` and `enrol` may send at the same time

Each entry has the SHA-256 of the line before it, over months too, so that a reader finds where a line was changed or
taken out (docs/adr/0012). A line without its end is of a request that was never sent: the next writer takes it away.
"""

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ValidationError

from services.client_agent.what_leaves import kind_of
from shared.egress import Egress, TrafficCount
from shared.errors import LedgerUnwritable
from shared.folders import appending, last_line, sync
from shared.protocol.digests import Digest
from shared.protocol.terms import FROZEN

NOTHING_BEFORE = "0" * 64


class Entry(BaseModel):
    """One request: when, to whom, what, of which kind, and which rule of the agent's policy allowed it.

    ``head_bytes`` are those of the request line and the header fields, ``digest`` is that of the body if there is one,
    and ``previous`` the SHA-256 of the line before this one. With TLS, these are the bytes inside.
    """

    at: AwareDatetime
    to: str
    method: str
    target: str
    kind: str
    rule: str | None
    head_bytes: int
    body_bytes: int
    digest: Digest | None
    previous: str
    model_config = FROZEN


@dataclass(frozen=True)
class Fault:
    """A place where the ledger is not what was written."""

    where: str
    what: str


def ledger_folder(state_dir: Path) -> Path:
    """Return where the ledger of an agent lies."""
    return state_dir / "ledger"


def now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)


class EgressLedger:
    """The ledger that an agent's requests are written to; several processes may write to one."""

    def __init__(self, state_dir: Path, count: TrafficCount, clock: Callable[[], datetime] = now) -> None:
        """``count`` is told of what was written, for the status page."""
        self._folder = ledger_folder(state_dir)
        self._count = count
        self._clock = clock

    def record(self, request: Egress, *, to: str, head_bytes: int) -> None:
        """Write an entry, and return when it is on the disk.

        Raises:
            EgressUnexplained: nobody could say what this request is for.
            LedgerUnwritable: the disk says no.
        """
        kind = kind_of(request.method, request.target)
        try:
            with self._writing() as folder:
                at = self._clock()
                files = months(folder)
                file = max([folder / f"{at:%Y-%m}.jsonl", *files])  # a clock may be set back
                is_new = not file.exists()
                with appending(file) as (last, append):
                    entry = Entry(
                        at=at,
                        to=to,
                        method=request.method,
                        target=request.target,
                        kind=kind.name,
                        rule=kind.rule,
                        head_bytes=head_bytes,
                        body_bytes=request.bytes,
                        digest=request.digest if request.bytes else None,
                        previous=_digest(last) if last else last_digest([each for each in files if each != file]),
                    )
                    append(entry.model_dump_json().encode())
                if is_new:
                    _give_to_owner(file)
        except OSError as error:
            raise LedgerUnwritable(
                f"the ledger of what leaves this machine cannot be written ({error.strerror}), so nothing was sent: "
                f"make room, or give {self._folder} to the user that the agent runs as"
            ) from None
        self._count.record(request, to=to, head_bytes=head_bytes)

    @contextmanager
    def _writing(self) -> Iterator[Path]:
        """Be the only writer while the block runs."""
        for part in reversed([each for each in (self._folder, *self._folder.parents) if not each.exists()]):
            part.mkdir(exist_ok=True)
            _give_to_owner(part)
            sync(part.parent)
        lock = self._folder / "writer.lock"
        with lock.open("a") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX)
            _give_to_owner(lock)
            yield self._folder


def months(folder: Path) -> list[Path]:
    """Return the ledger's files, the oldest first."""
    return sorted(folder.glob("????-??.jsonl"))


def stored(file: Path) -> Iterator[bytes]:
    """Yield what a file of the ledger holds now, in pieces, whatever is appended meanwhile."""
    with file.open("rb") as opened:
        left = os.fstat(opened.fileno()).st_size
        while block := opened.read(min(left, 1 << 16)):
            left -= len(block)
            yield block


def last_digest(files: list[Path]) -> str:
    """Return the SHA-256 of the last line of the newest of ``files`` that has one."""
    for file in reversed(files):
        with file.open("rb") as opened:
            if last := last_line(opened.fileno())[0]:
                return _digest(last)
    return NOTHING_BEFORE


def read(files: list[Path], before: str | None = None) -> Iterator[Entry | Fault]:
    """Yield what is in ``files``, and where it is not what was written.

    ``before`` is the digest of the line before the first one, where that is known.
    """
    for file in files:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):  # being written at this moment, or never sent
                    break
                where = f"{file.name}, line {number}"
                try:
                    entry = Entry.model_validate_json(line)
                except ValidationError:
                    yield Fault(where, "is no entry: it was damaged")
                else:
                    if before not in {None, entry.previous}:
                        yield Fault(where, "does not follow the line before it: that was changed, or lines taken out")
                    yield entry
                before = _digest(line)


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def _give_to_owner(path: Path) -> None:
    """Let what root's doctor makes belong to whom the folder above belongs to: the agent that will write to it."""
    if os.geteuid() == 0:
        above = path.parent.stat()
        os.chown(path, above.st_uid, above.st_gid)
