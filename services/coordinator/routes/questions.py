"""Questions to the models: what the co-tuned LLM says is as much the operators' as its adapter is."""

from typing import Annotated

from fastapi import APIRouter, Path, Request

from services.coordinator.context import AnyContext
from services.coordinator.questions import ENDED
from services.coordinator.routes.problems import problems
from services.coordinator.routes.runs import Operator
from shared.errors import NotFound, RunConflict
from shared.protocol.messages import WaitSeconds
from shared.protocol.questions import QuestionId, QuestionRequest, QuestionView

router = APIRouter(prefix="/questions", tags=["questions"])


@router.post("", summary="Ask the models of a run", responses=problems(NotFound, RunConflict))
def ask(context: AnyContext, operator: Operator, request: QuestionRequest) -> QuestionView:
    return context.questions.ask(request, by=operator.name)


@router.get("/{question_id}", summary="Wait for the models' answers", responses=problems(NotFound))
async def get_question(
    context: AnyContext,
    operator: Operator,
    connection: Request,
    question_id: Annotated[QuestionId, Path(description="As it was given when it was asked.")],
    wait_seconds: WaitSeconds = 0,
) -> QuestionView:
    return await context.changes.poll(
        lambda: context.questions.question(question_id, by=operator.name),
        who=operator.name,
        ready=lambda view: view.state in ENDED,
        wait_seconds=wait_seconds,
        gone=connection.is_disconnected,
    )
