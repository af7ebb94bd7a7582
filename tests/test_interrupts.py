"""Ctrl-C in a program's first seconds."""

import signal
import subprocess
import sys
import time

import pytest

from shared.interrupts import importing

# A module whose import takes a while, and takes every error for a failed one, as some libraries do.
SLOW = """
import signal, sys, time
from shared.interrupts import importing
print("begun", flush=True)
with importing():
    try:
        time.sleep(60)
    except BaseException:
        pass
"""
PROGRAMS = (
    ("services.coordinator",),
    ("services.coordinator.worker",),
    ("services.client_agent",),
    ("services.coordinator.cli", "runs", "list"),
    ("services.client_agent.cli", "run"),
)


def test_what_is_imported_cannot_keep_ctrl_c_to_itself():
    """The process ends at once, as one that does not handle it, and says nothing."""
    with subprocess.Popen([sys.executable, "-c", SLOW], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:  # noqa: S603
        assert program.stdout is not None
        program.stdout.readline()
        while program.poll() is None:  # the first may come before the block has begun
            program.send_signal(signal.SIGINT)
            time.sleep(0.05)
        assert program.returncode == -signal.SIGINT


def test_afterwards_ctrl_c_is_what_it_was():
    """A program's own way to end comes with it."""
    with importing():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_program_in_the_background_stays_deaf():
    """A shell has it ignore Ctrl-C, which is meant for what runs in front."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with importing():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS, ids=" ".join)
def test_ctrl_c_in_the_first_seconds_ends_a_program_without_a_traceback(program: tuple[str, ...]):
    """At any moment from when Python itself is up; 0.1 seconds are enough for that."""
    for tenths in range(1, 30, 2):
        with subprocess.Popen(  # noqa: S603 - our own programs
            [sys.executable, "-m", *program], stderr=subprocess.PIPE, stdout=subprocess.PIPE
        ) as started:
            time.sleep(tenths / 10)
            started.send_signal(signal.SIGINT)
            _, told = started.communicate(timeout=20)
        assert b"Traceback" not in told, (tenths, told.decode())


SWALLOWING = """
import time
from shared.cli.console import Output
with Output(as_json=True).ending_at_once():
    print("begun", flush=True)
    try:
        time.sleep(60)
    except BaseException:
        pass
print("went on")
"""


def test_a_command_that_only_looks_ends_at_once():
    """Whatever the libraries that it calls do with Ctrl-C, with the exit code and the document of an interruption."""
    command = [sys.executable, "-c", SWALLOWING]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:  # noqa: S603
        assert program.stdout is not None
        program.stdout.readline()
        program.send_signal(signal.SIGINT)
        output, told = program.communicate(timeout=20)
    assert (program.returncode, output) == (130, b"")
    assert told.startswith(b'{"code": "interrupted"')
