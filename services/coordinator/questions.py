"""Questions to the models, which a worker answers when it has nothing else to do.

They are kept in memory, and for minutes: a prompt may be anything, and nothing of it is written down or logged. Whoever
has asked when the coordinator starts again asks once more.
"""

import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from services.coordinator.ports import Clock, Store
from shared.errors import NotFound, RunConflict, TooManyRequests
from shared.protocol.questions import Answers, QuestionRequest, QuestionState, QuestionView
from shared.protocol.work import Question, QuestionAnswered, QuestionOutcome

MOST_WAITING = 8
KEPT_SECONDS = 600.0
# As long as any worker may take for it; then it is put to another one.
ASKED_SECONDS = 120.0
MOST_TRIES = 2  # a question may be what kills its workers
NOBODY_ANSWERED = "no worker has answered in time: look at the worker's log, or ask for fewer tokens"
ENDED = frozenset({QuestionState.ANSWERED, QuestionState.FAILED})


@dataclass(frozen=True)
class _Asked:
    """A question, who asked it and when; ``state`` changed at ``since``."""

    question: Question
    run_id: str
    round: int
    by: str
    since: float
    state: QuestionState = QuestionState.WAITING
    tries: int = 0
    answers: Answers = field(default_factory=dict)
    reason: str | None = None


class Questions:
    """The questions to the models of one coordinator's runs."""

    def __init__(self, store: Store, clock: Clock, notify: Callable[[], None]) -> None:
        """``notify`` is called when a question was asked or answered."""
        self._store = store
        self._clock = clock
        self._notify = notify
        self._lock = threading.Lock()
        self._asked: dict[str, _Asked] = {}

    def ask(self, request: QuestionRequest, *, by: str) -> QuestionView:
        """Put a question before the workers, for the models with the run's newest adapters.

        Raises:
            NotFound: there is no such run.
            RunConflict: no worker has prepared it.
            TooManyRequests: others are waiting already.
        """
        with self._store.read() as tx:
            run = tx.run(request.run_id)
        if run.prepared is None or run.slm_adapter is None or run.llm_adapter is None:
            raise RunConflict(f"run {run.id} has no models yet: start it, and ask once a worker has prepared it")
        question = Question(
            id=secrets.token_hex(16),
            terms=run.terms,
            prepared=run.prepared.digests,
            slm_adapter=run.slm_adapter,
            llm_adapter=run.llm_adapter,
            prompt=request.prompt,
            max_new_tokens=request.max_new_tokens,
        )
        with self._lock:
            self._forget()
            if sum(asked.state not in ENDED for asked in self._asked.values()) >= MOST_WAITING:
                raise TooManyRequests(f"{MOST_WAITING} questions are waiting already: ask again in a while", 10)
            self._asked[question.id] = _Asked(question, run.id, run.published_round, by, self._clock())
            view = self._view(question.id)
        self._notify()
        return view

    def question(self, question_id: str, *, by: str) -> QuestionView:
        """Return a question of ``by``'s, and its answers once there are some; NotFound where it is too long ago."""
        with self._lock:
            self._forget()
            known = self._asked.get(question_id)
            if known is None or known.by != by:
                raise NotFound("this question is not known any more: ask it again")
            return self._view(question_id)

    def next(self) -> Question | None:
        """Return the oldest question that waits, for a worker that has nothing else to do."""
        with self._lock:
            self._forget()
            for question_id in self._waiting():
                asked = self._asked[question_id]
                tried = replace(asked, state=QuestionState.ASKED, tries=asked.tries + 1, since=self._clock())
                self._asked[question_id] = tried
                return asked.question
            return None

    def answer(self, question_id: str, outcome: QuestionOutcome) -> None:
        """Take a worker's answers, or why there are none; once is enough, and nobody may be waiting any more."""
        with self._lock:
            asked = self._asked.get(question_id)
            if asked is None or asked.state in ENDED:
                return
            if isinstance(outcome, QuestionAnswered):
                asked = replace(asked, state=QuestionState.ANSWERED, answers=outcome.answers)
            else:
                asked = replace(asked, state=QuestionState.FAILED, reason=f"{outcome.code}: {outcome.message}")
            self._asked[question_id] = replace(asked, since=self._clock())
        self._notify()

    def _waiting(self) -> list[str]:
        return [each for each, asked in self._asked.items() if asked.state is QuestionState.WAITING]

    def _forget(self) -> None:
        """Forget what is long ago, and put before the workers again what one of them has not answered in time."""
        now = self._clock()
        for each, asked in list(self._asked.items()):
            if now - asked.since > KEPT_SECONDS:
                del self._asked[each]
            elif asked.state is QuestionState.ASKED and now - asked.since > ASKED_SECONDS:
                self._asked[each] = (
                    replace(asked, state=QuestionState.FAILED, reason=NOBODY_ANSWERED, since=now)
                    if asked.tries >= MOST_TRIES
                    else replace(asked, state=QuestionState.WAITING, since=now)
                )

    def _view(self, question_id: str) -> QuestionView:
        asked, waiting = self._asked[question_id], self._waiting()
        return QuestionView(
            id=question_id,
            run_id=asked.run_id,
            round=asked.round,
            state=asked.state,
            before=waiting.index(question_id) if question_id in waiting else 0,
            answers=asked.answers,
            reason=asked.reason,
        )
