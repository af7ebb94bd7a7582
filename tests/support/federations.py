"""Federations, coordinators and terms as small as they can be: two tensors, no training, no waiting."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from bench.federation import (
    FEDERATION,
    Federation,
    ManualClock,
    admit,
    key_of,
    known_tokens,
    open_federation,
    settings_of,
    sign,
    token_of,
)
from bench.no_op import NO_MODEL, InProcess, NoOpTrainer, lora_of
from services.coordinator.app import create_app, create_work_app
from services.coordinator.context import Context, open_context
from services.coordinator.principals import Role
from services.coordinator.worker.cotuner import CoTuner
from shared.protocol.codec import encode
from shared.protocol.digests import digest_of
from shared.protocol.messages import BaseScores, Event, RoundScores, RunView, Score, UpdateReceipt
from shared.protocol.tensors import Layout
from shared.protocol.terms import (
    CohortTerms,
    CotuningTerms,
    GateTerms,
    LoraTerms,
    OptimiserTerms,
    RunTerms,
    TrainingTerms,
)
from shared.protocol.work import (
    CotuneResult,
    CotuneTask,
    EvaluateResult,
    EvaluateTask,
    Lease,
    PreparedModel,
    PrepareResult,
    PrepareTask,
    Result,
)
from shared.transport import AsgiApp
from tests.support.cotuners import AddingCoTuner
from tests.support.signing import Signing

SLM_LAYOUT: Layout = {"slm.lora_A.weight": (2, 3), "slm.lora_B.weight": (4, 2)}
LLM_LAYOUT: Layout = {"llm.lora_A.weight": (2, 5)}
LORA = LoraTerms(rank=2)
AGENTS = ("ada", "bob")
RUN = "run"
ROLES = {"operator": Role.OPERATOR, "viewer": Role.VIEWER, "worker": Role.WORKER} | dict.fromkeys(
    ("ada", "bob", "cleo"), Role.AGENT
)


def terms_of(**changes: Any) -> RunTerms:  # noqa: ANN401 - fields differ in type
    """Return terms of readable updates by which a round of two closes at once, or after 10 to 60 seconds with one."""
    optimiser = OptimiserTerms(learning_rate=1e-3)
    fields: dict[str, Any] = {
        "name": "a run",
        "llm": "llm",
        "slm": "slm",
        "seed": 1,
        "rounds": 1,
        "training": TrainingTerms(batch_size=2, optimiser=optimiser, max_tokens=64),
        "cotuning": CotuningTerms(batch_size=2, llm_optimiser=optimiser, slm_optimiser=optimiser),
        "cohort": CohortTerms(min_count=1, max_count=2, min_seconds=10, max_seconds=60),
        "gate": GateTerms(enabled=True),
        "slm_lora": LORA,
        "aggregation": "PlaintextAggregation",
    }
    return RunTerms(**{**fields, **changes})


def adapter(value: float, layout: Layout | None = None) -> bytes:
    """Return a blob whose numbers are all ``value``."""
    return encode({name: np.full(shape, value, np.float32) for name, shape in (layout or SLM_LAYOUT).items()})


def score(loss: float = 1.0) -> Score:
    """Return a score with this loss."""
    return Score(accuracy=0.5, loss=loss, examples=1, chance=0.25)


def federation(
    folder: Path, clock: ManualClock, cotuner: CoTuner | None = None, agents: Sequence[str] = AGENTS
) -> AbstractAsyncContextManager[Federation]:
    """Open a federation whose agents train nothing; its co-tuner adds one to both adapters."""
    trainers = {name: InProcess(NoOpTrainer()) for name in agents}
    return open_federation(folder, trainers, cotuner or AddingCoTuner(SLM_LAYOUT, LLM_LAYOUT), clock)


@contextmanager
def coordinator(
    folder: Path, clock: Callable[[], float], *, agents: Sequence[str] = ("ada", "bob", "cleo"), **settings: float
) -> Iterator[Context]:
    """Open a coordinator alone, with everybody's tokens and with these agents as members."""
    with open_context(settings_of(folder, **settings), known_tokens(), clock) as context:
        admit(context, agents, clock)
        yield context


@asynccontextmanager
async def client(context: Context, who: str | None, *, app: AsgiApp | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """Open a plain HTTP client on the public app, or on the workers' for the worker."""
    app = app or (create_work_app(context) if who == "worker" else create_app(context))
    headers, auth = credentials_of(context, who)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://in-process", headers=headers, auth=auth
    ) as opened:
        yield opened


def credentials_of(context: Context, who: str | None) -> tuple[dict[str, str], Signing | None]:
    """Return the fields that all of somebody's requests carry and, of an agent, what signs them."""
    headers = {"FedCoLLM-Protocol": "1"}
    if who is None or ROLES.get(who, Role.AGENT) is Role.AGENT:
        return headers, who and Signing(who, key_of(who), FEDERATION, context.admission.clock)
    return headers | {"Authorization": f"Bearer {token_of(who)}"}, None


