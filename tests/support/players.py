"""Members of attempts that act on a coordinator without HTTP: honest ones, and any that a test bends."""

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from pydantic import BaseModel

from bench.federation import ManualClock, admit, key_of
from services.coordinator.context import Context
from services.coordinator.records import Round
from shared.errors import ProtocolError
from shared.protocol.attempts import (
    AttemptPlace,
    ConsistencyWanted,
    DealtShares,
    KeysWanted,
    MaskedWanted,
    ReleasedShares,
    SharesWanted,
    SignedSurvivors,
    Summons,
)
from shared.protocol.digests import digest_of
from shared.protocol.rounds import STAGES, RoundState
from shared.protocol.secagg.attempt import Advert, AttemptTerms, Roster
from shared.protocol.secagg.coding import Coding, Statistics, decode_mean, encode, encode_statistics, signed
from shared.protocol.secagg.masks import Ring
from shared.protocol.secagg.member import announce, deal, mask, open_shares, shares_to_release, sign_survivors
from shared.protocol.secagg.sealing import AttemptSecrets, Shares
from shared.protocol.terms import CohortTerms, MaskingTerms
from tests.support.federations import RUN

FOUR = ("ada", "bob", "cleo", "dan")
PARAMETERS = 14  # of ``SLM_LAYOUT``
STAGE_SECONDS = 5
SECURE = {
    "aggregation": "SecureAggregation",
    "cohort": CohortTerms(min_count=3, max_count=4, min_seconds=10, max_seconds=60),
    "masking": MaskingTerms(clip_norm=50.0, stage_seconds=STAGE_SECONDS),
}

NOTHING = Statistics()

Message: TypeAlias = BaseModel | bytes


@dataclass
class Player:
    """One member, with what it knows of its newest attempt."""

    name: str
    examples: int = 1
    statistics: Statistics = NOTHING
    secrets: AttemptSecrets = field(default_factory=AttemptSecrets.generate)
    own: Shares | None = None
    terms: AttemptTerms | None = None
    roster: Roster | None = None
    sealed: Mapping[str, str] = field(default_factory=dict)
    survivors: tuple[str, ...] = ()

    @property
    def delta(self) -> np.ndarray:
        """What its training has changed; another one for every name."""
        seed = int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:4], "big")
        return np.random.default_rng(seed).normal(size=PARAMETERS).astype(np.float32)

    def vector(self, terms: AttemptTerms) -> Ring:
        """What it adds to the sum."""
        if terms.content == "counts":
            return encode_statistics(Statistics(weight=2 * self.examples))
        share = self.examples / terms.total_count if terms.weighted else 1.0
        told = Statistics(**{**vars(self.statistics), "weight": self.examples if terms.weighted else 0})
        return np.concatenate([encode(self.delta, terms.coding, share=share, seed=1), encode_statistics(told)])

    def answer(self, summons: Summons) -> Message:
        """Return the message that the protocol wants."""
        match summons:
            case KeysWanted():
                self.secrets, self.terms = AttemptSecrets.generate(), summons.terms
                return announce(summons.terms, self.name, key_of(self.name), self.secrets)
            case SharesWanted():
                assert self.terms is not None
                self.roster = Roster(terms=self.terms, adverts=tuple(each.advert for each in summons.members))
                sealed, self.own = deal(self.roster, self.name, self.secrets)
                return DealtShares(sealed=sealed)
            case MaskedWanted():
                self.sealed = summons.sealed
                assert self.roster is not None
                vector = self.vector(self.roster.terms)
                mask(vector, self.roster, self.name, self.secrets, dealers=sorted({*self.sealed, self.name}))
                return vector.tobytes()
            case ConsistencyWanted():
                self.survivors = summons.survivors
                assert self.roster is not None
                _, unreadable = open_shares(self.roster, self.name, self.secrets, self.sealed)
                signature = sign_survivors(self.roster, key_of(self.name), self.survivors)
                return SignedSurvivors(signature=signature, unreadable=unreadable)
            case _:
                assert self.roster is not None
                assert self.own is not None
                shares, _ = open_shares(self.roster, self.name, self.secrets, self.sealed)
                own_masks, mask_secrets = shares_to_release(
                    {**shares, self.name: self.own},
                    survivors=self.survivors,
                    dealers={*self.sealed, self.name},
                )
                return ReleasedShares(own_masks=own_masks, mask_secrets=mask_secrets)


# What a player sends instead of its honest message; None for nothing.
Bend: TypeAlias = Callable[[Player, Message], Message | None]


def silent(_player: Player, _message: Message) -> None:
    """Send nothing."""


