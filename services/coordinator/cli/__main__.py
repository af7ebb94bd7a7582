"""``fedcollm``, also as ``python -m services.coordinator.cli``."""

from shared.interrupts import importing


def main() -> None:
    """Run the command line."""
    with importing():
        from services.coordinator.cli.app import app
        from shared.cli.console import start
    start(app, "fedcollm")


if __name__ == "__main__":
    main()
