"""An attempt of many agents whose masked vectors lie on the disk, with a stopwatch for each agent and the coordinator.

The agents' work is that of ``services.client_agent.attempts`` without its journal, each from the texts that would have
come over the wire; the coordinator's is that of ``services.coordinator``, from the blobs that it would have stored.
Agents take turns, so that memory does not grow with their number.
"""

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import psutil

from bench.exchange import attempt_terms
from services.coordinator.blobs import FileBlobs
from services.coordinator.records import Blob
from services.coordinator.unmasking import MaskedGroup, Unmasked, Unmasking
from shared.protocol.identity import IdentityKey, require_signature, to_text
from shared.protocol.membership import CERTIFICATE, MembershipCertificate, SignedCertificate, require_member
from shared.protocol.secagg.attempt import (
    Advert,
    AttemptTerms,
    Roster,
    Survivors,
    require_advert,
    require_dealers,
    require_roster,
    require_survivors,
    require_terms,
)
from shared.protocol.secagg.coding import (
    SLOTS,
    Statistics,
    Sum,
    clipped,
    decode_mean,
    encode,
    encode_statistics,
    signed,
)
from shared.protocol.secagg.masks import Ring
from shared.protocol.secagg.member import (
    announce,
    deal,
    mask,
    open_shares,
    require_consistent,
    shares_to_release,
    sign_survivors,
)
from shared.protocol.secagg.sealing import AttemptSecrets, Shares
from shared.protocol.secagg.unmasking import Released

OPERATOR = IdentityKey.generate()
NEVER_OVER = 2**40


@dataclass
class Stopwatch:
    """Adds up the seconds that it runs, and those of a processor's that this process was given meanwhile.

    On a busy machine the former depend on what else runs there, and the latter hardly do.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count what is done inside."""
        before, cpu_before = time.perf_counter(), time.process_time()
        yield
        self.cpu_seconds += time.process_time() - cpu_before
        self.seconds += time.perf_counter() - before

    @property
    def taken(self) -> tuple[float, float]:
        """Both."""
        return self.seconds, self.cpu_seconds


class Agent:
    """One member of an attempt; what each stage computes is on its watch."""

    def __init__(self, name: str, terms: AttemptTerms) -> None:
        self.name = name
        self.watch = Stopwatch()
        self._terms = terms
        self._identity = IdentityKey.generate()
        certificate = MembershipCertificate(
            federation=terms.federation, name=name, key=self._identity.public, not_after=NEVER_OVER
        )
        self.membership = SignedCertificate(certificate=certificate, signature=OPERATOR.sign(CERTIFICATE, certificate))
        self._shares: dict[str, Shares] = {}

    def keys(self) -> str:
        """Announce keys."""
        with self.watch.running():
            require_terms(self._terms)
            self._secrets = AttemptSecrets.generate()
            return announce(self._terms, self.name, self._identity, self._secrets).model_dump_json()

    def deal(self, roster: str, memberships: Collection[SignedCertificate]) -> dict[str, str]:
        """Check who the members are, and deal shares to them."""
        with self.watch.running():
            for each in memberships:
                require_member(each, operator_key=OPERATOR.public, federation=self._terms.federation, now=0)
            self._roster = Roster.model_validate_json(roster)
            require_roster(self._roster)
            sealed, self._shares[self.name] = deal(self._roster, self.name, self._secrets)
        return sealed

    def mask(self, update: Ring, sealed: dict[str, str]) -> Ring:
        """Mask an update that is coded, which takes it over."""
        with self.watch.running():
            self._sealed = sealed
            self._dealers = require_dealers(self._roster, sealed, me=self.name)
            mask(update, self._roster, self.name, self._secrets, dealers=self._dealers)
        return update

    def code(self, delta: np.ndarray) -> Ring:
        """Clip and code an update, as is done once when it is trained."""
        with self.watch.running():
            coded = encode(clipped(delta, self._terms.clip_norm), self._terms.coding, share=1, seed=1)
            return np.concatenate([coded, encode_statistics(Statistics(weight=1))])

    def confirm(self, survivors: tuple[str, ...]) -> str:
        """Open the others' shares, and sign the survivors."""
        with self.watch.running():
            self._survivors = require_survivors(self._roster, survivors, dealers=self._dealers, me=self.name)
            shares, unreadable = open_shares(self._roster, self.name, self._secrets, self._sealed)
            self._shares |= shares
            signature = sign_survivors(self._roster, self._identity, self._survivors)
        if unreadable:
            raise RuntimeError(f"{self.name} cannot read the shares of {unreadable}")
        return signature

    def release(self, signatures: dict[str, str]) -> Released:
        """Release one share of each member."""
        with self.watch.running():
            require_consistent(self._roster, self._survivors, signatures)
            return Released(*shares_to_release(self._shares, survivors=self._survivors, dealers=self._dealers))


