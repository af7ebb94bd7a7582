"""The split of a data set among five parties, and what is measured on."""

import json
from pathlib import Path

import pytest

from bench.data_settings import EXAMPLES
from bench.paper.config import DataFiles, DemoData
from bench.paper.parties import AUXILIARY, CLIENTS, EVERYBODY, TEST, VALIDATION, Parties, write_parties
from shared.errors import DataEmpty, DataUnreadable


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a data set of 103 rows to train on, 20 to validate on and 30 to test on."""
    for name, count in (("train", 103), ("dev", 20), ("test", 30)):
        rows = [json.dumps({"question": f"{name} {number}"}) for number in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    return tmp_path


def rows_of(parties: Parties, party: str) -> list[str]:
    return parties.source(party).path.read_text().splitlines()


def test_five_parties_have_equal_parts_and_no_row_in_common(root: Path, tmp_path: Path):
    """Four clients and the auxiliary set have a fifth each; the rows that are over belong to nobody."""
    parties = write_parties(
        DataFiles(settings=EXAMPLES / "arc.toml", train="train.jsonl", validation="dev.jsonl"),
        root,
        tmp_path / "parties",
    )
    parts = [rows_of(parties, party) for party in (*CLIENTS, AUXILIARY)]
    assert [len(part) for part in parts] == [20] * 5
    assert len({row for part in parts for row in part}) == 100
    assert sorted(rows_of(parties, EVERYBODY)) == sorted(row for part in parts for row in part)


def test_a_split_is_its_seeds(root: Path, tmp_path: Path):
    """The same seed gives the same files, and another one others."""
    data = DataFiles(settings=EXAMPLES / "arc.toml", train="train.jsonl", validation="dev.jsonl")
    first, again = (write_parties(data, root, tmp_path / name) for name in "ab")
    other = write_parties(data.model_copy(update={"split_seed": 7}), root, tmp_path / "c")
    assert rows_of(first, CLIENTS[0]) == rows_of(again, CLIENTS[0])
    assert rows_of(first, CLIENTS[0]) != rows_of(other, CLIENTS[0])


def test_validation_rows_can_be_taken_from_the_train_file(root: Path, tmp_path: Path):
    """They are nobody's to train on."""
    parties = write_parties(
        DataFiles(settings=EXAMPLES / "arc.toml", train="train.jsonl", validation_examples=10),
        root,
        tmp_path / "parties",
    )
    assert len(rows_of(parties, VALIDATION)) == 10
    assert not set(rows_of(parties, VALIDATION)) & set(rows_of(parties, EVERYBODY))


def test_settings_are_chosen_without_the_test_set(root: Path, tmp_path: Path):
    """Where an experiment names no test file, what is measured on is the validation set."""
    data = DataFiles(settings=EXAMPLES / "arc.toml", train="train.jsonl", validation="dev.jsonl")
    assert write_parties(data, root, tmp_path / "a").measured_on == VALIDATION
    tested = data.model_copy(update={"test": "test.jsonl", "test_examples": 12})
    parties = write_parties(tested, root, tmp_path / "b")
    assert (parties.measured_on, parties.examples[TEST]) == (TEST, 12)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"examples_a_party": 21}, DataEmpty, "each need 105"),
        ({"validation": None}, DataEmpty, "validation_examples"),
        ({"train": "none.jsonl"}, DataUnreadable, "--data"),
    ],
)
def test_a_split_that_cannot_be_says_why(
    root: Path, tmp_path: Path, changes: dict[str, object], error: type[Exception], message: str
):
    """What to set is in the message."""
    data = DataFiles(settings=EXAMPLES / "arc.toml", train="train.jsonl", validation="dev.jsonl").model_copy(
        update=changes
    )
    with pytest.raises(error, match=message):
        write_parties(data, root, tmp_path / "parties")


def test_the_demos_examples_are_made(tmp_path: Path):
    """Without a file of a data set, and with a test set that has no row of the validation set."""
    data = DemoData(demo_seed=1, examples_a_party=3, auxiliary_examples=4, validation_examples=10, test_examples=15)
    parties = write_parties(data, tmp_path, tmp_path / "parties")
    assert parties.examples == {
        **dict.fromkeys(CLIENTS, 3),
        AUXILIARY: 4,
        EVERYBODY: 16,
        VALIDATION: 10,
        TEST: 15,
    }
    assert not set(rows_of(parties, TEST)) & set(rows_of(parties, VALIDATION))
