"""The stages of an attempt: who must still answer, when a stage closes, and what follows (docs/secure-aggregation.md).

Each function is one step inside a transaction. A stage closes when everybody who is expected has answered, or when its
time is over and enough have; what happened before anything is unmasked can be done again with fresh keys.
"""

import math
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from services.coordinator.disputes import in_dispute, sharing_keys
from services.coordinator.manifest import manifest_of
from services.coordinator.progress import SYSTEM, came_to_nothing
from services.coordinator.records import Attempt, Detail, Round, Run
from services.coordinator.transaction import Transaction
from shared.protocol.attempts import SignedSurvivors
from shared.protocol.manifest import manifest_digest
from shared.protocol.rounds import STAGES, RoundEvent, RoundState
from shared.protocol.secagg.attempt import (
    Advert,
    AttemptTerms,
    Content,
    Roster,
    fewest_parties,
    layout_digest,
    threshold_of,
)
from shared.protocol.tensors import parameter_count

# An attempt that fails this often in one round does so for a reason that another one does not mend.
MOST_ATTEMPTS = 5

NOBODY: Mapping[str, str] = MappingProxyType({})

_RANDOM = secrets.SystemRandom()


@dataclass(frozen=True)
class Answers:
    """Who of an attempt has answered the stage that it is at, in the order of their names."""

    attempt: Attempt
    names: tuple[str, ...]


def dismiss(tx: Transaction, current: Round) -> Round:
    """Forget that agents were ready that are no members any more: their messages would not come."""
    former = tx.attempts.ready_but_gone(current)
    for agent in former:
        tx.attempts.remove_ready(current, agent)
    return tx.change_round(current, actor=SYSTEM, accepted=current.accepted - len(former)) if former else current


def gather(tx: Transaction, run: Run, current: Round, *, federation: str) -> Round:
    """Open an attempt among the agents that are ready, in random groups where they are more than one can have."""
    ready = tx.attempts.ready(current)
    groups = _groups(ready, run.terms.cohort.group_size)
    return _open(tx, run, current, RoundEvent.GATHER, groups=groups, federation=federation)


def weigh(tx: Transaction, run: Run, current: Round, *, total_count: int, federation: str) -> Round:
    """Open the attempt whose updates are weighted by counts that are now known, among those who have unmasked these.

    An agent that has not released shares cannot know that its count is in a sum, and would refuse.
    """
    released = tx.attempts.senders(current, RoundState.UNMASKING)
    groups = [[name for name in attempt.survivors or () if name in released] for attempt in tx.attempts.of(current)]
    for agent in set(tx.attempts.ready(current)).difference(*groups):
        tx.attempts.remove_ready(current, agent)
    return _open(tx, run, current, RoundEvent.WEIGH, groups=groups, federation=federation, total_count=total_count)


def close(tx: Transaction, run: Run, current: Round, now: float) -> bool:
    """Close the stage that a round is at, if that is to be; return whether its sum can be unmasked now."""
    stage, senders = current.state, tx.attempts.senders(current, current.state)
    answers = [
        Answers(attempt, tuple(name for name in expected(attempt, stage) if name in senders))
        for attempt in tx.attempts.of(current)
    ]
    silent = [name for each in answers for name in expected(each.attempt, stage) if name not in senders]
    if stage is RoundState.SHARES and (former := unshown(tx, *(each.attempt for each in answers))):
        gone = f"at the stage {stage} {len(former)} of its members were members no more"
        _fail(tx, run, current, now=now, silent=former, reason=gone)
        return False
    awaited = set(silent).intersection(tx.attempts.ready(current))  # whoever has left is not
    if awaited and now - current.since < run.terms.masking.stage_seconds:
        return False
    if (reason := _too_few(run, stage, answers)) is not None:
        _fail(tx, run, current, now=now, silent=silent, reason=reason)
        return False
    if stage is RoundState.UNMASKING:
        return True
    read = () if stage in {RoundState.SHARES, RoundState.MASKED} else senders  # of those, who has sent is enough
    messages = tx.attempts.messages(current, stage, read)
    if accused := _accused(stage, answers, messages):
        reason = f"at the stage {stage} {len(accused)} of its members were barred"
        _fail(tx, run, current, now=now, silent=silent, barred=accused, reason=reason)
        return False
    _go_on(tx, current, answers, messages, lost=len(silent))
    return False


