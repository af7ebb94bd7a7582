"""The record that figures are of a command."""

import argparse
from pathlib import Path

from bench.command_line import record


def test_a_command_is_recorded_as_it_was_meant():
    """With its defaults, and of a folder the last part alone: the rest is the machine's own."""
    parser = argparse.ArgumentParser(prog="python -m bench.some")
    parser.add_argument("experiment", type=Path)
    parser.add_argument("--data", type=Path, default=Path())
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args(["somewhere/demo.toml", "--out", "/over/there"])
    assert " ".join(record(parser, options)) == "python -m bench.some demo.toml --out there --seeds 1 2"
