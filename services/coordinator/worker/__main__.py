"""Run a co-tuning worker: ``python -m services.coordinator.worker [--config FILE]``."""

import sys

from shared.interrupts import importing

if __name__ == "__main__":
    with importing():
        from services.coordinator.worker.service import run
        from services.coordinator.worker.settings import Settings
        from shared.configuration import config_argument
    sys.exit(run(config_argument("services.coordinator.worker", Settings)))
