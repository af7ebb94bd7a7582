"""A service that is told to stop, in its own time and without any."""

import signal
import subprocess
import sys
import time

import pytest

# Hears of a signal once; then its main thread waits for a thread that does not end.
PROGRAM = """
import sys, threading
from shared.stopping import stoppable
told = threading.Event()
with stoppable(lambda: print("told", flush=True) or told.set(), seconds=float(sys.argv[1])):
    print("begun", flush=True)
    told.wait()
    if sys.argv[2] == "stuck":
        thread = threading.Thread(target=threading.Event().wait)
        thread.start()
        thread.join()
"""


def program(seconds: float, how: str) -> subprocess.Popen[str]:
    """Start the program, and return it when it has begun."""
    command = [sys.executable, "-c", PROGRAM, str(seconds), how]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # noqa: S603
    assert started.stdout is not None
    assert started.stdout.readline() == "begun\n"
    return started


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_once_a_service_ends_as_it_likes(number: signal.Signals):
    """Exit code 0, whoever told it: a service manager or somebody at the terminal."""
    with program(60, "well") as started:
        started.send_signal(number)
        assert started.communicate(timeout=20) == ("told\n", "")
        assert started.returncode == 0


def test_a_service_that_takes_too_long_is_ended():
    """Exit code 0 as well, because nothing is lost by it; the log says so."""
    with program(0.3, "stuck") as started:
        started.send_signal(signal.SIGTERM)
        output, _ = started.communicate(timeout=20)
        assert started.returncode == 0
    assert output.startswith("told\n")
    assert "stop.cut_short" in output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_twice_a_service_ends_at_once(number: signal.Signals):
    """Whatever its threads are at."""
    with program(60, "stuck") as started:
        assert started.stdout is not None
        started.send_signal(number)
        assert started.stdout.readline() == "told\n"
        began = time.monotonic()
        started.send_signal(number)
        assert started.wait(timeout=20) == 128 + number
    assert time.monotonic() - began < 5
