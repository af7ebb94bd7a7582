"""The settings that docs/models.md shows are settings, and its tables are what the code says."""

import re
from pathlib import Path

import pytest

from services.coordinator.presets import PRESETS, preset_terms, read_terms
from services.coordinator.worker.settings import Settings as WorkerSettings
from shared.configuration import read_settings
from shared.ml.models import lora_targets

TEXT = (Path(__file__).parents[1] / "docs" / "models.md").read_text()
BLOCKS = re.findall(r"```toml\n# (\S+)\n(.*?)```", TEXT, re.DOTALL)
REQUIRED = """
coordinator_url = "http://here:8441"
token_file = "token"
cache_dir = "cache"
auxiliary.path = "auxiliary.jsonl"
validation.path = "validation.jsonl"
"""


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the table whose header begins so."""
    table = TEXT.split(f"| {heading}")[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table]


@pytest.mark.parametrize(("name", "text"), BLOCKS)
def test_what_the_page_shows_can_be_written(name: str, text: str, tmp_path: Path):
    """Each block is a file, or the part of one that it speaks of."""
    file = tmp_path / name
    file.write_text(text if name == "run.toml" else REQUIRED + text)
    if name == "run.toml":
        assert read_terms(file)
    else:
        assert read_settings(WorkerSettings, file)


def test_every_block_of_the_page_is_looked_at():
    """A block without its file's name would not be."""
    assert len(BLOCKS) == TEXT.count("```toml") == 5


def test_the_table_of_presets_is_the_presets():
    """Names, models, numbers and gate, in the code's order."""
    table = rows("preset")
    assert [row[0].strip("`") for row in table] == list(PRESETS)
    for name, llm, slm, lora, rate, rounds, gate in table:
        terms = preset_terms(name.strip("`"))
        if name != "`demo`":
            assert (terms.llm, terms.slm) == (llm, slm)
        assert f"{terms.slm_lora.rank}, {terms.slm_lora.alpha}, {terms.slm_lora.dropout}" == lora
        assert terms.slm_lora == terms.llm_lora
        assert float(rate.partition(",")[0]) == terms.training.optimiser.learning_rate
        assert float(rate.rpartition(" then ")[2]) == terms.cotuning.llm_optimiser.learning_rate
        assert (str(terms.rounds), gate == "on") == (rounds, terms.gate.enabled)


def test_the_table_of_targets_is_the_codes():
    """By family."""
    for families, targets in rows("families"):
        for family in re.findall(r"`(\w+)`", families):
            assert lora_targets(family) == tuple(re.findall(r"`(\w+)`", targets))
