"""Has the processes of a story act, one at a time, and starts anew whichever is killed.

So the same story passes the same points in the same order each time: it can be stopped at any of them, and what comes
of it can be compared to the bit.
"""

import json
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from signal import SIGKILL
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeAlias

import httpx
import psutil

from bench.federation import ManualClock
from examples.demo.processes import free_ports
from services.client_agent.egress_ledger import Fault, ledger_folder, months, read
from services.client_agent.holdout_report import reports
from services.client_agent.state import StateFolder
from services.coordinator.certificates import new_authority
from shared.adapter_folder import WEIGHTS
from shared.folders import file_digest
from shared.protocol.rounds import ENDED_RUNS
from tests.crash.points import Point
from tests.crash.processes import COORDINATOR, HOST, VICTIMS, WORKER, Site, live
from tests.crash.stories import Look, Story

# What makes a lease or a stage run out, once nothing else happens.
PATIENCE_SECONDS = 31.0
MOST_PASSES = 100
MOST_SECONDS = 100.0

# New processes are copies of one that has imported everything; only the coordinator's second life begins as a program
# does, so that the time until it answers is an operator's.
Context: TypeAlias = ForkServerContext | SpawnContext
_COPIES, _PROGRAMS = multiprocessing.get_context("forkserver"), multiprocessing.get_context("spawn")
_COPIES.set_forkserver_preload(["tests.crash.processes", "alembic.command", "anyio._backends._asyncio", "numpy.random"])


class Ready(NamedTuple):
    """How long a coordinator took from its start until it answered: by the clock, and of a processor's time.

    On a machine that does something else besides, the former says little.
    """

    seconds: float
    cpu_seconds: float


