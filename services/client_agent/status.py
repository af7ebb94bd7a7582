"""What an agent is doing, for the eyes of its own organisation."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from pydantic import AwareDatetime, BaseModel

from shared.egress import TrafficCount
from shared.errors import TransportError
from shared.protocol.messages import PublishedAdapter, Wanted
from shared.protocol.terms import FROZEN

# Kinds of failures that are told apart: some have codes that the coordinator says.
MOST_CODES = 50


class Phase(StrEnum):
    """What an agent does at a time."""

    STARTING = "starting"
    WAITING = "waiting"
    RECEIVING = "receiving"
    TRAINING = "training"
    SENDING = "sending"
    MASKING = "masking"
    FAILED = "failed"


IN_WORDS: Mapping[Phase, str] = {
    Phase.STARTING: "It starts, and has not asked its coordinator yet",
    Phase.WAITING: "It waits until something is wanted of it",
    Phase.RECEIVING: "It fetches an adapter",
    Phase.TRAINING: "It trains an update on this organisation's own examples",
    Phase.SENDING: "It tells the coordinator that its update is trained, or sends it, where the run reads updates",
    Phase.MASKING: "It does its part in a sum of updates, none of which can be read alone",
    Phase.FAILED: "Something has failed; it tries again in a moment",
}


class DeclinedRun(BaseModel):
    """A run that an agent declines: why, and when it refused it last.

    All that the coordinator hears of the reason is the word ``told``.
    """

    run_id: str
    code: str
    reason: str
    at: AwareDatetime
    told: str
    model_config = FROZEN


@dataclass
class Status:
    """The agent writes it, the status page reads it; nothing of it leaves the machine.

    ``started_at`` and ``answered_at`` are when the agent was started and when the coordinator has answered last, in
    seconds since 1970; ``trained_steps`` and ``trained_seconds`` are the last training's. ``declined`` is by run, the
    newest refusal last. ``clock`` gives the seconds since 1970.
    """

    state_dir: Path | None = None
    clock: Callable[[], float] = time.time
    sent: TrafficCount = field(default_factory=TrafficCount)
    answered: bool = False
    answered_at: float | None = None
    heard: str | None = None
    started_at: float | None = None
    phase: Phase = Phase.STARTING
    run_id: str | None = None
    round: int | None = None
    last_run_id: str | None = None
    last_round: int | None = None
    step: int = 0
    steps: int = 0
    loss: float | None = None
    mean_loss: float | None = None
    trained_steps: int = 0
    trained_seconds: float = 0.0
    received_bytes: int = 0
    rounds_taken_part: int = 0
    holding: PublishedAdapter | None = None
    declined: dict[str, DeclinedRun] = field(default_factory=dict)
    error: str | None = None
    failures: Counter[str] = field(default_factory=Counter)
    trouble: str | None = None
    problem_since: float | None = None
    second_at: float | None = None
    audit_broken: str | None = None

    def hear(self, wanted: Wanted) -> None:
        """Report what the coordinator has said that it wants."""
        self.answered = True
        self.heard = _in_words(wanted)
        self.second_at = wanted.second_at

    def enter(self, phase: Phase, *, run_id: str | None = None, round_number: int | None = None) -> None:
        """Begin something, for a round unless it is to wait."""
        self.phase = phase
        self.step = self.steps = 0
        self.run_id, self.round = run_id, round_number

    def worked(self) -> None:
        """Report that an update for this round was trained, or a stage of it answered: no mere look at it."""
        self.last_run_id, self.last_round = self.run_id, self.round

    def advance(self, step: int, steps: int, loss: float) -> None:
        """Report a training step."""
        self.step, self.steps, self.loss = step, steps, loss

    def trained(self, *, steps: int, seconds: float, mean_loss: float) -> None:
        """Report a training that has ended well; the loss is in nats."""
        self.trained_steps, self.trained_seconds, self.mean_loss = steps, seconds, mean_loss

    def hold(self, published: PublishedAdapter) -> None:
        """Report a new adapter."""
        self.holding = published

    def fail(self, code: str, detail: str) -> None:
        """Report the error that a step has ended with."""
        self.phase = Phase.FAILED
        self.error = f"{code}: {detail}"
        self.failures[code if code in self.failures or len(self.failures) < MOST_CODES else "other"] += 1
        self._date_problem()

    def succeed(self) -> None:
        """Report that a step has ended well. Until one has, an error stays: also while what failed is tried again."""
        self.error = None
        self._date_problem()

    def retrying(self, problem: TransportError | None) -> None:
        """Report why a request is sent again and again, or that the coordinator has answered."""
        self.trouble = None if problem is None else f"{problem.code}: {problem}"
        self.answered_at = self.clock() if problem is None else self.answered_at
        self._date_problem()

    def _date_problem(self) -> None:
        if self.problem is None:
            self.problem_since = None
        elif self.problem_since is None:
            self.problem_since = self.clock()

    @property
    def problem(self) -> str | None:
        """What is wrong: a request that is sent again and again, or the error of the last step."""
        return self.trouble or self.error

    @property
    def unwell(self) -> str | None:
        """Why this agent takes no part, as far as it knows; a training is not judged before it has ended."""
        return self.problem or (None if self.answered else "the coordinator has not answered since the agent started")

    def view(self) -> "StatusView":
        """Return what the status page shows."""
        return StatusView(
            state_dir=self.state_dir,
            started_at=_time(self.started_at),
            answered_at=_time(self.answered_at),
            heard=self.heard,
            phase=self.phase,
            run_id=self.run_id,
            round=self.round,
            last_run_id=self.last_run_id,
            last_round=self.last_round,
            step=self.step,
            steps=self.steps,
            loss=self.loss,
            mean_loss=self.mean_loss,
            sent_bytes=self.sent.bytes,
            sent_requests=self.sent.requests,
            received_bytes=self.received_bytes,
            rounds_taken_part=self.rounds_taken_part,
            holding=self.holding,
            declined=tuple(reversed(self.declined.values())),
            error=self.problem,
            error_since=_time(self.problem_since),
            second_at=_time(self.second_at),
            audit_broken=self.audit_broken,
        )


class StatusView(BaseModel):
    """The status page's JSON; ``loss`` is the newest step's and ``mean_loss`` the last training's, in nats.

    ``run_id`` and ``round`` say for what it does something, or has failed; ``last_run_id`` and ``last_round`` for what
    it has trained or answered last. ``declined`` begins with the newest refusal.

    ``heard`` is what the coordinator has wanted when it was asked last; ``error_since`` is when things went wrong.

    ``second_at`` is when the coordinator has refused another process last that has this agent's key, within an hour.

    ``state_dir`` tells one agent of a machine from another. ``audit_broken`` says why the coordinator's audit log is
    not to be trusted, if this agent has seen that.
    """

    state_dir: Path | None
    started_at: AwareDatetime | None
    answered_at: AwareDatetime | None
    heard: str | None
    phase: Phase
    run_id: str | None
    round: int | None
    last_run_id: str | None
    last_round: int | None
    step: int
    steps: int
    loss: float | None
    mean_loss: float | None
    sent_bytes: int
    sent_requests: int
    received_bytes: int
    rounds_taken_part: int
    holding: PublishedAdapter | None
    declined: tuple[DeclinedRun, ...]
    error: str | None
    error_since: AwareDatetime | None
    second_at: AwareDatetime | None
    audit_broken: str | None
    model_config = FROZEN


def _in_words(wanted: Wanted) -> str:
    if wanted.summons is not None:
        place = wanted.summons.place
        return f"attempt {place.attempt} of round {place.round} of run {place.run_id} waits for it"
    if wanted.assignment is not None:
        return f"round {wanted.assignment.round} of run {wanted.assignment.run_id} waits for its update"
    return "nothing is wanted of it"


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