# --- acting on a coordinator without HTTP -------------------------------------------------------------------------


def begin(context: Context, terms: RunTerms | None = None, run_id: str = RUN, *, layout: Layout = SLM_LAYOUT) -> None:
    """Make, start, prepare and sign a run, so that its first round is open."""
    context.lifecycle.create(run_id, terms or terms_of(), actor="operator")
    context.lifecycle.start(run_id, actor="operator")
    work(context, layout=layout)


def submit(
    context: Context,
    agent: str,
    value: float = 1.0,
    *,
    number: int = 1,
    run_id: str = RUN,
    examples: int | None = None,
    layout: Layout = SLM_LAYOUT,
) -> UpdateReceipt:
    """Send an update as the route does."""
    blob = adapter(value, dict(layout))
    digest = digest_of(blob)
    receipt, slot = context.updates.receipt(agent, run_id, number, digest=digest, size=len(blob), examples=examples)
    if receipt is not None:
        return receipt
    with context.blobs.receive(size=len(blob)) as incoming:
        context.updates.write(slot, incoming, blob)
        return context.updates.accept(slot, incoming, digest=digest)


def store(context: Context, blob: bytes) -> str:
    """Store a worker's blob and return its digest."""
    digest = digest_of(blob)
    context.work.require_blob(digest, digest, len(blob))
    with context.blobs.receive(size=len(blob)) as incoming:
        incoming.write(blob)
        context.work.store_blob(incoming, digest)
    return digest


def lease(context: Context, worker: str = "worker") -> Lease:
    """Lease work that must be there."""
    granted = context.work.lease("worker", worker)
    assert granted is not None, "there is no work"
    return granted


def result_of(
    context: Context, granted: Lease, *, loss: float = 1.0, value: float = 100.0, layout: Layout = SLM_LAYOUT
) -> Result:
    """Return a good result of the work, its blobs stored."""
    match granted.task:
        case PrepareTask():
            return PrepareResult(
                tokenizer_digest=NO_MODEL,
                slm=_prepared(store(context, adapter(0.0, layout)), layout),
                llm=_prepared(store(context, adapter(0.0, LLM_LAYOUT)), LLM_LAYOUT),
                scores=BaseScores(slm=score(), llm=score()),
            )
        case CotuneTask():
            return CotuneResult(
                slm_adapter=store(context, adapter(value + granted.round)),
                llm_adapter=store(context, adapter(value + granted.round, LLM_LAYOUT)),
                steps=1,
                losses={},
            )
        case EvaluateTask():
            return EvaluateResult(scores=RoundScores(slm_aggregated=score(), slm=score(loss), llm=score()))


def work(context: Context, *, loss: float = 1.0, value: float = 100.0, layout: Layout = SLM_LAYOUT) -> Lease:
    """Lease one piece of work and hand in its result; the operator signs what was prepared."""
    granted = lease(context)
    result = result_of(context, granted, loss=loss, value=value, layout=layout)
    context.work.complete(granted.job_id, granted.token, result, actor="worker")
    if isinstance(granted.task, PrepareTask):
        sign(context, granted.run_id)
    return granted


def play_round(context: Context, number: int, *, loss: float = 1.0, run_id: str = RUN) -> None:
    """Play a whole round: two updates, aggregation, co-tuning, evaluation."""
    for index, agent in enumerate(AGENTS):
        submit(context, agent, float(number + index), number=number, run_id=run_id)
    context.rounds.reconcile()
    work(context)
    work(context, loss=loss)


def run_of(context: Context, run_id: str = RUN) -> RunView:
    """Look at a run."""
    return context.lifecycle.run(run_id)


def theta_of(context: Context, run_id: str = RUN) -> str:
    """Return the digest of the adapter that the next round starts from."""
    with context.store.read() as tx:
        digest = tx.run(run_id).slm_adapter
    assert digest is not None
    return digest


def cancelled(context: Context) -> RunView:
    """Cancel the run."""
    return context.lifecycle.cancel(RUN, "the data was wrong", actor="operator")


def kinds(context: Context, run_id: str = RUN) -> list[str]:
    """Return the kinds of a run's events, in order."""
    return [event.kind for event in context.lifecycle.events(run_id, after=0)]


def events_of(context: Context, run_id: str = RUN) -> list[Event]:
    """Return a run's log as it travels."""
    return [
        Event(seq=event.seq, at=event.at, kind=event.kind, round=event.round, detail=event.detail)
        for event in context.lifecycle.events(run_id, after=0)
    ]


def _prepared(digest: str, layout: Layout) -> PreparedModel:
    return PreparedModel(base_digest=NO_MODEL, adapter=digest, layout=layout, adapter_config=lora_of(layout, LORA))
