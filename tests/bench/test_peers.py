"""The parts of ``python -m bench.peers`` that need no other system."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pytest

from bench.counting_proxy import ByteCount
from bench.peers import measuring, noted, report
from bench.peers.aggregating import Aggregated
from bench.peers.crashing import Crashed, crash, lost
from bench.peers.lora import trained
from bench.peers.measuring import Measured, longest, measure, percentile, slope
from bench.peers.nvflare import project
from bench.peers.parts import keep_logs
from bench.peers.payload import FOLDER, digest, layout, noisy, note_round, zeros
from bench.peers.processes import Peak, ProcessTree, name_of
from bench.peers.systems import Case, RoundEnd
from examples.demo.processes import LOOPBACK, free_ports

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]

# --- numbers ---------------------------------------------------------------------------------------------------------


def test_percentiles_lie_on_the_line_between_two_values():
    """As NumPy has them by default; of nothing there is none."""
    assert percentile([1.0, 2.0, 3.0, 4.0, 5.0], 95) == pytest.approx(4.8)
    assert percentile([3.0], 95) == 3.0
    assert percentile([], 50) is None


def test_a_slope_needs_two_places():
    """Memory that grows by 3 MB an agent is told from memory that was seen with two agents alone."""
    assert slope([(2, 10.0), (4, 16.0), (8, 28.0)]) == pytest.approx(3)
    assert slope([(2, 10.0), (2, 12.0)]) is None


def test_a_round_waits_for_its_longest_training():
    """Trainings are taken by rounds, in the order in which they ended; a round that is not whole is left out."""
    assert longest([1.0, 3.0, 2.0, 1.5, 9.0], 2) == [3.0, 2.0]


def test_rounds_that_are_run_again_are_lost():
    """By the number of the first that ends after the kill; if none does, what was kept is not lost."""
    assert lost(4, 4, RoundEnd(5, 0.0)) == 0
    assert lost(4, None, RoundEnd(1, 0.0)) == 4
    assert lost(4, None, None) == 4
    assert lost(4, 4, None) == 0
    assert lost(4, 5, None) == 0  # saved, and killed before it was noted


# --- what is moved ---------------------------------------------------------------------------------------------------


def test_updates_depend_on_seed_and_adapter_alone():
    """So that a run whose coordinator was killed can be compared with one that was not."""
    adapter = zeros(4)
    assert digest(noisy(adapter, 7)) == digest(noisy(adapter, 7)) != digest(noisy(adapter, 8))
    backwards = dict(reversed(adapter.items()))
    assert digest(noisy(backwards, 7)) == digest(noisy(adapter, 7))
    assert {name: values.shape for name, values in noisy(adapter, 7).items()} == layout(4)
    assert all(values.dtype == np.float32 for values in noisy(adapter, 7).values())


def test_the_real_training_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Both factors of the first and the last layer change, the same way each time, and the seconds are noted."""
    monkeypatch.setenv(FOLDER, str(tmp_path))
    once, again = (trained(zeros(16), seed=1, steps=2) for _ in range(2))
    assert digest(once) == digest(again)
    for layer in (0, 23):
        assert once[f"base_model.model.model.layers.{layer}.self_attn.v_proj.lora_B.weight"].any()
    assert [each.seconds > 0 for each in noted.trainings(tmp_path)] == [True, True]


