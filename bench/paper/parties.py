"""Who has which examples: four clients, the coordinator's auxiliary set, and what is measured on.

As in FedMKT's appendix D.2 (arXiv 2406.02224) and the tutorial of its code, a train file is split at random into five
equal parts with seed 123; FedCoLLM's own text (arXiv 2411.11707v1) does not say.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from bench.data_settings import read_data_settings
from bench.paper.config import DataFiles, DemoData
from examples.demo.dialects import AGENTS
from examples.demo.dialects import AUXILIARY as STATION
from examples.demo.task import items, unseen_items
from shared.data.source import Columns, DataSource
from shared.errors import DataEmpty, DataUnreadable

CLIENTS = ("client-1", "client-2", "client-3", "client-4")
AUXILIARY = "auxiliary"
EVERYBODY = "everybody"
VALIDATION = "validation"
TEST = "test"


@dataclass(frozen=True)
class Parties:
    """A folder with one file for each party, and what the files' columns are called."""

    folder: Path
    columns: Columns
    examples: dict[str, int]

    def source(self, party: str) -> DataSource:
        """Return a party's examples, as settings name them."""
        return DataSource(path=self.folder / f"{party}.jsonl", columns=self.columns)

    @property
    def measured_on(self) -> str:
        """The test set, or the validation set where there is none: settings are chosen without it."""
        return TEST if TEST in self.examples else VALIDATION


def write_parties(data: DataFiles | DemoData, root: Path, into: Path) -> Parties:
    """Write everybody's examples to files in ``into``; ``root`` is where the data set lies.

    Raises:
        DataUnreadable: a file of the data set cannot be read.
        DataEmpty: there are too few rows for what the experiment says.
    """
    if isinstance(data, DemoData):
        rows, columns = _demo_rows(data), Columns()
    else:
        rows, columns = _split_rows(data, root), read_data_settings(data.settings)[0]
    rows[EVERYBODY] = [row for party in (*CLIENTS, AUXILIARY) for row in rows[party]]
    into.mkdir(parents=True, exist_ok=True)
    for party, part in rows.items():
        (into / f"{party}.jsonl").write_text("".join(f"{row}\n" for row in part), encoding="utf-8", newline="\n")
    return Parties(into, columns, {party: len(part) for party, part in rows.items()})


def _split_rows(data: DataFiles, root: Path) -> dict[str, Sequence[str]]:
    train = shuffled(_lines(root / data.train), data.split_seed)
    if data.validation is None:
        if data.validation_examples is None:
            raise DataEmpty("data.validation or data.validation_examples is needed: rows to choose settings on")
        validation: Sequence[str] = train[: data.validation_examples]
        train = train[data.validation_examples :]
    else:
        validation = _first(_lines(root / data.validation), data.validation_examples, data.split_seed)
    share = data.examples_a_party or len(train) // (len(CLIENTS) + 1)
    if share * (len(CLIENTS) + 1) > len(train) or share == 0:
        raise DataEmpty(
            f"{data.train} has {len(train)} rows to split, and {len(CLIENTS) + 1} parties with {share} each need "
            f"{share * (len(CLIENTS) + 1)}: set data.examples_a_party"
        )
    rows: dict[str, Sequence[str]] = {
        party: train[number * share : (number + 1) * share] for number, party in enumerate((*CLIENTS, AUXILIARY))
    } | {VALIDATION: validation}
    if data.test is not None:
        rows[TEST] = _first(_lines(root / data.test), data.test_examples, data.split_seed)
    return rows


def _first(rows: Sequence[str], count: int | None, seed: int) -> Sequence[str]:
    """Return ``count`` rows drawn at random, in an order of their own, or all in the file's."""
    return rows if count is None else shuffled(rows, seed)[:count]


def shuffled(rows: Iterable[str], seed: int) -> list[str]:
    """Return the rows in an order that depends on the seed alone, the same in every version of Python."""
    generator = random.Random(seed)  # noqa: S311 - a split is no secret
    return [row for _, row in sorted((generator.random(), row) for row in rows)]


def _lines(file: Path) -> list[str]:
    try:
        return [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise DataUnreadable(f"{file} cannot be read: {error}; --data is where the data sets lie") from None


def _demo_rows(data: DemoData) -> dict[str, Sequence[str]]:
    seed = data.demo_seed
    wanted = {client: (AGENTS[number], data.examples_a_party) for number, client in enumerate(CLIENTS)}
    wanted[AUXILIARY] = (STATION, data.auxiliary_examples)
    rows: dict[str, Sequence[str]] = {
        party: [item.line() for item in islice(items(owner, owner, seed), count)]
        for party, (owner, count) in wanted.items()
    }
    unseen = [item.line() for item in unseen_items(seed, data.validation_examples + (data.test_examples or 0))]
    rows[VALIDATION] = unseen[: data.validation_examples]
    return rows if data.test_examples is None else rows | {TEST: unseen[data.validation_examples :]}
