"""Federations to look at: put into the store by its own transactions, as rounds would have, in no time.

States, events and audit lines are those of real runs; what was trained is not, and adapters hold a few numbers.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from math import exp, sqrt
from pathlib import Path
from typing import Any

from bench.federation import ManualClock, key_of, known_tokens
from bench.no_op import NO_MODEL, lora_of
from services.coordinator.context import Context, open_context
from services.coordinator.manifest import manifest_of
from services.coordinator.presets import preset_terms
from services.coordinator.progress import SYSTEM, evaluated, prepared, signed
from services.coordinator.records import Member, Round, Run
from services.coordinator.settings import Settings
from services.coordinator.tokens import Tokens
from services.coordinator.transaction import Transaction
from shared.protocol.manifest import MANIFEST
from shared.protocol.membership import CERTIFICATE, UNWILLING, MembershipCertificate, MemberState
from shared.protocol.messages import AgentsEvaluation, BaseScores, RoundScores, Score
from shared.protocol.rounds import RoundEvent, RunEvent
from shared.protocol.terms import RunTerms
from shared.protocol.work import PreparedModel, PrepareResult
from shared.release import release
from tests.support.federations import LLM_LAYOUT, SLM_LAYOUT, adapter

FEDERATION = "northern-clinics"
MORNING = datetime(2026, 11, 24, 6, 30, tzinfo=UTC).timestamp()
MEMBERS = ("bergen", "lund", "oulu", "tartu", "uppsala", "vilnius")
YEAR_SECONDS = 365 * 86_400
EXAMPLES, CHANCE = 1200, 0.25

# What follows on an open round until it is evaluated: the event, and how many seconds it took to come to it.
WAY = (
    (RoundEvent.GATHER, 512.0),
    (RoundEvent.DEAL, 0.6),
    (RoundEvent.MASK, 1.1),
    (RoundEvent.CONFIRM, 1.9),
    (RoundEvent.UNMASK, 0.7),
    (RoundEvent.AGGREGATE, 1.4),
    (RoundEvent.COTUNE, 0.3),
    (RoundEvent.EVALUATE, 147.0),
)


@contextmanager
def opened(folder: Path, clock: ManualClock, tokens: Tokens | None = None) -> Iterator[Context]:
    """Open a coordinator of the federation that is looked at; everybody's tokens are known unless others are."""
    made = Settings(
        data_dir=folder,
        principals_file=folder / "unused",
        federation=FEDERATION,
        operator_key=key_of("operator").public,
        requests_per_minute=1_000_000,  # a test looks faster than people do
        failures_per_minute=1_000_000,
    )
    with open_context(made, tokens or known_tokens(), clock) as context:
        yield context


