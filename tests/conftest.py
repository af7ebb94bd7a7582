"""What all tests share: one event loop, no sleeping between retries, and silence."""

import signal
from collections.abc import Iterator

import pytest
import stamina
import structlog
from hypothesis import settings

from bench.federation import ManualClock

settings.register_profile("fedcollm", deadline=None)  # a busy machine makes no property false
settings.load_profile("fedcollm")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the flag that writes ``tests/protocol/wire`` anew."""
    parser.addoption(
        "--update-golden", action="store_true", help="write tests/protocol/wire from what the code says now"
    )


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written rather than compared."""
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Name the event loop of async tests."""
    return "asyncio"


@pytest.fixture(autouse=True, scope="session")
def _silence() -> Iterator[None]:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory(), processors=[lambda _log, _name, event: event])
    yield
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def _ctrl_c() -> Iterator[None]:
    """Let Ctrl-C be what it is at a terminal, for tests and what they start: in the background it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def _no_waiting_between_retries() -> Iterator[None]:
    with stamina.set_testing(True, attempts=3):
        yield


@pytest.fixture
def clock() -> ManualClock:
    """Time that stands still until a test moves it."""
    return ManualClock()
