import pytest

from bench.federation import ManualClock
from services.coordinator.app import create_app, create_work_app
from services.coordinator.context import Context
from services.coordinator.questions import ASKED_SECONDS, KEPT_SECONDS, MOST_WAITING, NOBODY_ANSWERED
from shared.errors import NotFound, RunConflict, TooManyRequests
from shared.protocol.questions import ModelName, QuestionRequest, QuestionState, QuestionView
from shared.protocol.work import LeaseAnswer, LeaseRequest, QuestionAnswered, QuestionFailed
from tests.support.federations import RUN, begin, client, terms_of, theta_of

pytestmark = pytest.mark.anyio

WHY = QuestionRequest(run_id=RUN, prompt="Why?")
ANSWERS = {ModelName.LLM: "Because.", ModelName.LLM_BASE: "No.", ModelName.SLM: "Why not?", ModelName.SLM_BASE: ""}


@pytest.fixture
def prepared(context: Context) -> Context:
    """A coordinator with a run whose first round is open, and nothing for a worker to do."""
    begin(context)
    return context


async def asked_for_work(context: Context, worker: str = "first") -> LeaseAnswer:
    """Ask for work as a worker."""
    async with client(context, "worker", app=create_work_app(context)) as http:
        answer = await http.post("/v1/work/lease", json=LeaseRequest(worker=worker).model_dump())
        return LeaseAnswer.model_validate_json(answer.content)


async def test_a_question_goes_to_a_worker_that_has_nothing_else_to_do(context: Context) -> None:
    """A run's work comes first, whoever has waited longer."""
    begin(context)
    context.questions.ask(WHY, by="operator")
    context.lifecycle.create("next", terms_of(), actor="operator")
    context.lifecycle.start("next", actor="operator")
    first = await asked_for_work(context)
    assert (first.lease is not None, first.question) == (True, None)
    second = await asked_for_work(context, "second")
    assert second.lease is None
    assert second.question is not None
    assert (second.question.prompt, second.question.slm_adapter) == ("Why?", theta_of(context))
    assert await asked_for_work(context, "third") == LeaseAnswer(lease=None)


async def test_whoever_asks_waits_for_the_answer(prepared: Context) -> None:
    """Through the doors: asked by an operator, answered by a worker, read by the operator alone who has asked."""
    async with (
        client(prepared, "operator", app=create_app(prepared)) as operator,
        client(prepared, "worker", app=create_work_app(prepared)) as worker,
    ):
        asked = QuestionView.model_validate_json((await operator.post("/v1/questions", json=WHY.model_dump())).content)
        assert (asked.state, asked.before, asked.answers) == (QuestionState.WAITING, 0, {})
        question = (await asked_for_work(prepared)).question
        assert question is not None
        outcome = QuestionAnswered(answers=ANSWERS)
        await worker.put(f"/v1/work/questions/{question.id}", json=outcome.model_dump(mode="json"))
        found = QuestionView.model_validate_json((await operator.get(f"/v1/questions/{asked.id}")).content)
    assert (found.state, found.answers) == (QuestionState.ANSWERED, ANSWERS)
    with pytest.raises(NotFound):
        prepared.questions.question(asked.id, by="another-operator")


def test_what_cannot_be_answered_says_why(prepared: Context) -> None:
    """The worker's code and words; a second outcome, or one of a question long gone, changes nothing."""
    asked = prepared.questions.ask(WHY, by="operator")
    failed = QuestionFailed(code="memory_too_small", message="no room")
    prepared.questions.answer(asked.id, failed)
    prepared.questions.answer(asked.id, QuestionAnswered(answers=ANSWERS))
    prepared.questions.answer("0" * 32, failed)
    found = prepared.questions.question(asked.id, by="operator")
    assert (found.state, found.reason, found.answers) == (QuestionState.FAILED, "memory_too_small: no room", {})


def test_a_question_that_a_worker_has_dropped_is_put_to_the_next(prepared: Context, clock: ManualClock) -> None:
    """Once: it may be what kills workers. Nobody waits for ever, and nothing is kept for long."""
    asked = prepared.questions.ask(WHY, by="operator")
    assert prepared.questions.next() is not None
    assert prepared.questions.next() is None
    clock.advance(ASKED_SECONDS + 1)
    again = prepared.questions.next()
    assert again is not None
    assert again.id == asked.id
    clock.advance(ASKED_SECONDS + 1)
    assert prepared.questions.next() is None
    found = prepared.questions.question(asked.id, by="operator")
    assert (found.state, found.reason) == (QuestionState.FAILED, NOBODY_ANSWERED)
    clock.advance(KEPT_SECONDS + 1)
    with pytest.raises(NotFound):
        prepared.questions.question(asked.id, by="operator")


def test_only_so_many_wait(prepared: Context) -> None:
    """Each is told how many are before it, and the next one to come back later."""
    places = [prepared.questions.ask(WHY, by="operator").before for _ in range(MOST_WAITING)]
    assert places == list(range(MOST_WAITING))
    assert prepared.questions.next() is not None  # it waits for its answer all the same
    with pytest.raises(TooManyRequests):
        prepared.questions.ask(WHY, by="operator")


def test_a_run_without_models_cannot_be_asked(context: Context) -> None:
    """Nobody knows yet which models they are."""
    context.lifecycle.create(RUN, terms_of(), actor="operator")
    with pytest.raises(RunConflict, match="has no models yet"):
        context.questions.ask(WHY, by="operator")


def test_what_was_asked_is_written_nowhere(prepared: Context) -> None:
    """A prompt may be anything: it is in memory, and in no file of the coordinator's, answers neither."""
    asked = prepared.questions.ask(QuestionRequest(run_id=RUN, prompt="a-secret-of-somebody"), by="operator")
    prepared.questions.answer(asked.id, QuestionAnswered(answers={ModelName.LLM: "a-secret-of-somebody"}))
    files = [file for file in prepared.settings.data_dir.rglob("*") if file.is_file()]
    assert files
    assert not [file for file in files if b"a-secret-of-somebody" in file.read_bytes()]