def test_rounds_are_noted_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A line that another process is still writing is left for the next look."""
    monkeypatch.setenv(FOLDER, str(tmp_path))
    assert noted.rounds(tmp_path) == []
    note_round(1, None)
    note_round(2, zeros(4))
    with (tmp_path / "rounds.jsonl").open("a") as file:
        file.write('{"number": 3')
    first, second = noted.rounds(tmp_path)
    assert (first.number, first.digest) == (1, None)
    assert (second.number, second.digest) == (2, digest(zeros(4)))


def test_clients_of_flare_go_through_the_proxy():
    """And its server has a name by which it listens on loopback alone."""
    server, _, *clients = project(3, port=1111, proxy=2222)["participants"]
    assert (server["name"], server["fed_learn_port"]) == ("localhost", 1111)
    assert [client["connect_to"]["port"] for client in clients] == [2222] * 3


# --- processes -------------------------------------------------------------------------------------------------------


def run(program: str) -> str:
    """Run a program that adopts orphans, which this process is not to do."""
    begin = "import os, signal, subprocess, sys, time, psutil\nfrom bench.peers.processes import *\nadopt_orphans()\n"
    done = subprocess.run(  # noqa: S603 - a program of this file
        [sys.executable, "-c", begin + program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout


def test_what_leaves_its_session_and_its_parent_is_ended():
    """As Flower's executors do: in a session of their own, and alive when their parent is not."""
    said = run(
        "subprocess.run(['sh', '-c', 'setsid sleep 60 & exec setsid sleep 61 >/dev/null 2>&1 &'])\n"
        "while sorted(p.cmdline()[-1:] for p in children(os.getpid())) != [['60'], ['61']]: time.sleep(0.01)\n"
        "ids = [p.pid for p in children(os.getpid())]\n"
        "end_descendants()\n"
        "print([psutil.pid_exists(pid) for pid in ids])"
    )
    assert said.strip() == "[False, False]"


def test_a_wrapper_that_restarts_what_is_killed_is_ended_first():
    """As FLARE's are: its child does not come back."""
    said = run(
        "subprocess.Popen(['sh', '-c', 'while true; do sleep 60; done'])\n"
        "while len(children(os.getpid())) < 2: time.sleep(0.01)\n"
        "end_descendants()\n"
        "time.sleep(0.1)\n"
        "print(children(os.getpid()))"
    )
    assert said.strip() == "[]"


def test_a_tree_keeps_those_whose_parent_has_ended():
    """A job that outlives its server is still on the coordinator's side, and its memory still counts."""
    said = run(
        "root = subprocess.Popen(['sh', '-c', 'setsid sleep 60 & wait'])\n"
        "tree = ProcessTree([root.pid])\n"
        "while [tree.known[p].name for p in tree.living()][1:] != ['sleep']: time.sleep(0.01); tree.known.clear()\n"
        "tree.sample()\n"
        "root.kill(); root.wait()\n"
        "print([tree.known[p].name for p in tree.living()], all(peak.megabytes > 0 for peak in tree.peaks()))\n"
        "end_descendants()"
    )
    assert said.strip() == "['sleep'] True"