@dataclass
class Player:
    """Plays runs in one transaction, on a clock that it moves."""

    context: Context
    tx: Transaction
    clock: ManualClock

    def blob(self, value: float, layout: dict[str, tuple[int, ...]]) -> str:
        """Keep an adapter whose numbers are all ``value``, and return its digest."""
        content = adapter(value, layout)
        kept = self.context.blobs.put([content], size=len(content))
        self.tx.insert_blob(kept)
        return kept.digest

    def begin(self, run_id: str, terms: RunTerms, *, with_signature: bool = True) -> Run:
        """Make a run, start it, prepare it and, unless that is what it waits for, sign it."""
        run = Run(run_id, terms, created_at=self.clock())
        self.tx.insert_run(run, actor="operator")
        self.clock.advance(40)
        run = self.tx.change_run(run, RunEvent.START, actor="operator")
        self.clock.advance(95)
        run = prepared(self.tx, run, self._prepared(terms))
        if with_signature:
            self.clock.advance(130)
            signature = key_of("operator").sign(MANIFEST, manifest_of(run, federation=FEDERATION))
            run = signed(self.tx, run, signature, self.clock(), actor="operator")
        return run

    def round(self, run: Run, value: float, *, scores: RoundScores, accepted: int = 6) -> Run:
        """Play the open round of a run to its end, which the gate decides."""
        current = self.to_evaluating(run, value, accepted=accepted)
        self.clock.advance(64)
        return evaluated(self.tx, run, current, scores, self.clock())

    def to_evaluating(self, run: Run, value: float, *, accepted: int = 6) -> Round:
        """Play the open round of a run until its candidates are being evaluated."""
        current = self.ready(run, accepted)
        told = score(0.97 * scores_after(self.tx.published_count(run.id)).slm.accuracy)
        for event, seconds in WAY:
            self.clock.advance(seconds * (1 + 0.08 * (run.round % 4)))
            changes: dict[str, Any] = {}
            if event is RoundEvent.GATHER:
                changes = {"attempt": 1}
            if event is RoundEvent.AGGREGATE:
                changes = {
                    "aggregate": self.blob(value, SLM_LAYOUT),
                    "error_bound": 3.2e-7,
                    "evaluation": AgentsEvaluation(examples=accepted * 40, accuracy=told.accuracy, loss=told.loss),
                }
            if event is RoundEvent.EVALUATE:
                changes = {
                    "slm_candidate": self.blob(value + 0.5, SLM_LAYOUT),
                    "llm_candidate": self.blob(value + 0.5, LLM_LAYOUT),
                }
            current = self.tx.change_round(current, event, actor=SYSTEM, **changes)
        return current

    def ready(self, run: Run, count: int) -> Round:
        """Let so many agents be ready for the open round of a run."""
        current = self.tx.round(run.id, run.round)
        for number in range(1, count + 1):
            self.clock.advance(31)
            name = MEMBERS[(number - 1) % len(MEMBERS)]
            current = self.tx.change_round(current, actor=name, accepted=number)
            self.tx.note(run.id, run.round, "update.ready", name, {"ready": number})
        return current

    def _prepared(self, terms: RunTerms) -> PrepareResult:
        return PrepareResult(
            tokenizer_digest=NO_MODEL,
            slm=PreparedModel(
                base_digest=NO_MODEL,
                adapter=self.blob(0, SLM_LAYOUT),
                layout=SLM_LAYOUT,
                adapter_config=lora_of(SLM_LAYOUT, terms.slm_lora),
                licence="apache-2.0",
            ),
            llm=PreparedModel(
                base_digest=NO_MODEL,
                adapter=self.blob(0, LLM_LAYOUT),
                layout=LLM_LAYOUT,
                adapter_config=lora_of(LLM_LAYOUT, terms.llm_lora),
                licence="apache-2.0",
            ),
            scores=BaseScores(slm=score(0.312), llm=score(0.548)),
        )


def score(accuracy: float) -> Score:
    """Return a score with this accuracy, and with a loss and an interval that go with it."""
    half = 1.96 * sqrt(accuracy * (1 - accuracy) / EXAMPLES)
    return Score(
        accuracy=round(accuracy, 4),
        loss=round(1.9 - 1.6 * accuracy, 4),
        examples=EXAMPLES,
        chance=CHANCE,
        interval=(round(accuracy - half, 4), round(accuracy + half, 4)),
    )


def scores_after(published: float) -> RoundScores:
    """Return what models score that have learnt for so many rounds."""
    learnt = 1 - exp(-published / 2.5)
    return RoundScores(
        slm_aggregated=score(0.312 + 0.29 * learnt), slm=score(0.312 + 0.34 * learnt), llm=score(0.548 + 0.19 * learnt)
    )


def member(name: str, state: MemberState, now: float) -> Member:
    """Return an agent that has come so far."""
    key = key_of(name)
    invited = Member(name, created_at=now, changed_at=now, state=state, invitation_expires_at=int(now) + 86_400)
    if state is MemberState.INVITED:
        return invited
    fields = {"name": name, "created_at": now, "changed_at": now, "state": state, "key": key.public}
    if state is MemberState.PENDING:
        return Member(**fields, invitation_expires_at=int(now) + 86_400)
    certificate = MembershipCertificate(
        federation=FEDERATION, name=name, key=key.public, not_after=int(now) + YEAR_SECONDS
    )
    return Member(
        **fields, not_after=certificate.not_after, signature=key_of("operator").sign(CERTIFICATE, certificate)
    )