def expected(attempt: Attempt, stage: RoundState) -> Sequence[str]:
    """Return whose message a stage of an attempt waits for."""
    roster = () if attempt.roster is None else tuple(attempt.roster.holders)
    whose = (attempt.members, roster, attempt.dealers, attempt.survivors, attempt.signers)
    return dict(zip(STAGES, whose, strict=True))[stage] or ()


def unshown(tx: Transaction, *attempts: Attempt) -> list[str]:
    """Return who of those that have announced keys can be shown to nobody, being no member any more.

    Every key of the roster is in the context, so that an attempt cannot go on without one. Once all have seen it,
    whoever is a member no more is silent, as others may be.
    """
    return tx.members.former([name for attempt in attempts for name in expected(attempt, RoundState.SHARES)])


def _too_few(run: Run, stage: RoundState, answers: Sequence[Answers]) -> str | None:
    """Return why a stage that waits no longer cannot be gone on from, if that is so.

    Agents refuse what is too few for a sum before they sign the survivors of it. Who is lost after that is in the sum;
    but whoever has not unmasked a sum of counts is not in the attempt that follows, which must be enough for a sum too.
    """
    there, min_count = sum(len(each.names) for each in answers), run.terms.cohort.min_count
    counts = answers[0].attempt.terms.content == "counts"
    gathers = counts or stage in {RoundState.KEYS, RoundState.SHARES, RoundState.MASKED}
    for attempt, names in ((each.attempt, each.names) for each in answers):
        needed = attempt.terms.smallest_sum if gathers else attempt.terms.threshold
        if len(names) < needed:
            asked = len(expected(attempt, stage))
            return f"at the stage {stage} {len(names)} of {asked} answered, and {needed} are needed"
    if gathers and there < min_count:
        return f"at the stage {stage} {there} answered in all groups, and the cohort's min_count is {min_count}"
    return None


def _go_on(
    tx: Transaction, current: Round, answers: Sequence[Answers], messages: Mapping[str, str], *, lost: int
) -> None:
    """Note who has answered a stage, and begin the next."""
    event = {
        RoundState.KEYS: RoundEvent.DEAL,
        RoundState.SHARES: RoundEvent.MASK,
        RoundState.MASKED: RoundEvent.CONFIRM,
        RoundState.CONSISTENCY: RoundEvent.UNMASK,
    }[current.state]
    tx.change_round(current, event, actor=SYSTEM, detail={"attempt": current.attempt, "lost": lost})
    for attempt, names in ((each.attempt, each.names) for each in answers):
        match current.state:
            case RoundState.KEYS:
                adverts = tuple(Advert.model_validate_json(messages[name]) for name in sorted(names))
                tx.attempts.change(attempt, roster=Roster(terms=attempt.terms, adverts=adverts))
            case RoundState.SHARES:
                tx.attempts.change(attempt, dealers=names)
            case RoundState.MASKED:
                tx.attempts.change(attempt, survivors=names)
                _audit(tx, attempt, "attempt.masked", {"survivors": list(names)})
            case _:
                tx.attempts.change(attempt, signers=names)


def _accused(stage: RoundState, answers: Sequence[Answers], messages: Mapping[str, str]) -> dict[str, str]:
    """Return the members with whom an attempt cannot go on after a stage, and what is held against each."""
    accused: dict[str, str] = {}
    for attempt, names in ((each.attempt, each.names) for each in answers):
        if stage is RoundState.KEYS:
            accused |= sharing_keys(Advert.model_validate_json(messages[name]) for name in names)
        if stage is RoundState.CONSISTENCY:
            unreadable = {name: SignedSurvivors.model_validate_json(messages[name]).unreadable for name in names}
            accused |= in_dispute(attempt.dealers or (), unreadable, threshold=attempt.terms.threshold)
    return accused


