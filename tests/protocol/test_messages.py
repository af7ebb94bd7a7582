import inspect
import json
from itertools import chain
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from bench.exchange import attempt_terms
from bench.no_op import lora_of
from shared.protocol import card, federation, membership, messages, published, questions, terms
from shared.protocol import manifest as manifests
from shared.protocol.attempts import AttemptPlace, KeysWanted
from shared.protocol.audit import NOTHING, AuditEntry, AuditHead, AuditPage, sealed, sign_head
from shared.protocol.digests import digest_of
from shared.protocol.federation import AgentCounts, FederationView, Reader, WorkerView, WorkUnderWay
from shared.protocol.identity import IdentityKey
from shared.protocol.manifest import Manifest, SignedManifest, manifest_digest
from shared.protocol.membership import Heard, MemberList, MemberState, MemberView, RoundPlace
from shared.protocol.messages import (
    AgentsEvaluation,
    Assignment,
    BaseScores,
    Event,
    EventList,
    Fault,
    Problem,
    PublishedAdapter,
    RoundScores,
    RoundView,
    RunView,
    Score,
    UpdateReceipt,
    Wanted,
)
from shared.protocol.published import AdapterList, Promotion, PublishedView
from shared.protocol.questions import ModelName, QuestionState, QuestionView
from shared.protocol.rounds import RoundState, RunState
from shared.protocol.terms import CohortTerms, RunTerms, TaskTerms
from shared.protocol.work import (
    CotuneResult,
    CotuneTask,
    EvaluateTask,
    FailureRequest,
    Lease,
    LeaseAnswer,
    LeaseRequest,
    PreparedDigests,
    PreparedModel,
    PrepareResult,
    QuestionFailed,
    ResultRequest,
)
from tests.support.federations import SLM_LAYOUT, terms_of

GOLDEN = Path(__file__).parent / "wire"

DIGEST = digest_of(b"adapter")
SCORE = Score(accuracy=0.75, loss=0.5, examples=8, chance=0.25, interval=(0.25, 0.9375))
TERMS = terms_of(rounds=2)
KEY = IdentityKey(bytes(32)).public
PUBLISHED = PublishedAdapter(run_id="run", round=1, digest=DIGEST)
CONFIG = lora_of(SLM_LAYOUT, TERMS.slm_lora)
PREPARED = PreparedModel(base_digest=DIGEST, adapter=DIGEST, layout=SLM_LAYOUT, adapter_config=CONFIG)
MODELS_OF_RUN = PreparedDigests(tokenizer=DIGEST, slm=DIGEST, llm=DIGEST)
HEAD = sign_head(IdentityKey(bytes(32)), AuditHead(federation="clinics", seq=17, hash=DIGEST, at=1_700_000_000.0))
LEASE = Lease(
    job_id="run-1-cotune",
    token=2,
    run_id="run",
    round=1,
    terms=TERMS,
    task=CotuneTask(prepared=MODELS_OF_RUN, slm_adapter=DIGEST, llm_adapter=DIGEST, seed=7),
    lease_seconds=30.0,
)

MANIFEST = Manifest(
    federation="clinics",
    run_id="run",
    run_name="a run",
    seed=7,
    llm_digest=DIGEST,
    slm_digest=DIGEST,
    tokenizer_digest=DIGEST,
    slm_lora=TERMS.slm_lora,
    layout=SLM_LAYOUT,
    adapter_config=CONFIG,
    task=TaskTerms(),
    training=TERMS.training,
    weighting="unweighted",
    aggregation="PlaintextAggregation",
    cohort=TERMS.cohort,
    masking=TERMS.masking,
    evaluation_examples=0,
)

