"""The demo's numbers, all in one place; README and docs quote what they give."""

from pathlib import Path

from shared.protocol.terms import (
    CohortTerms,
    CotuningTerms,
    GateTerms,
    LoraTerms,
    OptimiserTerms,
    RunTerms,
    TaskTerms,
    TrainingTerms,
)

MODELS = Path(__file__).parent / "models"
AGENTS = ("agent-1", "agent-2", "agent-3", "agent-4")

ITEMS_AN_AGENT = 40
AUXILIARY_ITEMS = 60
VALIDATION_ITEMS = 240

LORA = LoraTerms(rank=8, alpha=16, dropout=0.05)


def demo_terms(seed: int) -> RunTerms:
    """Return the terms of a demo run."""
    return RunTerms(
        name="demo",
        llm=str(MODELS / "llm"),
        slm=str(MODELS / "slm"),
        seed=seed,
        task=TaskTerms(template="{question}"),
        rounds=4,
        slm_lora=LORA,
        llm_lora=LORA,
        training=TrainingTerms(epochs=4, batch_size=4, optimiser=OptimiserTerms(learning_rate=3e-3), max_tokens=96),
        cotuning=CotuningTerms(
            passes=2,
            batch_size=4,
            distillation_weight=1.0,
            llm_optimiser=OptimiserTerms(learning_rate=7e-4),
            slm_optimiser=OptimiserTerms(learning_rate=7e-4),
        ),
        # Three of four are enough once half a minute has passed: one agent may disappear.
        cohort=CohortTerms(min_count=3, max_count=4, min_seconds=30, max_seconds=90),
        gate=GateTerms(enabled=True, tolerance=0.05),
    )
