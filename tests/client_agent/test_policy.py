"""What an organisation has decided for its agent no coordinator changes: a refusal names its rule, nothing leaves."""

from pathlib import Path
from typing import Any

import pytest

from bench.federation import ManualClock, open_federation
from bench.no_op import InProcess, NoOpTrainer
from services.client_agent.policy import Policy
from services.client_agent.state import DAY_SECONDS, StateFolder
from shared.errors import PolicyRefused
from shared.protocol.digests import digest_of
from shared.protocol.manifest import Manifest, SignedManifest
from shared.protocol.rounds import RunState
from shared.protocol.terms import CohortTerms, MaskingTerms, RunTerms
from tests.support.attempts import TERMS
from tests.support.cotuners import AddingCoTuner
from tests.support.federations import LLM_LAYOUT, RUN, SLM_LAYOUT, terms_of
from tests.support.players import FOUR, SECURE

WIRE = Path(__file__).parents[1] / "protocol" / "wire" / "manifest.json"
MANIFEST = SignedManifest.model_validate_json(WIRE.read_bytes()).manifest
OTHER = digest_of(b"another model")


def manifest(**changes: Any) -> Manifest:  # noqa: ANN401 - fields differ in type
    """Return the manifest of a run of four to ten, masked, with a clip of 50; bent."""
    cohort = CohortTerms(min_count=4, max_count=10, min_seconds=1, max_seconds=2)
    masked = {"aggregation": "SecureAggregation", "cohort": cohort, "masking": MaskingTerms(clip_norm=50.0)}
    return MANIFEST.model_copy(update={**masked, **changes})


@pytest.mark.parametrize(
    "policy",
    [
        Policy(),
        Policy(smallest_cohort=4),
        Policy(smallest_threshold=3),
        Policy(largest_update_norm=50.0),
        Policy(base_models=(OTHER, MANIFEST.slm_digest)),
        Policy(largest_adapter_bytes=1000),
    ],
)
def test_a_run_within_the_rules_is_trained_for(policy: Policy) -> None:
    """At each limit, not only below it."""
    policy.require_run(manifest())
    policy.require_adapter(1000, manifest())


@pytest.mark.parametrize(
    ("policy", "change", "words"),
    [
        (Policy(), {"aggregation": "PlaintextAggregation"}, "policy.allow_plaintext is false, and run .* could read"),
        (Policy(), {"share_aggregate": True}, "policy.allow_shared_aggregate is false, and run .* has share_aggregate"),
        (Policy(smallest_cohort=5), {}, "policy.smallest_cohort is 5, and run .* has sums of as few as 4"),
        (
            Policy(smallest_threshold=4),
            {},
            "policy.smallest_threshold is 4, and in run .* as few as 3 can undo",
        ),
        (Policy(largest_update_norm=49.9), {}, "policy.largest_update_norm is 49.9, and run .* clips updates to 50"),
        (Policy(base_models=()), {}, "policy.base_models does not name sha256:"),
        (Policy(base_models=(OTHER,)), {}, "policy.base_models does not name sha256:"),
        (
            Policy(base_models=(OTHER,), allow_plaintext=True),
            {"aggregation": "PlaintextAggregation"},
            "policy.base_models does not name",
        ),
    ],
)
def test_a_run_that_breaks_a_rule_is_not(policy: Policy, change: dict[str, Any], words: str) -> None:
    """The rule is called as in the settings, with what it says and what the run wants."""
    with pytest.raises(PolicyRefused, match=words):
        policy.require_run(manifest(**change))


def test_rules_of_masking_are_none_of_readable_updates() -> None:
    """Who allows those has allowed them: nothing is hidden among anybody, nor clipped."""
    allowed = Policy(allow_plaintext=True, smallest_cohort=100, largest_update_norm=1.0)
    allowed.require_run(manifest(aggregation="PlaintextAggregation"))


def test_a_shared_aggregate_is_allowed_or_it_is_not() -> None:
    """Whoever allows it takes part, also where updates are readable."""
    allowed = Policy(allow_shared_aggregate=True, allow_plaintext=True)
    for changes in ({}, {"aggregation": "PlaintextAggregation"}):
        allowed.require_run(manifest(share_aggregate=True, **changes))


def test_an_adapter_that_is_too_large_is_not_fetched() -> None:
    """Its size follows from the manifest, before a byte comes."""
    with pytest.raises(PolicyRefused, match=r"policy.largest_adapter_bytes is 999, and an adapter of run .* has 1000"):
        Policy(largest_adapter_bytes=999).require_adapter(1000, manifest())


