"""The demo's numbers beside its terms, which are the preset `demo`; README and docs quote what they give."""

from pathlib import Path

from services.coordinator.presets import preset_terms
from shared.protocol.terms import RunTerms

MODELS = Path(__file__).parent / "models"
AGENTS = ("agent-1", "agent-2", "agent-3", "agent-4")

ITEMS_AN_AGENT = 40
EVALUATION_ITEMS = 80
AUXILIARY_ITEMS = 60
VALIDATION_ITEMS = 240


def demo_terms(seed: int) -> RunTerms:
    """Return the terms of a demo run; the models are found wherever it is started."""
    return preset_terms("demo", seed=seed, llm=str(MODELS / "llm"), slm=str(MODELS / "slm"))