def test_a_process_that_becomes_another_is_measured_as_that():
    """A child that has just been forked looks as large as its parent, and is not."""
    said = run(
        'becomes = \'import os; print(flush=True); input(); os.execlp("sleep", "sleep", "60")\'\n'
        "pipe = subprocess.PIPE\n"
        "root = subprocess.Popen([sys.executable, '-c', becomes], stdin=pipe, stdout=pipe)\n"
        "tree = ProcessTree([root.pid])\n"
        "root.stdout.readline()\n"
        "tree.sample(); before = [peak.megabytes for peak in tree.peaks()]\n"
        "root.stdin.write(b'\\n'); root.stdin.flush()\n"
        "while name_of(psutil.Process(root.pid).cmdline()) != 'sleep': time.sleep(0.01)\n"
        "tree.sample(); after = list(tree.peaks())\n"
        "print(after[0].name, after[0].megabytes < before[0])\n"
        "end_descendants()"
    )
    assert said.strip() == "sleep True"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_case_leaves_nothing(number: signal.Signals):
    """Ctrl-C and a polite kill end what was started, whatever session it is in."""
    program = (
        "import asyncio, subprocess, sys\n"
        "from bench.peers.interrupts import run_alone\nfrom bench.peers.processes import adopt_orphans\n"
        "adopt_orphans()\n"
        "async def case():\n"
        "    process = await asyncio.create_subprocess_exec('sleep', '60', start_new_session=True)\n"
        "    print(process.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "try: run_alone(case())\n"
        "except asyncio.CancelledError: sys.exit(130)\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as bench:  # noqa: S603 - of this file
        assert bench.stdout is not None
        child = int(bench.stdout.readline())
        bench.send_signal(number)
        assert bench.wait(timeout=30) == 130
    assert not psutil.pid_exists(child)


def test_processes_are_named_by_what_they_run():
    """The module or the script, not the interpreter."""
    assert name_of(["/x/bin/python3", "-u", "-m", "nvflare.server_train", "-m", "workspace"]) == "nvflare.server_train"
    assert name_of(["/x/bin/python", "/x/bin/flower-superlink", "--insecure"]) == "flower-superlink"
    assert name_of(["bash", "/x/startup/sub_start.sh"]) == "sub_start.sh"
    assert name_of(["sleep", "5"]) == "sleep"
    assert name_of([]) == "?"


# --- a case ----------------------------------------------------------------------------------------------------------


@dataclass
class Clockwork:
    """A system whose rounds end each time that somebody looks, until it is killed."""

    port: int
    lasts: int
    survives: bool = True
    saves: bool = False
    name: str = "clockwork"
    mode: str = "in memory"
    least_agents: int = 1
    coordinator: ProcessTree = field(default_factory=ProcessTree)
    count: ByteCount = field(default_factory=ByteCount)
    ends: list[RoundEnd] = field(default_factory=list)
    server: asyncio.Server | None = None
    log: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def running(self, folder: Path, case: Case) -> AsyncIterator["Clockwork"]:
        """Run."""
        self.log.append(f"{folder.name} {case.agents}")
        await self.restart()
        try:
            yield self
        finally:
            await self.crash()

    def rounds(self) -> Sequence[RoundEnd]:
        """End the next round, a hundredth of a second after the last."""
        if self.server is not None and len(self.ends) < self.lasts and (self.survives or "crash" not in self.log):
            number = len(self.ends) + 1
            self.count.up += 100 * number
            self.ends.append(RoundEnd(number, number / 100, "digest" if number == self.lasts else None))
        return list(self.ends)

    async def kept(self) -> int | None:
        """Return the last round, of a system that saves them."""
        return len(self.ends) if self.saves else None

    async def crash(self) -> None:
        """Close the port."""
        self.log.append("crash")
        assert self.server is not None
        self.server.close()
        self.server = None

    async def restart(self) -> None:
        """Open the port."""
        self.server = await asyncio.start_server(lambda _, writer: writer.close(), LOOPBACK, self.port)


async def test_the_first_round_is_dropped(tmp_path: Path) -> None:
    """Of the seconds and of the bytes, both of which are of the rounds that followed."""
    system = Clockwork(free_ports(1)[0], lasts=4)
    measured = await measure(system, Case(2, 4, rounds=4), 60, tmp_path)
    assert measured.seconds == pytest.approx([0.01, 0.01, 0.01])
    assert measured.bytes_per_round == (200 + 300 + 400) / 3
    assert (measured.ended, measured.digest, os.environ[FOLDER]) == ("", "digest", str(tmp_path))


async def test_a_slow_system_is_stopped(tmp_path: Path) -> None:
    """And it is told how many rounds it has made."""
    system = Clockwork(free_ports(1)[0], lasts=2)
    measured = await measure(system, Case(2, 4, rounds=9), 0.2, tmp_path)
    assert (len(measured.seconds), measured.asked, measured.ended) == (1, 9, "stopped after 0 s")


@pytest.mark.parametrize(("survives", "saves"), [(True, True), (False, False), (False, True)])
async def test_a_kill_is_followed_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, survives: bool, saves: bool
) -> None:
    """What was restarted goes on or does not, which is told from whether it serves, and from what it has kept."""
    monkeypatch.setattr("bench.peers.crashing.PATIENCE_SECONDS", -100.0)
    monkeypatch.setattr("bench.peers.measuring.LOOK_SECONDS", 0.001)
    system = Clockwork(free_ports(1)[0], lasts=6, survives=survives, saves=saves)
    crashed = await crash(system, Case(2, 4, rounds=6), 1, 60, tmp_path)
    assert crashed.serves_after is not None
    assert system.log[:2] == [f"{tmp_path.name} 2", "crash"]
    if survives:
        assert (crashed.rounds_lost, crashed.digest) == (0, "digest")
    else:
        before = crashed.rounds_before
        assert (crashed.goes_on_after, crashed.digest) == (None, None)
        assert (crashed.kept, crashed.rounds_lost) == ((before, 0) if saves else (None, before))


