"""The demo's numbers, and its terms: the preset `demo` with an evaluation on the agents. README and docs quote them."""

from pathlib import Path

from services.coordinator.presets import preset_terms
from shared.protocol.terms import RunTerms

MODELS = Path(__file__).parent / "models"
AGENTS = ("agent-1", "agent-2", "agent-3", "agent-4")

ITEMS_AN_AGENT = 40
EVALUATION_ITEMS = 80
EVALUATED_ITEMS = 40
AUXILIARY_ITEMS = 60
VALIDATION_ITEMS = 240


def demo_terms(seed: int) -> RunTerms:
    """Return the terms of a demo run, whose agents evaluate; the models are found wherever it is started."""
    return preset_terms(
        "demo",
        seed=seed,
        llm=str(MODELS / "llm"),
        slm=str(MODELS / "slm"),
        evaluation_examples=EVALUATED_ITEMS,
    )