@dataclass(frozen=True)
class Masked:
    """An attempt whose shares are released: what the coordinator has, what comes of it, and what it took until here."""

    group: MaskedGroup
    blobs: tuple[Blob, ...]
    expected: Sum
    agent: tuple[float, float]
    checking: Stopwatch


def masked_attempt(members: int, parameters: int, lost: int, blobs: FileBlobs) -> Masked:
    """Run an attempt of ``members`` agents up to the unmasking; ``lost`` of them fall silent with their vectors."""
    random = np.random.default_rng(members)
    names = [f"agent-{place:04}" for place in range(members)]
    terms = attempt_terms(members, parameters)
    agents = {name: Agent(name, terms) for name in names}
    checking = Stopwatch()
    texts = [agents[name].keys() for name in names]
    with checking.running():
        adverts = [Advert.model_validate_json(text) for text in texts]
        for advert in adverts:
            require_advert(terms, advert)
        roster = Roster(terms=terms, adverts=tuple(adverts))
        shown = roster.model_dump_json()
    memberships = [agent.membership for agent in agents.values()]
    dealt = {name: agents[name].deal(shown, memberships) for name in names}
    stored, expected = {}, np.zeros(parameters + SLOTS, dtype=np.int64)
    for name in names[lost:]:
        delta = random.standard_normal(parameters, dtype=np.float32) / np.float32(np.sqrt(parameters))
        update = agents[name].code(delta)
        expected += signed(update)
        sealed = {dealer: shares[name] for dealer, shares in dealt.items() if dealer != name}
        vector = agents[name].mask(update, sealed)
        stored[name] = blobs.put([vector.tobytes()], size=vector.nbytes)
    survivors = tuple(stored)
    signatures = {name: agents[name].confirm(survivors) for name in survivors}
    with checking.running():
        told = Survivors(context=to_text(roster.context), survivors=survivors)
        for name, signature in signatures.items():
            require_signature(roster.keys[name].identity, "survivors", told, signature, what=name)
    released = {name: agents[name].release(signatures) for name in survivors}
    group = MaskedGroup(roster, dealt, survivors, tuple(blobs.path(blob.digest) for blob in stored.values()), released)
    seconds, cpu_seconds = np.median([agents[name].watch.taken for name in survivors], axis=0).tolist()
    return Masked(group, tuple(stored.values()), expected, (seconds, cpu_seconds), checking)


def unmask(masked: Masked, blobs: FileBlobs, unmasking: Unmasking) -> Stopwatch:
    """Return what it takes from stored vectors and released shares to the mean, which is checked against the sum."""
    terms, parties = masked.group.roster.terms, len(masked.blobs)
    watch, in_children = Stopwatch(), _cpu_seconds_of_children()
    with watch.running():
        for blob in masked.blobs:
            blobs.require_intact(blob)
        unmasked = unmasking.total([masked.group])
        decode_mean(unmasked.total[:-SLOTS], terms.coding, parties=parties)
    watch.cpu_seconds += _cpu_seconds_of_children() - in_children
    require_exact(masked, unmasked)
    return watch


def _cpu_seconds_of_children() -> float:
    times = [child.cpu_times() for child in psutil.Process().children()]
    return sum(each.user + each.system for each in times)


def require_exact(masked: Masked, unmasked: Unmasked) -> None:
    """Raise unless a sum is that of the survivors' integers to the last bit, and nobody is said to be wrong."""
    if unmasked.wrong or not np.array_equal(unmasked.total, masked.expected):
        raise RuntimeError("the sum is not that of the survivors' vectors")