def terms_of(name: str, *, rounds: int = 8) -> RunTerms:
    """Return a run's terms: of six agents, four are enough."""
    cohort = {"min_count": 4, "max_count": 6, "min_seconds": 600, "max_seconds": 7200}
    terms = preset_terms("smollm2", rounds=rounds, cohort=cohort, evaluation_examples=40)
    return RunTerms.model_validate({**terms.model_dump(), "name": name})


def playing(context: Context, clock: ManualClock, play: Callable[[Player], None]) -> None:
    """Play in one transaction."""
    with context.store.write() as tx:
        play(Player(context, tx, clock))


def small(context: Context, clock: ManualClock) -> None:
    """Make a federation of nine agents, with a run in each state; ``triage-2`` is in its fifth round."""
    states = dict.fromkeys(MEMBERS, MemberState.APPROVED) | {
        "aarhus": MemberState.INVITED,
        "riga": MemberState.PENDING,
        "kiel": MemberState.REVOKED,
    }

    def play(player: Player) -> None:
        for name, state in states.items():
            clock.advance(240)
            player.tx.members.insert(member(name, state, clock()), actor="operator")
        _finished(player)
        _failed(player)
        _stopped(player)
        _paused(player)
        player.begin("letters-1", terms_of("discharge letters"), with_signature=False)
        clock.advance(60)
        player.tx.insert_run(Run("letters-2", terms_of("longer letters"), created_at=clock()), actor="operator")
        _live(player)

    playing(context, clock, play)
    for name in MEMBERS[:5]:
        declines = {"letters-1": UNWILLING} if name == "oulu" else {}
        context.presence.agent_asks(name, version="0.0.9" if name == "lund" else release(), declines=declines)
        clock.advance(2)
    context.presence.worker_asks("worker", "gpu-1", version=release())
    clock.advance(3)


def _finished(player: Player) -> None:
    run = player.begin("triage-1", terms_of("triage of referrals"))
    for number in range(1, 9):
        run = player.round(run, number, scores=scores_after(number), accepted=6 if number % 3 else 5)
        if number == 4:  # one that the gate refuses
            run = player.round(run, 40, scores=scores_after(1.2))


def _failed(player: Player) -> None:
    run = player.begin("coding-1", terms_of("coding of diagnoses"))
    run = player.round(run, 61, scores=scores_after(2))
    for value in (62, 63, 64):
        run = player.round(run, value, scores=scores_after(0.4))


def _stopped(player: Player) -> None:
    run = player.begin("coding-2", terms_of("coding again"))
    player.ready(run, 3)
    run = player.tx.run(run.id)
    current = player.tx.round(run.id, run.round)
    reason = "stopped: the auxiliary set was last year's"
    player.tx.change_round(current, RoundEvent.ABORT, actor="operator", detail={"reason": reason}, reason=reason)
    player.tx.change_run(run, RunEvent.FAIL, actor="operator", detail={"reason": reason}, reason=reason)


def _paused(player: Player) -> None:
    run = player.begin("triage-night", terms_of("triage at night"))
    run = player.round(run, 81, scores=scores_after(1))
    player.clock.advance(300)
    player.tx.change_run(run, RunEvent.PAUSE, actor="operator")


def _live(player: Player) -> None:
    run = player.begin("triage-2", terms_of("triage of all wards"))
    for number in range(1, 5):
        run = player.round(run, 20 + number, scores=scores_after(number + 1))
    player.ready(run, 4)
    player.clock.advance(45)


def large(context: Context, clock: ManualClock, *, rounds: int = 200, agents: int = 1000) -> None:
    """Make a federation of many agents, with one run of many rounds; every tenth round was refused."""

    def play(player: Player) -> None:
        for number in range(agents):
            player.tx.members.insert(member(f"agent-{number:04}", MemberState.APPROVED, clock()), actor="operator")
        run = player.begin("long", terms_of("a long run", rounds=rounds))
        for number in range(1, rounds):
            value = 0.1 if number % 10 == 0 else 1 + number / 20
            run = player.round(run, number, scores=scores_after(value), accepted=2)

    playing(context, clock, play)
    for number in range(agents):
        context.presence.agent_asks(f"agent-{number:04}", version=release(), declines={})
