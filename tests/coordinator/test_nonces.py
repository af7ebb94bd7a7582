import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.coordinator.nonces import Nonces
from shared.errors import ConfigurationError, RequestReplayed

NONCE = "0123456789abcdef"


@pytest.fixture
def nonces(tmp_path: Path) -> Iterator[Nonces]:
    """A file that remembers nothing yet."""
    opened = Nonces(tmp_path / "nonces.db")
    yield opened
    opened.close()


def test_a_nonce_is_good_once_and_each_signer_has_their_own(nonces: Nonces):
    """Two agents may draw the same one, and neither can use up the other's."""
    nonces.remember("ada", NONCE, until=100.0)
    nonces.remember("bob", NONCE, until=100.0)
    nonces.remember("ada", NONCE[::-1], until=100.0)
    with pytest.raises(RequestReplayed, match=r"request of ada has come before.*signed anew"):
        nonces.remember("ada", NONCE, until=200.0)


def test_what_no_longer_holds_is_forgotten_and_nothing_else(nonces: Nonces):
    """Up to its last second a nonce is known."""
    nonces.remember("ada", NONCE, until=100.0)
    nonces.remember("bob", NONCE, until=101.0)
    nonces.forget(100.5)
    nonces.remember("ada", NONCE, until=200.0)
    with pytest.raises(RequestReplayed):
        nonces.remember("bob", NONCE, until=200.0)


WRITER = """
import sys, time
from pathlib import Path
from services.coordinator.nonces import Nonces
Nonces(Path(sys.argv[1])).remember("ada", sys.argv[2], until=1e12)
print("kept", flush=True)
time.sleep(60)
"""


def test_a_coordinator_that_was_killed_still_knows(tmp_path: Path):
    """Kill -9 right after a request, and the request cannot come again."""
    file = tmp_path / "nonces.db"
    with subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-c", WRITER, str(file), NONCE],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env=dict(os.environ),
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"kept\n"
        writer.send_signal(signal.SIGKILL)
    nonces = Nonces(file)
    with pytest.raises(RequestReplayed):
        nonces.remember("ada", NONCE, until=1e12)
    nonces.close()


def test_a_file_that_is_something_else_is_named(tmp_path: Path):
    """The operator reads what it is for, and that it may go."""
    (tmp_path / "nonces.db").write_text("no database, and longer than the header of one " * 10)
    with pytest.raises(ConfigurationError, match=r"nonces\.db cannot be used.*delete it"):
        Nonces(tmp_path / "nonces.db")


def test_remembering_takes_microseconds(nonces: Nonces):
    """It is done in the event loop: a thousand take less than a tenth of a second of this processor, and none waits."""
    began = time.process_time()
    for number in range(1000):
        nonces.remember("ada", f"{number:016}", until=100.0)
    assert time.process_time() - began < 0.1
