"""Fuzz one target with atheris: ``python -m tests.fuzz.fuzzing TARGET FOLDER SECONDS``, for as long as you like.

FOLDER holds what was found: inputs that reach new code, and ``crash-*`` if there is one.
"""

import importlib
import sys
from pathlib import Path

import atheris

LONGEST_INPUT, LONGEST_SECONDS, MOST_MEGABYTES = 4096, 5, 1024


def main(name: str, folder: Path, seconds: int) -> None:
    """Fuzz until the time is over, or something crashes; ends the process."""
    with atheris.instrument_imports(include=["shared", "http_message_signatures", "http_sf"]):
        fuzzed = importlib.import_module(f"tests.fuzz.{name}")
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(fuzzed.SEEDS):
        (folder / f"seed-{number:02}").write_bytes(seed)
    options = {
        "max_total_time": seconds,
        "max_len": LONGEST_INPUT,
        "timeout": LONGEST_SECONDS,
        "rss_limit_mb": MOST_MEGABYTES,
        "artifact_prefix": f"{folder}/",
        "print_final_stats": 1,
    }
    atheris.Setup([name, *(f"-{option}={value}" for option, value in options.items()), str(folder)], fuzzed.target)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