@pytest.mark.parametrize(("most", "taken", "refused"), [(None, 9, False), (2, 1, False), (2, 2, True), (0, 0, True)])
def test_so_many_rounds_a_day(most: int | None, taken: int, *, refused: bool) -> None:
    """The one that is asked for would be one more."""
    policy = Policy(most_rounds_a_day=most)
    if not refused:
        policy.require_rounds(taken)
        return
    with pytest.raises(PolicyRefused, match=f"policy.most_rounds_a_day is {most}, and .* taken part in {taken} within"):
        policy.require_rounds(taken)


def test_an_attempt_within_the_rules_is_taken_part_in() -> None:
    """Of four, three are enough to undo a mask."""
    Policy(smallest_cohort=4, smallest_threshold=3).require_attempt(TERMS)
    with pytest.raises(PolicyRefused, match=r"policy.smallest_threshold is 4"):
        Policy(smallest_threshold=4).require_attempt(TERMS)


def test_rounds_of_the_last_day_are_counted_once(tmp_path: Path) -> None:
    """However often one was begun again; those of yesterday are not, nor is the one that is asked for."""
    state, now = StateFolder(tmp_path), 1e9
    state.take_part("run", 1, now - DAY_SECONDS - 1)
    state.take_part("run", 2, now - 5)
    state.take_part("run", 2, now - 4)
    state.take_part("other", 2, now - 3)
    assert state.taken_within_a_day(now, but=("run", 3)) == 2
    assert state.taken_within_a_day(now, but=("run", 2)) == 1
    (tmp_path / "taken.json").write_bytes(b'[["run"')
    with pytest.raises(PolicyRefused, match=r"taken\.json was damaged"):
        state.taken_within_a_day(now, but=("run", 3))


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("policy", "terms", "words"),
    [
        (Policy(), terms_of(), "policy.allow_plaintext"),
        (Policy(), terms_of(share_aggregate=True, **SECURE), "policy.allow_shared_aggregate"),
        (Policy(smallest_cohort=4), terms_of(**SECURE), "policy.smallest_cohort"),
        (Policy(largest_update_norm=1.0), terms_of(**SECURE), "policy.largest_update_norm"),
        (Policy(base_models=(OTHER,)), terms_of(**SECURE), "policy.base_models"),
        (Policy(most_rounds_a_day=0), terms_of(**SECURE), "policy.most_rounds_a_day"),
    ],
    ids=lambda value: value.split(".")[1] if isinstance(value, str) else "",
)
async def test_an_agent_that_will_not_trains_nothing_and_says_nothing(
    policy: Policy,
    terms: RunTerms,
    words: str,
    tmp_path: Path,
    clock: ManualClock,
) -> None:
    """It asks what is wanted and reads the manifest; nobody is ready, nothing was trained, and its page says why."""
    trainers = {name: NoOpTrainer() for name in FOUR}
    agents = {name: InProcess(trainer) for name, trainer in trainers.items()}
    cotuner = AddingCoTuner(SLM_LAYOUT, LLM_LAYOUT)
    async with open_federation(tmp_path, agents, cotuner, clock, policy) as everybody:
        await everybody.start(RUN, terms)
        await everybody.work()
        for agent in everybody.agents.values():
            with pytest.raises(PolicyRefused, match=words):
                await agent.step(wait_seconds=0)
        with everybody.context.store.read() as tx:
            assert not tx.attempts.ready(tx.round(RUN, 1))
            assert not tx.updates(RUN, 1)
    assert not any(trainer.trainings for trainer in trainers.values())


@pytest.mark.anyio
async def test_a_day_later_it_takes_part_again(tmp_path: Path, clock: ManualClock) -> None:
    """One round a day: the second round of the run waits for the next day, and then ends it."""
    agents = {name: InProcess(NoOpTrainer()) for name in FOUR}
    cotuner = AddingCoTuner(SLM_LAYOUT, LLM_LAYOUT)
    cohort = CohortTerms(min_count=3, max_count=4, min_seconds=10, max_seconds=10 * DAY_SECONDS)
    async with open_federation(tmp_path, agents, cotuner, clock, Policy(most_rounds_a_day=1)) as everybody:
        await everybody.start(RUN, terms_of(**{**SECURE, "cohort": cohort}, rounds=2))
        with pytest.raises(
            PolicyRefused, match=r"policy.most_rounds_a_day is 1, and .* taken part in 1 within 24 hours"
        ):
            await everybody.finish(RUN)
        clock.advance(DAY_SECONDS)
        assert (await everybody.finish(RUN)).state is RunState.FINISHED
