"""What comes of hostile files (tests/support/hostile_blobs.py) that are sent to a coordinator."""

from collections.abc import Callable, Iterator

import pytest

from services.coordinator.context import Context
from shared.errors import BlobTooLarge, BlobTruncated, LayoutMismatch, ValuesNotFinite
from shared.protocol.messages import Problem
from shared.protocol.rounds import RoundState
from shared.protocol.work import CotuneResult
from tests.support.federations import LLM_LAYOUT, RUN, SLM_LAYOUT, adapter, begin, lease, store, submit, work
from tests.support.hostile_blobs import HOSTILE, Attacked, HostileFile
from tests.support.requests import assert_nothing_kept, send

pytestmark = pytest.mark.anyio

ATTACKED = Attacked(SLM_LAYOUT)
REFUSALS = (BlobTooLarge, BlobTruncated, LayoutMismatch, ValuesNotFinite)


def first(make: Callable[[Attacked], Iterator[HostileFile]]) -> bytes:
    """Return a class's first file; one of megabytes differs from it only where it is read, which is tested there."""
    return next(make(ATTACKED)).content


async def test_a_hostile_update_costs_its_sender_a_refusal(context: Context) -> None:
    """Of each class: its sender is told why and counted, nothing of it stays, and an honest update is still taken."""
    begin(context)
    for make in HOSTILE:
        answer = await send(context, first(make))
        code = Problem.model_validate_json(answer.content).code
        assert code in {error.code for error in REFUSALS}, make.__name__
    assert_nothing_kept(context)
    assert context.lifecycle.rounds(RUN).rounds[0].refused == len(HOSTILE)
    assert (await send(context, adapter(1.0))).is_success


def test_a_hostile_candidate_is_not_evaluated(context: Context) -> None:
    """A worker may store what it likes; as the result of its work it is refused, and the honest one is still taken."""
    begin(context)
    submit(context, "ada", 1.0)
    submit(context, "bob", 2.0)
    context.rounds.reconcile()
    granted = lease(context)
    llm = store(context, adapter(3.0, LLM_LAYOUT))
    for make in HOSTILE:
        result = CotuneResult(slm_adapter=store(context, first(make)), llm_adapter=llm, steps=1, losses={})
        with pytest.raises(REFUSALS):
            context.work.complete(granted.job_id, granted.token, result, actor="worker")
    assert context.lifecycle.rounds(RUN).rounds[0].state is RoundState.COTUNING
    honest = CotuneResult(slm_adapter=store(context, adapter(3.0)), llm_adapter=llm, steps=1, losses={})
    context.work.complete(granted.job_id, granted.token, honest, actor="worker")
    work(context)
    assert context.lifecycle.rounds(RUN).rounds[0].state is RoundState.PUBLISHED
