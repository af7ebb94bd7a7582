"""What a run expects of agents, made of its terms and of what a worker prepared (docs/protocol.md step 1)."""

from services.coordinator.records import Run
from shared.errors import NotFound
from shared.protocol.manifest import Manifest
from shared.protocol.tensors import Layout


def manifest_of(run: Run, *, federation: str) -> Manifest:
    """Return what agents compare with their own machine; NotFound until a worker has prepared the run."""
    if run.prepared is None:
        raise NotFound(f"run {run.id} has not been prepared by a worker yet: ask again in a moment")
    return Manifest(
        federation=federation,
        run_id=run.id,
        run_name=run.terms.name,
        seed=run.terms.seed,
        llm_digest=run.prepared.llm.base_digest,
        slm_digest=run.prepared.slm.base_digest,
        tokenizer_digest=run.prepared.tokenizer_digest,
        slm_lora=run.terms.slm_lora,
        layout=run.prepared.slm.layout,
        adapter_config=run.prepared.slm.adapter_config,
        task=run.terms.task,
        training=run.terms.training,
        weighting=run.terms.weighting,
        aggregation=run.terms.aggregation,
        cohort=run.terms.cohort,
        masking=run.terms.masking,
        evaluation_examples=run.terms.evaluation_examples,
        share_aggregate=run.terms.share_aggregate,
    )


def prepared_layout(run: Run) -> Layout:
    """Return what every adapter of a run's SLM looks like; NotFound until a worker has prepared the run."""
    if run.prepared is None:
        raise NotFound(f"run {run.id} has not been prepared yet, so it has no rounds")
    return run.prepared.slm.layout