def accuse(tx: Transaction, current: Round, agent: str, reason: str) -> None:
    """Log what is held against a member, and count it as a message that was refused."""
    tx.count(current, "refused")
    tx.note(current.run_id, current.number, "attempt.accused", agent, {"reason": reason})


def _fail(
    tx: Transaction,
    run: Run,
    current: Round,
    *,
    now: float,
    silent: Collection[str],
    reason: str,
    barred: Mapping[str, str] = NOBODY,
) -> None:
    """End an attempt: back to the open round where nothing was unmasked yet, and else the round comes to nothing."""
    for agent, why in barred.items():
        accuse(tx, current, agent, why)
    if current.state is RoundState.UNMASKING or current.attempt >= MOST_ATTEMPTS:
        came_to_nothing(tx, run, current, RoundEvent.ABORT, reason, now=now)
        return
    for agent in set(silent) - barred.keys():
        tx.attempts.remove_ready(current, agent)  # if it is there again, it says so
    for agent, why in barred.items():
        tx.attempts.bar(current, agent, why)
    tx.change_round(
        current,
        RoundEvent.RETRY,
        actor=SYSTEM,
        detail={"attempt": current.attempt, "reason": reason},
        accepted=len(tx.attempts.ready(current)),
    )


def _open(
    tx: Transaction,
    run: Run,
    current: Round,
    event: RoundEvent,
    *,
    groups: Sequence[Sequence[str]],
    federation: str,
    total_count: int | None = None,
) -> Round:
    number, members = current.attempt + 1, sum(map(len, groups))
    total_count = current.total_count if total_count is None else total_count
    detail = {"attempt": number, "members": members, "groups": len(groups)}
    current = tx.change_round(
        current, event, actor=SYSTEM, detail=dict(detail), attempt=number, accepted=members, total_count=total_count
    )
    for group, names in enumerate(groups):
        terms = _terms(run, current, group, members=len(names), federation=federation)
        attempt = Attempt(run.id, current.number, number, group, terms, tuple(sorted(names)))
        tx.attempts.insert(attempt)
        _audit(tx, attempt, "attempt.opened", {"members": list(attempt.members), "threshold": terms.threshold})
    return current


def _audit(tx: Transaction, attempt: Attempt, action: str, detail: Detail) -> None:
    """Log who is in an attempt; a run's events, which everybody may see, say how many."""
    subject = f"run/{attempt.run_id}/round/{attempt.round}/attempt/{attempt.number}"
    tx.audit.append(SYSTEM, action, subject, {"group": attempt.group, **detail})


def _terms(run: Run, current: Round, group: int, *, members: int, federation: str) -> AttemptTerms:
    manifest, weighted = manifest_of(run, federation=federation), run.terms.weighting == "examples"
    content: Content = "counts" if weighted and current.total_count is None else "updates"
    return AttemptTerms(
        federation=federation,
        run_id=run.id,
        round=current.number,
        attempt=current.attempt,
        group=group,
        content=content,
        manifest=manifest_digest(manifest),
        base_model=manifest.slm_digest,
        adapter=current.slm_adapter,
        layout=layout_digest(manifest.layout),
        parameters=parameter_count(manifest.layout) if content == "updates" else 0,
        clip_norm=manifest.masking.clip_norm,
        fewest_parties=fewest_parties(manifest.cohort),
        most_parties=manifest.cohort.group_size,
        weighted=weighted,
        total_count=current.total_count or 0,
        members=members,
        threshold=threshold_of(members),
    )


def _groups(agents: Sequence[str], size: int) -> list[list[str]]:
    """Return the agents in random groups of at most ``size``, as even as can be; one group where that is enough."""
    count = math.ceil(len(agents) / size)
    drawn = _RANDOM.sample(agents, len(agents))
    return [drawn[place::count] for place in range(count)]
