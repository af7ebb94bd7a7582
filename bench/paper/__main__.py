"""Settle the paper's claim for a pair and a data set: ``python -m bench.paper EXPERIMENT.toml --out DIR``.

Every method is a run of the product's own engine and agents in a federation in memory, over the same split and seeds.
What has been run is kept, and a run that was stopped goes on: the same command again makes the report.
"""

import argparse
import hashlib
import signal
import sys
from pathlib import Path

from bench.command_line import record, whole
from bench.paper.cache import Cache
from bench.paper.config import read_experiment
from bench.paper.methods import cells_of
from bench.paper.parties import write_parties
from bench.paper.report import write_report
from bench.paper.running import keyed_cell, run_cells
from examples.demo.preset import MODELS
from shared.errors import FedCoLLMError


def main() -> None:
    """Run what has not been run, and write the report."""
    parser = argparse.ArgumentParser(prog="python -m bench.paper", description=__doc__)
    parser.add_argument("experiment", type=Path, help="a TOML file, such as those in bench/experiments")
    parser.add_argument("--data", type=Path, default=Path(), help="the folder that the files of the data set begin at")
    parser.add_argument("--models", type=Path, default=MODELS, help="the folder of both models (default: the demo's)")
    parser.add_argument("--out", type=Path, required=True, help="the folder for the report")
    parser.add_argument(
        "--cache", type=Path, default=Path("runs/paper"), help="what has been run (default: %(default)s)"
    )
    parser.add_argument("--jobs", type=whole(1), default=1, help="runs at a time; the cores are shared among them")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends what it began, as Ctrl-C does
    try:
        experiment = read_experiment(arguments.experiment)
        cache = Cache(arguments.cache.resolve())
        split = hashlib.sha256(f"{arguments.data.resolve()} {experiment.data.model_dump_json()}".encode()).hexdigest()
        parties = write_parties(experiment.data, arguments.data, cache.folder / "data" / split[:12])
        llm, slm = ((arguments.models / name).resolve() for name in (experiment.llm, experiment.slm))
        keyed = [keyed_cell(experiment, cell, cache, parties, llm=llm, slm=slm) for cell in cells_of(experiment)]
        outcomes = run_cells(experiment, keyed, cache, jobs=arguments.jobs)
    except KeyboardInterrupt:
        sys.exit(f"{parser.prog}: stopped; the same command goes on")
    except (FedCoLLMError, RuntimeError) as error:
        sys.exit(f"{parser.prog}: {error}")
    print(write_report(experiment, outcomes, parties, " ".join(record(parser, arguments)), arguments.out))


if __name__ == "__main__":
    main()