ON_THE_WIRE: dict[str, BaseModel] = {
    "terms": TERMS,
    "run": RunView(
        id="run",
        state=RunState.RUNNING,
        reason=None,
        terms=TERMS,
        created_at=1_700_000_000.0,
        round=2,
        published=PUBLISHED,
        base_scores=BaseScores(slm=SCORE, llm=SCORE),
        signed=True,
    ),
    "round": RoundView(
        run_id="run",
        number=1,
        state=RoundState.PUBLISHED,
        reason=None,
        opened_at=1_700_000_000.0,
        since=1_700_000_003.5,
        ended_at=1_700_000_003.5,
        accepted=4,
        refused=1,
        late=1,
        attempts=1,
        error_bound=9e-8,
        evaluation=AgentsEvaluation(examples=40, accuracy=0.75, loss=0.5),
        aggregate_bytes=6_301_184,
        slm_adapter=DIGEST,
        llm_adapter=DIGEST,
        scores=RoundScores(slm_aggregated=SCORE, slm=SCORE, llm=SCORE),
        seconds={"open": 2.0, "aggregated": 1.5},
    ),
    "events": EventList(
        events=(Event(seq=9, at=1_700_000_000.0, kind="round.published", round=1, detail={"slm": 0.75}),),
        last=9,
    ),
    "wanted": Wanted(
        assignment=Assignment(run_id="run", round=2, manifest=DIGEST, adapter=DIGEST),
        summons=KeysWanted(
            place=AttemptPlace(run_id="run", round=1, attempt=1), terms=attempt_terms(members=4, parameters=14)
        ),
        published=PUBLISHED,
        audit=HEAD,
    ),
    "audit": AuditPage(
        entries=(
            sealed(
                AuditEntry(
                    seq=1,
                    at=1_700_000_000.0,
                    actor="operator",
                    action="run.draft",
                    subject="run/run",
                    detail={"name": "a run"},
                    previous=NOTHING,
                )
            ),
        )
    ),
    "manifest": SignedManifest(
        manifest=MANIFEST,
        signature="A" * 86,
    ),
    "receipt": UpdateReceipt(
        run_id="run", round=1, agent="clinic", digest=DIGEST, bytes=6_301_184, received_at=1_700_000_001.0
    ),
    "lease": LeaseAnswer(lease=LEASE),
    "result-prepare": ResultRequest(
        token=1,
        result=PrepareResult(
            tokenizer_digest=DIGEST, slm=PREPARED, llm=PREPARED, scores=BaseScores(slm=SCORE, llm=SCORE)
        ),
    ),
    "result-cotune": ResultRequest(
        token=2,
        result=CotuneResult(slm_adapter=DIGEST, llm_adapter=DIGEST, steps=3, losses={"slm_loss": 0.5}, micro_batch=2),
    ),
    "failure": FailureRequest(token=2, elsewhere=True, code="base_model_mismatch", message="other models"),
    "problem": Problem(title="Conflict", status=409, code="round_closed", detail="round 1 of run x is published"),
    "problem-faults": Problem(
        title="Not understood",
        status=422,
        code="message_invalid",
        detail="body.cohort.min_count: Input should be greater than or equal to 1",
        faults=(Fault(where="cohort.min_count", message="Input should be greater than or equal to 1"),),
    ),
    "federation": FederationView(
        federation="clinics",
        operator_key=KEY,
        fingerprint="0123-4567-89ab-cdef",
        version="1.0",
        protocol=1,
        started_at=1_700_000_000.0,
        now=1_700_000_060.0,
        you=Reader(name="eve", role="viewer"),
        agents=AgentCounts(states=dict.fromkeys(MemberState, 1), heard=1, versions={"1.0": 1}),
        workers=(
            WorkerView(
                name="gpu-1",
                principal="worker",
                version="1.0",
                heard_at=1_700_000_059.0,
                work=WorkUnderWay(kind="cotune", run_id="run", round=2),
            ),
        ),
    ),
    "agents": MemberList(
        agents=(
            MemberView(
                name="clinic",
                state=MemberState.APPROVED,
                key=KEY,
                invitation_expires_at=None,
                not_after=1_800_000_000,
                changed_at=1_700_000_000.0,
                heard=Heard(
                    at=1_700_000_050.0,
                    version="1.0",
                    declines={"other": "unwilling"},
                    assigned=RoundPlace(run_id="run", round=2),
                ),
            ),
        ),
        next="clinic",
    ),
    "adapters": AdapterList(
        adapters=(
            PublishedView(
                run_id="run",
                run_name="trial",
                round=1,
                slm_adapter=DIGEST,
                llm_adapter=DIGEST,
                bytes=6_301_184,
                published_at=1_700_000_003.5,
                scores=RoundScores(slm_aggregated=SCORE, slm=SCORE, llm=SCORE),
            ),
        ),
        next="run:1",
    ),
    "promotion": Promotion(held=PublishedAdapter(run_id="run", round=1, digest=DIGEST), pinned=True),
    "question": QuestionView(
        id="0" * 32,
        run_id="run",
        round=1,
        state=QuestionState.ANSWERED,
        before=0,
        answers=dict.fromkeys(ModelName, "Because."),
        reason=None,
    ),
    "question-failed": QuestionFailed(code="memory_too_small", message="no room"),
}

