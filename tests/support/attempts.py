"""One agent, ada, in an attempt with three others, and a coordinator that says whatever a test likes.

The others and the coordinator keep the protocol where the test does not bend it. Nothing is sent over a wire: what ada
would send is kept in ``sent``.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from bench.exchange import Member, deal_from
from bench.federation import FEDERATION, ManualClock, key_of
from services.client_agent.attempts import AttemptMember, Standing
from services.client_agent.policy import Policy
from services.client_agent.state import StateFolder, StoredUpdate
from shared.protocol.attempts import (
    AttemptPlace,
    ConsistencyWanted,
    DealtShares,
    Enlisted,
    KeysWanted,
    MaskedWanted,
    ReleasedShares,
    SharesWanted,
    SignedSurvivors,
    Summons,
    UnmaskingWanted,
)
from shared.protocol.digests import digest_of
from shared.protocol.secagg.attempt import Advert, AttemptTerms, Roster
from shared.protocol.secagg.member import announce, sign_survivors
from tests.support.members import certificate

ME, OTHERS = "ada", ("bob", "cleo", "dan")
NAMES = (ME, *OTHERS)
RUN = "run"
DEFAULT = Policy()
STAGES = ("keys", "shares", "masked", "consistency", "unmasking")

TERMS = AttemptTerms(
    federation=FEDERATION,
    run_id=RUN,
    round=1,
    attempt=1,
    group=0,
    content="updates",
    manifest=digest_of(b"manifest"),
    base_model=digest_of(b"base model"),
    adapter=digest_of(b"adapter"),
    layout=digest_of(b"layout"),
    parameters=14,
    clip_norm=50.0,
    fewest_parties=3,
    most_parties=4,
    weighted=False,
    members=4,
    threshold=3,
)


@dataclass
class Outbox:
    """What would have left ada's machine, in order: the stage, and the message or the vector's bytes."""

    sent: list[tuple[str, BaseModel | bytes]] = field(default_factory=list)

    async def announce(self, _place: AttemptPlace, advert: Advert) -> None:
        """Keep keys."""
        self.sent.append(("keys", advert))

    async def deal(self, _place: AttemptPlace, dealt: DealtShares) -> None:
        """Keep sealed shares."""
        self.sent.append(("shares", dealt))

    async def send_masked(self, _place: AttemptPlace, vector: Path, *, digest: str) -> None:
        """Keep the masked vector."""
        content = vector.read_bytes()
        assert digest_of(content) == digest
        self.sent.append(("masked", content))

    async def confirm(self, _place: AttemptPlace, signed: SignedSurvivors) -> None:
        """Keep a signature."""
        self.sent.append(("consistency", signed))

    async def release(self, _place: AttemptPlace, released: ReleasedShares) -> None:
        """Keep released shares."""
        self.sent.append(("unmasking", released))

    def last(self, stage: str) -> BaseModel | bytes:
        """Return what was sent last at a stage."""
        return next(message for at, message in reversed(self.sent) if at == stage)


class Play:
    """An attempt, as far as it has come; ``terms`` may be other ones for the next."""

    def __init__(self, folder: Path, *, policy: Policy = DEFAULT, terms: AttemptTerms = TERMS) -> None:
        """Ada has trained an update for ``terms``, and is on ``folder``."""
        self.folder = folder
        self.policy = policy
        self.terms = terms
        self.clock = ManualClock()
        self.outbox = Outbox()
        self.others = {name: Member(name, key_of(name)) for name in OTHERS}
        self._sealed: dict[str, str] = {}
        self.restart()
        self.train()

    def restart(self) -> None:
        """End ada's process, and start another on her folder."""
        self.state = StateFolder(self.folder)
        standing = Standing(ME, key_of(ME), FEDERATION, key_of("operator").public)
        self.member = AttemptMember(self.outbox, self.state, self.policy, standing, clock=self.clock)

    def train(self, *, examples: int = 9, blinded_count: int = 12) -> StoredUpdate:
        """Have an update for the terms, as ada would have trained it."""
        terms = self.terms
        file = self.state.update_file(terms.run_id, terms.round)
        file.write_bytes(b"an update")
        update = StoredUpdate(
            **terms.model_dump(include={"run_id", "round", "manifest", "base_model", "adapter", "layout"}),
            clip_norm=terms.clip_norm,
            fewest_parties=terms.fewest_parties,
            most_parties=terms.most_parties,
            weighted=terms.weighted,
            seed=1,
            digest=digest_of(b"an update"),
            examples=examples,
            blinded_count=blinded_count,
        )
        return self.state.keep_update(update, np.linspace(-1, 1, 14, dtype=np.float32))

    def next_attempt(self, **changes: object) -> None:
        """Let the coordinator open another attempt, for which the others have fresh keys."""
        self.terms = self.terms.model_copy(update={"attempt": self.terms.attempt + 1, **changes})
        self.others = {name: Member(name, key_of(name)) for name in OTHERS}
        self._sealed = {}

    # --- what a coordinator that keeps the protocol says --------------------------------------------------------

    @property
    def place(self) -> AttemptPlace:
        """Which attempt it is."""
        return AttemptPlace(**self.terms.model_dump(include={"run_id", "round", "attempt"}))

    @property
    def sent(self) -> list[tuple[str, BaseModel | bytes]]:
        """What has left."""
        return self.outbox.sent

    @property
    def roster(self) -> Roster:
        """The members with their keys."""
        mine = self.outbox.last("keys")
        assert isinstance(mine, Advert)
        theirs = [announce(self.terms, each.name, each.identity, each.secrets) for each in self.others.values()]
        return Roster(terms=self.terms, adverts=(mine, *theirs))

    def keys(self) -> KeysWanted:
        """Open the attempt."""
        return KeysWanted(place=self.place, terms=self.terms)

    def shares(self) -> SharesWanted:
        """Show the members."""
        members = [enlisted(advert) for advert in self.roster.adverts]
        return SharesWanted(place=self.place, members=tuple(members))

    def masked(self) -> MaskedWanted:
        """Hand on what the others have sealed for ada."""
        if not self._sealed:
            self._sealed = {name: deal_from(self.roster, each)[ME] for name, each in self.others.items()}
        return MaskedWanted(place=self.place, sealed=self._sealed)

    def consistency(self) -> ConsistencyWanted:
        """Say that nobody was lost."""
        return ConsistencyWanted(place=self.place, survivors=NAMES)

    def unmasking(self, survivors: tuple[str, ...] = NAMES) -> UnmaskingWanted:
        """Show what everybody has signed."""
        return UnmaskingWanted(place=self.place, signatures=self.signed(survivors, by=survivors))

    def signed(self, survivors: tuple[str, ...], by: tuple[str, ...] = NAMES) -> dict[str, str]:
        """Return signatures of members over survivors; the coordinator has none of their keys, so these are theirs."""
        return {name: sign_survivors(self.roster, key_of(name), survivors) for name in by}

    def wanted(self, stage: str) -> Summons:
        """Return what is wanted at a stage."""
        summons: Summons = getattr(self, stage)()
        return summons

    async def until(self, stage: str) -> Summons:
        """Play the stages before this one, and return what a coordinator that keeps the protocol wants at it."""
        for before in STAGES[: STAGES.index(stage)]:
            await self.member.answer(self.wanted(before))
        return self.wanted(stage)

    async def to_the_end(self) -> ReleasedShares:
        """Play all stages, and return what ada has released."""
        await self.member.answer(await self.until("unmasking"))
        released = self.outbox.last("unmasking")
        assert isinstance(released, ReleasedShares)
        return released


def enlisted(advert: Advert) -> Enlisted:
    """Return a member as the others are shown it."""
    return Enlisted(advert=advert, membership=certificate(advert.keys.agent, advert.keys.identity))