class Conductor:
    """A story while it goes on."""

    def __init__(self, story: Story, folder: Path, kill_at: Point | None) -> None:
        port, work_port = free_ports(2)
        self.site = Site(folder, story.agents, port, work_port, kill_at)
        self.site.passed.touch()
        # Nobody speaks TLS here; but whoever trusts no certain one reads hundreds of certificates first.
        self.site.ca_file.write_text(new_authority(datetime.now(UTC)).certificate_pem)
        if story.terms.aggregation == "SecureAggregation":
            # Masked vectors are random and so are their names: else it would be chance which of them make a folder.
            for first in range(256):
                (folder / COORDINATOR / "blobs" / "sha256" / f"{first:02x}").mkdir(parents=True)
        self.kills = 0
        self.ready: Ready | None = None
        self.trouble: list[str] = []
        self._story = story
        self._clock = ManualClock()
        self._processes: dict[str, tuple[BaseProcess, Connection]] = {}

    def play(self) -> dict[str, Any]:
        """Play the story to its end and return what came of it.

        Raises:
            TimeoutError: it has none.
        """
        for name in (COORDINATOR, WORKER, *self._story.agents):
            self._start(name)
        self._ask(COORDINATOR, "start", terms=self._story.terms.model_dump(mode="json"))
        moved, has_rested = 0, False
        for _ in range(MOST_PASSES):
            look = self._pass()
            if look["number"] == 2 and not has_rested:
                has_rested = True
                self._restart()
            if look["run"] in ENDED_RUNS:
                self._pass()  # so that everybody holds what was published last
                return self._outcome()
            if self._story.is_enough(look):
                self._ask(COORDINATOR, "cancel")
            if look["moved"] == moved:
                self._clock.advance(PATIENCE_SECONDS)
            moved = look["moved"]
        raise TimeoutError(f"the story has no end: {look}, {self.trouble}")

    def end(self) -> None:
        """End all processes."""
        for name in list(self._processes):
            self._end(name)

    def _pass(self) -> Look:
        """Have everybody act once, and return how things were in the middle of it."""
        self._ask(COORDINATOR, "reconcile")
        self._ask(WORKER, "step")
        self._ask(COORDINATOR, "sign")
        look: Look = self._ask(COORDINATOR, "look")
        silent = self._story.silent(look)
        for name in self._story.agents:
            if name not in silent:
                self._ask(name, "step")
        self._ask(COORDINATOR, "reconcile")
        return look

    def _restart(self) -> None:
        """End those who may be killed while they wait, and start them again on the folders that they leave."""
        for name in VICTIMS:
            self._end(name)
            self._start(name)

    def _end(self, name: str) -> None:
        process, connection = self._processes.pop(name)
        process.kill()
        process.join()
        connection.close()

    def _ask(self, name: str, what: str, **arguments: Any) -> Any:  # noqa: ANN401 - as various as the answers are
        """Have a process do something, again if it dies over it; whoever else dies meanwhile starts anew too."""
        word = json.dumps({"now": self._clock(), "what": what, "with": arguments}).encode()
        while True:
            process, connection = self._processes[name]
            try:
                connection.send_bytes(word)
                self._until_answered(process, connection)
                answer = json.loads(connection.recv_bytes())
            except (EOFError, ConnectionError):
                self._bury(name)
                continue
            if isinstance(answer, str):
                self.trouble.append(f"{name}: {answer}")
            return answer

    def _until_answered(self, process: BaseProcess, connection: Connection) -> None:
        until = time.monotonic() + MOST_SECONDS
        while not connection.poll():
            others = {each.sentinel: name for name, (each, _) in self._processes.items() if each is not process}
            rung = wait([connection, process.sentinel, *others], timeout=until - time.monotonic())
            if not rung:
                raise TimeoutError(f"{process.name} does not answer")
            for name in [others[one] for one in rung if one in others]:
                self._bury(name)
            if process.sentinel in rung and not connection.poll():
                raise EOFError

    def _bury(self, name: str) -> None:
        """Start a process anew that was killed as it should be, and only once."""
        process, connection = self._processes.pop(name)
        process.join()
        connection.close()
        if process.exitcode != -SIGKILL or self.site.kill_at is None or self.kills:
            raise RuntimeError(f"{name} ended with {process.exitcode}")
        self.kills += 1
        if name == COORDINATOR:
            self.ready = self._ready_again()
        else:
            self._start(name)

    def _ready_again(self) -> Ready:
        """Start the coordinator as a program is started, and return how long it takes until it answers."""
        began = time.monotonic()
        self._start(COORDINATOR, _PROGRAMS)
        process, _ = self._processes[COORDINATOR]
        while process.is_alive():
            with suppress(httpx.NetworkError):
                httpx.get(f"http://{HOST}:{self.site.port}/healthz", timeout=MOST_SECONDS).raise_for_status()
                break
            time.sleep(0.005)
        else:
            raise RuntimeError(f"the coordinator does not start again: it ended with {process.exitcode}")
        taken = psutil.Process(process.pid).cpu_times()
        return Ready(time.monotonic() - began, taken.user + taken.system)

    def _start(self, name: str, context: Context = _COPIES) -> None:
        here, there = multiprocessing.Pipe()
        process = context.Process(target=live, args=(there, self.site, name), name=name, daemon=True)
        process.start()
        there.close()
        self._processes[name] = process, here

    # --- what came of it --------------------------------------------------------------------------------------------

    def _outcome(self) -> dict[str, Any]:
        """Return everything that a run leaves behind that must not depend on who was killed."""
        outcome: dict[str, Any] = self._ask(COORDINATOR, "outcome")
        return outcome | {name: self._left_by(self.site.folder / name) for name in self._story.agents}

    @staticmethod
    def _left_by(folder: Path) -> dict[str, Any]:
        state = StateFolder(folder)
        return {
            "holds": state.published and state.published.model_dump(),
            "serves": file_digest(state.peft_folder / WEIGHTS),
            "report": [run.model_dump_json(exclude={"at"}) for run in reports(folder).runs],
            "ledger": [fault.what for fault in read(months(ledger_folder(folder))) if isinstance(fault, Fault)],
        }


@contextmanager
def conducted(story: Story, kill_at: Point | None = None) -> Iterator[Conductor]:
    """Give a story whose processes, and folders, end with the block; ``kill_at`` is where one is killed."""
    # A SIGKILL leaves of a folder in memory what it leaves of one on a disk, which would wait for each fsync.
    memory = Path("/dev/shm")  # noqa: S108 - for a folder of our own in it
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        conductor = Conductor(story, Path(name), kill_at)
        try:
            yield conductor
        finally:
            conductor.end()
