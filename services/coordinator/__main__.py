"""Run a coordinator: ``python -m services.coordinator [--config FILE]``."""

import sys

from shared.interrupts import importing

if __name__ == "__main__":
    with importing():
        from services.coordinator.service import run
        from services.coordinator.settings import Settings
        from shared.configuration import config_argument
    sys.exit(run(config_argument("services.coordinator", Settings)))
