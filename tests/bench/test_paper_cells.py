"""Cells of an experiment, run with models as small as they can be."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.data_settings import EXAMPLES
from bench.federation import ManualClock, known_tokens, settings_of
from bench.paper.cache import CODE, Cache, code_digest
from bench.paper.cells import Outcome, Place, run_cell, steps_of
from bench.paper.config import Experiment
from bench.paper.methods import Cell, cells_of
from bench.paper.parties import AUXILIARY, CLIENTS, write_parties
from bench.paper.report import write_report
from services.coordinator.context import open_context
from services.coordinator.worker.model_pair import ModelPair
from tests.support.tiny_models import tiny_directory

TERMS = {
    "rounds": 2,
    "llm_lora": {"rank": 2},
    "slm_lora": {"rank": 2},
    "training": {"max_tokens": 64, "optimiser": {"learning_rate": 5e-3}},
}
EXPERIMENT = Experiment.model_validate(
    {
        "title": "A tiny pair",
        "llm": "llm",
        "slm": "slm",
        "seeds": [1],
        "preset": "paper-gpt2",
        "terms": TERMS,
        "data": {
            "settings": EXAMPLES / "commonsenseqa.toml",
            "train": "train.jsonl",
            "validation_examples": 4,
            "test": "test.jsonl",
        },
    }
)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Where two tiny models and a data set lie; on one thread."""
    folder, threads = tmp_path_factory.mktemp("paper"), torch.get_num_threads()
    torch.set_num_threads(1)
    colours = ["red", "tan", "blue"]
    for name, numbers in (("train", range(44)), ("test", range(50, 59))):
        choices = [{"text": colour, "label": label} for colour, label in zip(colours, "ABC", strict=True)]
        rows = [{"question": {"stem": f"{one} is", "choices": choices}, "answerKey": "ABC"[one % 3]} for one in numbers]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    yield Place(
        llm=tiny_directory(folder / "llm", seed=1),
        slm=tiny_directory(folder / "slm", seed=2),
        parties=write_parties(EXPERIMENT.data, folder, folder / "parties"),
        folder=folder / "runs",
        digest_cache=folder / "digests.json",
    )
    torch.set_num_threads(threads)


def cell(method: str) -> Cell:
    return next(one for one in cells_of(EXPERIMENT) if one.method == method)


def run(here: Place, method: str, folder: Path) -> Outcome:
    return asyncio.run(run_cell(EXPERIMENT, cell(method), replace(here, folder=folder), lambda _: None))


@pytest.fixture(scope="module")
def outcomes(here: Place) -> dict[str, Outcome]:
    """What came of three methods."""
    return {method: run(here, method, here.folder / method) for method in ("zero-shot", "fedcollm", "lambda-0")}


def test_a_method_is_measured_after_aggregation_and_after_co_tuning(outcomes: dict[str, Outcome]):
    """Item by item on the test set, and every round on the validation set; bytes and steps are those that were."""
    found = outcomes["fedcollm"]
    assert set(found.measured) == {"slm_aggregated", "slm", "llm"}
    assert all(len(one.correct) == 9 for one in found.measured.values())
    assert found.measured["slm"].accuracy == pytest.approx(found.measured["slm"].correct.count("1") / 9)
    assert [scores.slm.examples for scores in found.curve] == [4, 4]
    assert found.steps == dict.fromkeys(CLIENTS, 2 * 2)
    assert found.adapter is not None
    for sent in found.traffic.values():
        assert sent.sent_bytes > 2 * found.adapter.bytes
        assert sent.fetched_bytes >= 2 * found.adapter.bytes


