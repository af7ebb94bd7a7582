from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.federation import ManualClock
from services.coordinator.context import Context
from tests.support.federations import coordinator


@pytest.fixture
def context(tmp_path: Path, clock: ManualClock) -> Iterator[Context]:
    """A coordinator on an empty folder."""
    with coordinator(tmp_path / "coordinator", clock) as opened:
        yield opened