class Players:
    """Everybody of one run on one coordinator; ``bend`` says who sends something else at which stage."""

    def __init__(self, context: Context, clock: ManualClock, *everybody: Player) -> None:
        """Make them members; four honest ones if none are given."""
        self.context = context
        self.clock = clock
        self.all = {player.name: player for player in everybody or map(Player, FOUR)}
        self.bend: dict[tuple[str, str], Bend] = {}
        self.refused: list[tuple[str, str, str]] = []
        admit(context, self.all, clock)

    @property
    def round(self) -> Round:
        """The newest round."""
        with self.context.store.read() as tx:
            return tx.round(RUN, tx.run(RUN).round)

    def numbered(self, number: int) -> Round:
        """Return a round."""
        with self.context.store.read() as tx:
            return tx.round(RUN, number)

    def act(self, name: str) -> bool:
        """Let one do what is wanted of it; return whether it has sent something that was taken."""
        player, wanted = self.all[name], self.context.rounds.wanted(name)
        if wanted.assignment is not None and self.bend.get((name, "ready")) is not silent:
            self.context.attempts.ready(name, wanted.assignment.run_id, wanted.assignment.round)
            return True
        if wanted.summons is None:
            return False
        message: Message | None = player.answer(wanted.summons)
        if bend := self.bend.get((name, wanted.summons.stage)):
            message = bend(player, message)
        return message is not None and self.send(name, wanted.summons.place, wanted.summons.stage, message)

    def send(self, name: str, place: AttemptPlace, stage: str, message: Message) -> bool:
        """Send a message as the routes do, and return whether it was taken; a refusal is kept."""
        desk = self.context.attempts
        try:
            match stage, message:
                case "keys", Advert():
                    desk.announce(name, place, message)
                case "shares", DealtShares():
                    desk.deal(name, place, message)
                case "consistency", SignedSurvivors():
                    desk.confirm(name, place, message)
                case "unmasking", ReleasedShares():
                    desk.release(name, place, message)
                case _:
                    assert isinstance(message, bytes)
                    self._send_masked(name, place, message)
        except ProtocolError as error:
            self.refused.append((name, error.code, str(error)))
            return False
        return True

    def _send_masked(self, name: str, place: AttemptPlace, content: bytes) -> None:
        digest, desk = digest_of(content), self.context.attempts
        slot = desk.masked_slot(name, place, digest=digest, size=len(content))
        if slot is not None:
            with self.context.blobs.receive(size=len(content)) as incoming:
                desk.write(slot, incoming, content)
                desk.keep_masked(slot, incoming, digest=digest)

    def play(self, *, until: RoundState | None = None, attempt: int | None = None) -> Round:
        """Play until the round is in this state, in this attempt, or past its attempts; who waits lets time pass."""
        number = self.round.number
        for _ in range(100):
            before = self.numbered(number).version
            taken = False
            for name in (None, *self.all):
                current = self.numbered(number)
                there = current.state is until and attempt in {None, current.attempt}
                if there or current.state not in {RoundState.OPEN, *STAGES}:
                    return current
                if name is None:
                    self.context.rounds.reconcile()
                else:
                    taken |= self.act(name)
            if not taken and self.numbered(number).version == before:
                self.clock.advance(STAGE_SECONDS)
        raise TimeoutError(f"it goes on for ever: {self.numbered(number)}")

    def accused(self) -> dict[str, str]:
        """Return whom the audit log accuses, and of what."""
        page = self.context.audit.page(after=0, limit=500)
        return {line.actor: str(line.detail["reason"]) for line in page.entries if line.action == "attempt.accused"}

    def told(self, action: str) -> list[tuple[str, object]]:
        """Return the lines of the audit log with an action: who, and the detail."""
        page = self.context.audit.page(after=0, limit=500)
        return [(line.actor, line.detail) for line in page.entries if line.action == action]

    def mean(self, names: Collection[str]) -> np.ndarray:
        """Return the aggregate that updates of these players make, unweighted, to the last bit."""
        coding = Coding(50.0, 4, weighted=False)
        total = np.sum([signed(encode(self.all[name].delta, coding, share=1.0, seed=1)) for name in names], axis=0)
        return decode_mean(total, coding, parties=len(names))

    def aggregate(self, number: int = 1) -> np.ndarray:
        """Return the numbers of a round's aggregate; its adapter was zero."""
        current = self.numbered(number)
        assert current.aggregate is not None, current.reason
        return np.frombuffer(self.context.blobs.path(current.aggregate).read_bytes()[-4 * PARAMETERS :], dtype="<f4")
