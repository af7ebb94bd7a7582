"""This agent's part in attempts: each summons is checked, answered, and kept before the answer leaves.

What the coordinator shows is taken for what a hostile one would show (docs/secure-aggregation.md, "What an agent
refuses"): an answer leaves only where the masks still hide this agent's update.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from services.client_agent.attempt_journal import AttemptRecord, StoredSecrets, StoredShares
from services.client_agent.coordinator_client import CoordinatorClient
from services.client_agent.policy import Policy
from services.client_agent.state import StateFolder, StoredUpdate
from shared.errors import AttemptRefused
from shared.folders import is_whole, write_whole
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
    UnmaskingWanted,
)
from shared.protocol.digests import digest_of
from shared.protocol.identity import IdentityKey
from shared.protocol.membership import require_member
from shared.protocol.secagg.attempt import (
    AttemptTerms,
    Roster,
    require_dealers,
    require_roster,
    require_survivors,
    require_terms,
)
from shared.protocol.secagg.member import (
    announce,
    deal,
    mask,
    open_shares,
    require_consistent,
    shares_to_release,
    sign_survivors,
)
from shared.protocol.secagg.sealing import AttemptSecrets

log = structlog.get_logger()


@dataclass(frozen=True)
class Standing:
    """Who this agent is in its federation, and by which key it knows the operator of that."""

    name: str
    key: IdentityKey
    federation: str
    operator_key: str


class AttemptMember:
    """A member of attempts, one after the other."""

    def __init__(
        self,
        coordinator: CoordinatorClient,
        state: StateFolder,
        policy: Policy,
        standing: Standing,
        *,
        clock: Callable[[], float],
    ) -> None:
        """``clock`` gives the seconds since 1970, by which certificates are over."""
        self._coordinator = coordinator
        self._state = state
        self._journal = state.journal
        self._policy = policy
        self._standing = standing
        self._clock = clock

    async def answer(self, summons: Summons) -> None:
        """Answer one stage of an attempt.

        Raises:
            AttemptRefused, SignatureInvalid, CertificateExpired, FederationMismatch: what was shown could undo the
                masks; nothing is sent.
            PolicyRefused: this agent's own policy says no.
        """
        place = summons.place
        match summons:
            case KeysWanted():
                record = self._announced(place, summons.terms)
                await self._coordinator.announce(place, record.advert)
            case SharesWanted():
                record = await asyncio.to_thread(self._dealt, place, summons)
                await self._coordinator.deal(place, DealtShares(sealed=record.dealt or {}))
            case MaskedWanted():
                record = await asyncio.to_thread(self._masked, place, summons)
                await self._coordinator.send_masked(place, self._journal.vector(place), digest=str(record.masked))
            case ConsistencyWanted():
                await self._coordinator.confirm(place, self._confirmed(place, summons))
            case UnmaskingWanted():
                await self._coordinator.release(place, self._released(place, summons))
                log.info("agent.unmasked", run_id=place.run_id, round=place.round, attempt=place.attempt)

    # --- a stage each -------------------------------------------------------------------------------------------

    def _announced(self, place: AttemptPlace, terms: AttemptTerms) -> AttemptRecord:
        """Make keys for an attempt that fits what this agent has trained; those of the attempt before are gone then."""
        self._require_fitting(place, terms)
        record = self._journal.find(place.run_id, place.round)
        if record is not None and record.terms.attempt == place.attempt:
            _require_same(record.terms, terms, "terms", terms)
            return record
        if record is not None and record.terms.attempt > place.attempt:
            raise AttemptRefused(
                f"{terms.label} is over: this agent has announced keys for attempt {record.terms.attempt}"
            )
        require_terms(terms)
        self._policy.require_attempt(terms)
        secrets = AttemptSecrets.generate()
        advert = announce(terms, self._standing.name, self._standing.key, secrets)
        return self._journal.keep(AttemptRecord(terms=terms, advert=advert, secrets=StoredSecrets.of(secrets)))

    def _dealt(self, place: AttemptPlace, wanted: SharesWanted) -> AttemptRecord:
        """Deal shares of this attempt's secrets to members that the operator has certified."""
        record = self._journal.get(place)
        secrets = _secrets(record)
        roster = Roster(terms=record.terms, adverts=tuple(each.advert for each in wanted.members))
        if record.roster is not None:
            _require_same(record.roster, roster, "members", record.terms)
            return record
        self._require_members(record, roster, wanted)
        # Certified or not: whether these organisations exist is for people to see.
        members = ", ".join(sorted(roster.holders))
        log.info("agent.masks", run_id=place.run_id, round=place.round, attempt=place.attempt, members=members)
        sealed, own = deal(roster, self._standing.name, secrets)
        changes = {"roster": roster, "dealt": sealed, "shares": {self._standing.name: StoredShares.of(own)}}
        return self._journal.keep(record.model_copy(update=changes))

    def _masked(self, place: AttemptPlace, wanted: MaskedWanted) -> AttemptRecord:
        """Mask the update, once; the same vector is sent again for as long as it is asked for."""
        record = self._journal.get(place)
        secrets = _secrets(record)
        file = self._journal.vector(place)
        if record.masked is not None:
            _require_same(record.sealed, wanted.sealed, "sealed shares", record.terms)
            if not is_whole(file, record.masked):
                raise AttemptRefused(f"the masked vector of {record.terms.label} was damaged, and no other may be made")
            return record
        roster, me = _roster(record), self._standing.name
        dealers = require_dealers(roster, wanted.sealed, me=me)
        self._policy.require_cohort(len(dealers), record.terms)
        vector = self._state.coded_vector(self._require_fitting(place, record.terms), record.terms)
        mask(vector, roster, me, secrets, dealers=dealers)
        content = vector.tobytes()
        write_whole(file, content)
        changes = {"sealed": wanted.sealed, "masked": digest_of(content)}
        return self._journal.keep(record.model_copy(update=changes))

    def _confirmed(self, place: AttemptPlace, wanted: ConsistencyWanted) -> SignedSurvivors:
        """Sign the survivors that this agent was told first."""
        record = self._journal.get(place)
        if record.confirmed is not None:
            _require_same(record.survivors, wanted.survivors, "survivors", record.terms)
            return record.confirmed
        roster, me = _roster(record), self._standing.name
        survivors = require_survivors(roster, wanted.survivors, dealers=self._dealers(record), me=me)
        self._policy.require_cohort(len(survivors), record.terms)
        opened, unreadable = open_shares(roster, me, _secrets(record), record.sealed or {})
        signature = sign_survivors(roster, self._standing.key, survivors)
        confirmed = SignedSurvivors(signature=signature, unreadable=unreadable)
        shares = (record.shares or {}) | {dealer: StoredShares.of(each) for dealer, each in opened.items()}
        changes = {"survivors": survivors, "confirmed": confirmed, "shares": shares}
        self._journal.keep(record.model_copy(update=changes))
        return confirmed

    def _released(self, place: AttemptPlace, wanted: UnmaskingWanted) -> ReleasedShares:
        """Release one share of each member; from here on this update is in no other attempt."""
        record = self._journal.get(place)
        if record.released is not None:
            return record.released
        roster = _roster(record)
        if record.survivors is None:
            raise AttemptRefused(f"this agent has signed no survivors of {record.terms.label}, and unmasks nobody")
        require_consistent(roster, record.survivors, wanted.signatures)
        own_masks, mask_secrets = shares_to_release(
            {dealer: each.shares for dealer, each in (record.shares or {}).items()},
            survivors=record.survivors,
            dealers=self._dealers(record),
        )
        released = ReleasedShares(own_masks=own_masks, mask_secrets=mask_secrets)
        # Spent first: where the power fails in between, no other attempt has it, and this one when it asks again.
        self._state.spend(place, record.terms.content)
        wiped = {"released": released, "secrets": None, "shares": None, "sealed": None, "dealt": None}
        self._journal.keep(record.model_copy(update=wiped))
        self._journal.vector(place).unlink(missing_ok=True)
        return released

    # --- what must hold -----------------------------------------------------------------------------------------

    def _require_fitting(self, place: AttemptPlace, terms: AttemptTerms) -> StoredUpdate:
        """Return the update that an attempt is for, if it is the one that this agent has trained and not yet spent."""
        said = (terms.run_id, terms.round, terms.attempt, terms.federation)
        if said != (place.run_id, place.round, place.attempt, self._standing.federation):
            raise AttemptRefused(
                f"the terms of {terms.label} in {terms.federation} came for attempt {place.attempt} of round "
                f"{place.round} of run {place.run_id} in {self._standing.federation}"
            )
        return self._state.unspent_update(terms)

    def _require_members(self, record: AttemptRecord, roster: Roster, wanted: SharesWanted) -> None:
        """Raise unless all members are certified by the operator, and this agent is one of them as it said."""
        now = self._clock()
        for each in wanted.members:
            certificate = require_member(
                each.membership,
                operator_key=self._standing.operator_key,
                federation=self._standing.federation,
                now=now,
            )
            keys = each.advert.keys
            if (certificate.name, certificate.key) != (keys.agent, keys.identity):
                raise AttemptRefused(
                    f"{keys.agent} takes part in {record.terms.label} with the certificate of {certificate.name}: "
                    "nobody has certified that key for it"
                )
        require_roster(roster)
        if record.advert not in roster.adverts:
            raise AttemptRefused(f"the keys that this agent announced for {record.terms.label} are not in its roster")
        self._policy.require_cohort(len(roster.adverts), record.terms)

    def _dealers(self, record: AttemptRecord) -> list[str]:
        if record.sealed is None:
            raise AttemptRefused(f"this agent has sent no masked vector in {record.terms.label}")
        return sorted({*record.sealed, self._standing.name})


def _require_same(known: object, shown: object, what: str, terms: AttemptTerms) -> None:
    """Raise AttemptRefused if the coordinator shows something else than it has shown before."""
    if known != shown:
        raise AttemptRefused(
            f"the {what} of {terms.label} are not those that this agent was shown before: a coordinator that keeps the "
            "protocol shows everybody the same"
        )


def _roster(record: AttemptRecord) -> Roster:
    if record.roster is None:
        raise AttemptRefused(f"this agent has dealt no shares in {record.terms.label}")
    return record.roster


def _secrets(record: AttemptRecord) -> AttemptSecrets:
    if record.secrets is None:
        raise AttemptRefused(f"this agent's secrets of {record.terms.label} are gone: it has released its shares")
    return record.secrets.secrets
