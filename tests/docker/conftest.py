"""The demo's volumes, filled as `docker compose up` fills them."""

from pathlib import Path

import pytest

from tests.support.containers import run_bootstrap


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The volumes, a folder each."""
    folder = tmp_path_factory.mktemp("volumes")
    run_bootstrap(folder)
    return folder
