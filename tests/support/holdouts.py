"""Measurements on a hold-out, as a run would have made them, and agents whose report they are."""

import random
from collections.abc import Mapping
from pathlib import Path

from services.client_agent.holdout_folder import (
    AGGREGATE,
    BASE,
    PUBLISHED,
    STANDALONE,
    HoldOutFolder,
    Model,
    RunNote,
)
from services.client_agent.holdout_report import report_of
from services.client_agent.status import Status
from services.client_agent.trainer import Measured
from shared.protocol.digests import digest_of
from shared.protocol.manifest import Manifest
from shared.protocol.messages import Assignment
from tests.protocol.test_manifest import RUN as MANIFEST
from tests.support.agents import NOON, waiting

EXAMPLES = digest_of(b"examples")


def measured(right: int, *, of: int = 100, seed: int = 0, completions: bool = False, nats: float = 1.0) -> Measured:
    """Return a measurement of which so many examples are right, or tokens where each example has two."""
    draw = random.Random(seed)  # noqa: S311 - examples are no secret
    values = [1] * right + [0] * (of - right)
    draw.shuffle(values)
    return Measured(
        examples=EXAMPLES,
        left_out=0,
        completions=completions,
        chance=0.0 if completions else 0.25,
        right=tuple(values),
        tokens=(2,) * of,
        losses=tuple(2 * nats * draw.uniform(0.5, 1.5) for _ in range(of)),
    )


def manifest_of(**changes: object) -> Manifest:
    """Return the manifest of a run that shares its aggregates."""
    return MANIFEST.model_copy(update={"run_name": "triage", "share_aggregate": True, **changes})


def keep(folder: Path, manifest: Manifest, found: Mapping[Model, Measured], trouble: str | None = None) -> None:
    """Put measurements into an agent's state folder, of rounds that it has taken part in one after the other."""
    holdout = HoldOutFolder(folder)
    for number in range(1, 1 + max((model.number for model in found), default=0)):
        digest = digest_of(bytes([number]))
        assignment = Assignment(run_id=manifest.run_id, round=number, manifest=digest, adapter=digest)
        holdout.take_part(assignment, manifest)
    if holdout.note(manifest.run_id) is None:
        holdout.take_part(Assignment(run_id=manifest.run_id, round=1, manifest=EXAMPLES, adapter=EXAMPLES), manifest)
    for model, one in found.items():
        holdout.keep_measured(manifest.run_id, model, one)
    note = holdout.note(manifest.run_id)
    assert isinstance(note, RunNote)
    report = report_of(note, holdout.measured(manifest.run_id), trouble=trouble, at=NOON)
    holdout.write_report(manifest.run_id, report)


HELPED: Mapping[Model, Measured] = {
    BASE: measured(104, of=400, seed=1, nats=1.4),
    **{Model(STANDALONE, number): measured(170 + 4 * number, of=400, seed=2, nats=1.1) for number in (1, 2, 3)},
    **{Model(AGGREGATE, number): measured(190 + 8 * number, of=400, seed=3, nats=0.9) for number in (1, 2, 3)},
    **{Model(PUBLISHED, number): measured(210 + 12 * number, of=400, seed=4, nats=0.8) for number in (1, 2, 3)},
}


def measuring(folder: Path) -> Status:
    """Return an agent that waits, and has reports of three runs: whole, begun, and in trouble."""
    status = waiting(folder)
    trouble = "data_unreadable: holdout.jsonl is not there"
    keep(folder, manifest_of(run_id="letters-1", run_name=""), {}, trouble)
    keep(folder, manifest_of(run_id="triage-1", share_aggregate=False), {BASE: HELPED[BASE]})
    keep(folder, manifest_of(run_id="triage-2"), HELPED)
    return status