async def test_a_kill_needs_rounds_that_have_ended(tmp_path: Path) -> None:
    """A system that is too slow for it is told of as such, and not as one that has lost its rounds."""
    system = Clockwork(free_ports(1)[0], lasts=1)
    with pytest.raises(TimeoutError, match="rounds have not ended after 0 s"):
        await crash(system, Case(2, 4, rounds=6), 1, 0.1, tmp_path)


def test_logs_are_all_that_stays_of_a_case(tmp_path: Path) -> None:
    """Its adapters go, or the folder of a long comparison would grow by gigabytes."""
    for name in ("logs/agent-1.log", "agent-1/adapters/blob", "rounds.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    keep_logs(tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["logs", "logs/agent-1.log"]


# --- tables ----------------------------------------------------------------------------------------------------------


def measured(system: str, agents: int, megabytes: float, seconds: list[float], size: int = 1_000_000) -> Measured:
    """Return what a case gave."""
    return Measured(
        system=system,
        agents=agents,
        adapter_bytes=size,
        asked=4,
        seconds=seconds,
        bytes_per_round=2 * agents * size * 1.5,
        memory=[Peak("a", megabytes - 50), Peak("b", 50)],
        trainings=[second / 2 for second in seconds],
        ended="" if len(seconds) == 3 else "stopped after 9 s",
        digest=None,
    )


def cells(lines: Sequence[str]) -> list[list[str]]:
    """Return a table's cells, without its head."""
    assert len({len(line) for line in lines}) == 1  # in columns, for whoever reads it as it is
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_tables_say_what_was_measured() -> None:
    """Rounds and how many of those asked for, bytes against the least there can be, and memory's slopes."""
    found = [
        measured("ours", 2, 100, [1.0, 2.0, 3.0]),
        measured("ours", 4, 110, []),
        measured("ours", 2, 130, [4.0], size=4_000_000),
    ]
    first, second, _ = cells(list(report.rounds(found)))
    assert first == ["ours", "2", "1.0", "3 of 3", "2.00", "2.90", "1.0", "1.500", "100", "all rounds"]
    assert second[3:7] == ["0 of 3", "-", "-", "-"]
    assert second[-1] == "stopped after 9 s"
    assert cells(list(report.memory(found))) == [["ours", "+5.0", "+10.0"]]
    trained, stopped, _ = cells(list(report.training(found)))
    assert trained == ["ours", "3", "2.00", "1.00", "+1.00", "+0.50", "+1.50", "+100"]
    assert stopped == ["ours", "0", *6 * ["-"]]
    rates = [Aggregated("ours: from the disk", 1_000_000, 64, [1200.0, 1000.0, 1100.0])]
    assert cells(list(report.aggregation(rates))) == [["ours: from the disk", "1.0", "64", "1,100", "1,000", "1,200"]]


def test_a_table_tells_what_became_of_a_killed_run() -> None:
    """Whether it went on, what was kept, and whether the final adapter is the same, another, or there is none."""

    def after(system: str, digest: str | None, goes_on: float | None) -> Crashed:
        kept, lost_rounds = (3, 0) if goes_on else (None, 3)
        return Crashed(system, 1, 6, 3, 0.5, 2.0, goes_on, kept, lost_rounds, digest)

    rows = cells(
        list(
            report.crashes(
                [after("ours", "x", 4.0), after("theirs", None, None), after("third", "y", 9.0)],
                {"ours": "x", "third": "z"},
            )
        )
    )
    assert rows[0] == ["ours", "1", "4 of 6, at 50%", "2.0", "4.0", "round 3", "0 of 3", "the same"]
    assert rows[1][-4:] == ["never", "none", "3 of 3", "none"]
    assert rows[2][-1] == "ANOTHER"


def test_a_case_that_does_not_start_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a time that is bounded."""
    monkeypatch.setattr(measuring, "START_SECONDS", 0.01)

    class Stuck(Clockwork):
        async def restart(self) -> None:
            await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        asyncio.run(measure(Stuck(1, 1), Case(2, 4, rounds=2), 60, tmp_path))
