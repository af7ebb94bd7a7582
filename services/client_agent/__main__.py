"""Run an agent: ``python -m services.client_agent [--config FILE]``."""

import sys

from shared.interrupts import importing

if __name__ == "__main__":
    with importing():
        from services.client_agent.service import run
        from services.client_agent.settings import Settings
        from shared.configuration import config_argument
    sys.exit(run(config_argument("services.client_agent", Settings)))