def test_a_run_that_was_stopped_goes_on(here: Place, outcomes: dict[str, Outcome], tmp_path: Path):
    """It ends as one that was not, with each training counted once, and each byte that was sent."""
    trained = 0

    def stop_in_the_second_round(what: str) -> None:
        nonlocal trained
        trained += "trains" in what
        if trained == 6:
            raise KeyboardInterrupt

    place = replace(here, folder=tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(run_cell(EXPERIMENT, cell("fedcollm"), place, stop_in_the_second_round))
    again = run(here, "fedcollm", place.folder)
    assert again.measured == outcomes["fedcollm"].measured
    assert again.steps == outcomes["fedcollm"].steps
    for name, sent in again.traffic.items():
        whole = outcomes["fedcollm"].traffic[name]
        assert sent.fetched_bytes == whole.fetched_bytes
        assert whole.sent_bytes <= sent.sent_bytes < 1.5 * whole.sent_bytes


def test_a_run_whose_worker_was_killed_goes_on(
    here: Place, outcomes: dict[str, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The lease of one that was heard of while it co-tuned runs out, though the run is in memory."""

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    folder = tmp_path / "killed"
    with monkeypatch.context() as dying, pytest.raises(KeyboardInterrupt):
        dying.setattr(ModelPair, "cotune", die)
        run(here, "fedcollm", folder)
    with open_context(settings_of(folder / "coordinator"), known_tokens(), ManualClock()) as context:
        context.work.heartbeat("paper-1-cotune", 1)
    assert run(here, "fedcollm", folder).measured == outcomes["fedcollm"].measured


def test_a_run_that_has_failed_is_begun_anew(here: Place, outcomes: dict[str, Outcome], tmp_path: Path):
    """In the same folder, once its cause is gone."""
    file = here.parties.source(AUXILIARY).path
    kept = file.read_text()
    file.write_text("no example\n")
    try:
        with pytest.raises(RuntimeError, match="the run is failed"):
            run(here, "fedcollm", tmp_path / "failed")
    finally:
        file.write_text(kept)
    assert run(here, "fedcollm", tmp_path / "failed").measured == outcomes["fedcollm"].measured


def test_a_training_that_was_done_twice_counts_once(tmp_path: Path):
    """And one for another round counts, though it began with the same adapter: the round before was refused."""
    notes = tmp_path / "steps.jsonl"
    notes.write_text("".join(json.dumps(line) + "\n" for line in [["a", 1, 5], ["a", 1, 5], ["a", 2, 5], ["b", 1, 4]]))
    assert steps_of(notes) == {"a": 10, "b": 4}


def test_the_llm_is_what_a_centralized_run_trains(here: Place, tmp_path: Path):
    """It has no SLM to show."""
    found = run(here, "centralized", tmp_path)
    assert set(found.measured) == {"llm"}
    assert found.steps == {"everybody": 2 * 10}
    assert found.rounds == 1


@pytest.fixture
def keyed(here: Place, tmp_path: Path) -> Any:  # noqa: ANN401 - a function with defaults
    """The digest of a cell, with something changed."""

    def key(
        experiment: Experiment = EXPERIMENT,
        method: str = "fedcollm",
        place: Place = here,
        **changes: Any,  # noqa: ANN401 - fields differ in type
    ) -> str:
        return Cache(tmp_path).key(experiment, replace(cell(method), **changes), place)

    return key


def test_a_cell_is_known_by_all_that_decides_its_result(here: Place, tmp_path: Path, keyed: Any):  # noqa: ANN401
    """Terms, seed, agents, examples, models and precision; what it is called and where it lies make no difference."""
    other = tmp_path / "other"
    columns = here.parties.columns
    moved = replace(here.parties, folder=here.parties.folder.rename(tmp_path / "moved"))
    assert keyed(place=replace(here, parties=moved)) == keyed(
        EXPERIMENT.model_copy(update={"title": "B"}), place=replace(here, parties=moved)
    )
    moved.folder.rename(here.parties.folder)
    example = here.parties.source("client-2").path
    kept = example.read_text()
    example.write_text(kept.replace("red", "rot", 1))
    with_another_example = keyed()
    example.write_text(kept)
    keys = {
        keyed(),
        with_another_example,
        keyed(seed=2),
        keyed(agents=CLIENTS[:3]),
        keyed(method="lambda-0"),
        keyed(EXPERIMENT.model_copy(update={"dtype": "bfloat16"})),
        keyed(EXPERIMENT.model_copy(update={"terms": TERMS | {"rounds": 3}})),
        keyed(place=replace(here, slm=tiny_directory(other, seed=9))),
        keyed(place=replace(here, parties=replace(here.parties, columns=columns.model_copy(update={"answer": "b"})))),
    }
    assert len(keys) == 9


def test_a_report_has_every_method_that_was_run(here: Place, outcomes: dict[str, Outcome], tmp_path: Path):
    """In Markdown, in HTML that needs no network, and in JSON with every answer."""
    few = EXPERIMENT.model_copy(update={"methods": ("lambda-0", "fedcollm")})
    text = write_report(few, list(outcomes.values()), here.parties, "typed by a test", tmp_path / "report")
    for line in (
        "typed by a test",
        "| Zero-shot |",
        "| FedCoLLM |",
        "| FedCoLLM, lambda = 0 |",
        "| D_a alone |",
        "private round |",
    ):
        assert line in text
    content = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [len(one["measured"]["slm"]["correct"]) for one in content["outcomes"]] == [9, 9, 9]
    page = (tmp_path / "report" / "report.html").read_text()
    assert "<table>" in page
    assert 'src="http' not in page


def test_words_about_the_code_do_not_make_it_other_code(tmp_path: Path):
    """A comment or a docstring that is put right leaves what has been run valid; a number does not."""
    folder = tmp_path / CODE[0]
    folder.mkdir(parents=True)
    for name in CODE[2:]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    digests = []
    for text in ('"""A."""\nX = 1\n', 'X = 1  # so\n"""B."""\n', "X = 2\n"):
        (folder / "some.py").write_text(text)
        digests.append(code_digest(tmp_path))
    assert digests[0] == digests[1] != digests[2]