ROOM = (card, federation, manifests, membership, messages, published, questions, terms)
MODELS = {
    model
    for _, model in chain.from_iterable(map(inspect.getmembers, ROOM))
    if isinstance(model, type) and issubclass(model, BaseModel) and model is not BaseModel
}


@pytest.mark.parametrize("name", ON_THE_WIRE)
def test_the_wire_looks_as_it_did(name: str, update_golden: bool) -> None:  # noqa: FBT001 - a fixture
    """A change of a message changes a file in tests/protocol/wire, and so is seen in review (--update-golden)."""
    message, file = ON_THE_WIRE[name], GOLDEN / f"{name}.json"
    now = json.dumps(json.loads(message.model_dump_json()), indent=2) + "\n"
    if update_golden:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(now)
    assert now == file.read_text()
    assert type(message).model_validate_json(file.read_bytes()) == message


@pytest.mark.parametrize("model", sorted(MODELS, key=lambda model: model.__name__), ids=lambda model: model.__name__)
def test_messages_are_frozen_and_take_nothing_extra(model: type[BaseModel]) -> None:
    """No message can be changed after it was checked, and none smuggles a field that nobody reads."""
    assert model.model_config.get("frozen") is True
    assert model.model_config.get("extra") == "forbid"


def test_a_field_that_nobody_knows_is_refused() -> None:
    """A typing error in a setting does not silently become the default."""
    with pytest.raises(ValidationError, match="extra"):
        LeaseRequest.model_validate({"worker": "w", "wait_secs": 3})


@pytest.mark.parametrize("loss", ["NaN", "Infinity", "-Infinity"])
def test_scores_are_numbers(loss: str) -> None:
    """A diverged model's NaN is no score: the gate could not compare it."""
    with pytest.raises(ValidationError):
        Score.model_validate_json(f'{{"accuracy":0.5,"loss":{loss},"examples":1,"chance":0.25}}')


def test_views_show_counts_and_never_who() -> None:
    """No view of a run or round has a place for one agent's name, loss or number of examples."""
    shown = set(RoundView.model_fields) | set(RunView.model_fields) | set(RoundScores.model_fields)
    assert not {name for name in shown if "agent" in name or "example" in name or "client" in name}
    assert set(UpdateReceipt.model_fields) == {"run_id", "round", "agent", "digest", "bytes", "received_at"}


def test_a_cohorts_minimum_is_below_its_maximum() -> None:
    """Terms by which a round could never close well are refused when the run is made."""
    CohortTerms(min_count=2, max_count=2, min_seconds=3, max_seconds=3)
    with pytest.raises(ValidationError, match="above its maximum"):
        CohortTerms(min_count=3, max_count=2, min_seconds=0, max_seconds=1)
    with pytest.raises(ValidationError, match="above its maximum"):
        CohortTerms(min_count=1, max_count=2, min_seconds=2, max_seconds=1)


def test_a_manifests_digest_survives_the_wire_and_sees_every_change() -> None:
    """Both sides compute the same one, whatever order the keys came in; other terms have another."""
    manifest = MANIFEST
    backwards = dict(reversed(manifest.model_dump(mode="json").items()))
    assert manifest_digest(Manifest.model_validate_json(json.dumps(backwards))) == manifest_digest(manifest)
    training = TERMS.training.model_copy(update={"epochs": 5})
    assert manifest_digest(manifest.model_copy(update={"training": training})) != manifest_digest(manifest)


def test_terms_survive_the_wire() -> None:
    """What an operator sends is what every party reads."""
    assert RunTerms.model_validate_json(TERMS.model_dump_json()) == TERMS


def test_tasks_are_told_apart_by_their_kind() -> None:
    """A worker cannot take one kind of work for another."""
    evaluate = EvaluateTask(prepared=MODELS_OF_RUN, slm_aggregated=DIGEST, slm_adapter=DIGEST, llm_adapter=DIGEST)
    lease = LEASE.model_copy(update={"task": evaluate})
    assert Lease.model_validate_json(lease.model_dump_json()).task == evaluate
    with pytest.raises(ValidationError):
        Lease.model_validate_json(lease.model_dump_json().replace('"evaluate"', '"cotune"'))
