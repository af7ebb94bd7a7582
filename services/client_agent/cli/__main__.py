"""``fedcollm-agent``, also as ``python -m services.client_agent.cli``."""

from shared.interrupts import importing


def main() -> None:
    """Run the command line."""
    with importing():
        from services.client_agent.cli.app import app
        from shared.cli.console import start
    start(app, "fedcollm-agent")


if __name__ == "__main__":
    main()
