"""Agents are invited, enrol with a key, are approved and revoked (docs/protocol.md, "Identity")."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.federation import FEDERATION, ManualClock
from services.coordinator.context import Context
from services.coordinator.membership import Membership
from services.coordinator.principals import Role
from services.coordinator.tokens import KnownTokens, issue
from shared.errors import (
    CertificateExpired,
    FederationMismatch,
    InvitationInvalid,
    MemberConflict,
    NotFound,
    SignatureInvalid,
)
from shared.protocol.identity import IdentityKey
from shared.protocol.membership import MemberList, MemberState, MemberView, RevocationRequest, require_member
from tests.support.federations import client, coordinator
from tests.support.members import FAR, OPERATOR, certificate, enrolment, invitation, invited, member, pending
from tests.support.requests import assert_problem

KEY = IdentityKey.generate()
ANOTHER = IdentityKey.generate()


@pytest.fixture
def context(tmp_path: Path, clock: ManualClock) -> Iterator[Context]:
    """A coordinator that knows no agent yet."""
    with coordinator(tmp_path / "coordinator", clock, agents=()) as opened:
        yield opened


def test_whoever_was_invited_and_approved_is_a_member(context: Context) -> None:
    """A token lets a key in, and the operator's signature makes a member of it."""
    token = invited(context)
    assert member(context, "dora").state is MemberState.INVITED
    assert context.membership.enrol(enrolment(token, KEY)).state is MemberState.PENDING
    signed = certificate("dora", KEY.public)
    view = context.membership.approve("dora", signed, actor="operator")
    assert (view.state, view.key, view.not_after) == (MemberState.APPROVED, KEY.public, FAR)
    assert member(context, "dora") == view


def test_the_coordinator_keeps_no_token(context: Context) -> None:
    """Whoever reads its database can enrol nobody."""
    token = invited(context)
    with context.store.read() as tx:
        assert token not in repr(tx.members.all())


def test_the_same_again_changes_nothing(context: Context) -> None:
    """An answer that was lost is asked for again, at each step."""
    token = secrets.token_urlsafe(32)
    steps = (
        lambda: context.membership.invite("dora", invitation(token), actor="operator"),
        lambda: context.membership.enrol(enrolment(token, KEY)),
        lambda: context.membership.approve("dora", certificate("dora", KEY.public), actor="operator"),
        lambda: context.membership.revoke("dora", "it left", actor="operator"),
    )
    for step in steps:
        assert step() == step()
    with context.store.read() as tx:
        assert tx.members.get("dora").version == len(steps) - 1


def test_a_token_lets_one_key_in(context: Context) -> None:
    """Whoever comes second with another key is refused, and the first stays."""
    token = invited(context)
    context.membership.enrol(enrolment(token, KEY))
    with pytest.raises(InvitationInvalid, match="was used already"):
        context.membership.enrol(enrolment(token, ANOTHER))
    assert member(context, "dora").key == KEY.public


def test_a_token_is_over_at_its_time(context: Context, clock: ManualClock) -> None:
    """A day later it lets nobody in, but whom it has let in before."""
    token = invited(context, expires_at=int(clock()) + 60)
    late = invited(context, "emil", expires_at=int(clock()) + 60)
    context.membership.enrol(enrolment(token, KEY))
    clock.advance(61)
    with pytest.raises(InvitationInvalid, match="is over"):
        context.membership.enrol(enrolment(late, ANOTHER, "emil"))
    assert context.membership.enrol(enrolment(token, KEY)).state is MemberState.PENDING


def test_a_guessed_token_and_another_agents_are_refused_alike(context: Context) -> None:
    """Nobody learns which names were invited, and a token is good for one name."""
    token = invited(context)
    refused = [
        enrolment(secrets.token_urlsafe(32), KEY),
        enrolment(secrets.token_urlsafe(32), KEY, "nobody"),
        enrolment(token, KEY, "emil"),
    ]
    for request in refused:
        with pytest.raises(InvitationInvalid, match=f"no invitation of {request.name} has this token"):
            context.membership.enrol(request)
    assert member(context, "dora").state is MemberState.INVITED


@pytest.mark.parametrize(
    "wrong",
    [
        {"prover": ANOTHER},
        {"federation": "another-federation"},
        {"proven": "A" * 43},
    ],
)
def test_a_key_is_let_in_by_whoever_has_it(wrong: dict[str, object], context: Context) -> None:
    """A proof by another key, for another federation, or over another token is none."""
    with pytest.raises(SignatureInvalid, match="the enrolment of dora"):
        context.membership.enrol(enrolment(invited(context), KEY, **wrong))
    assert member(context, "dora").state is MemberState.INVITED


def test_one_key_is_no_two_agents(context: Context) -> None:
    """Else one organisation could be a cohort."""
    key = pending(context)
    with pytest.raises(MemberConflict, match="dora has the key"):
        context.membership.enrol(enrolment(invited(context, "emil"), key, "emil"))


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"operator": ANOTHER}, SignatureInvalid),
        ({"federation": "another-federation"}, FederationMismatch),
        ({"not_after": 1_600_000_000}, CertificateExpired),
    ],
)
def test_nobody_but_the_operator_makes_a_member(wrong: dict[str, object], error: type, context: Context) -> None:
    """Nor does a certificate of another federation, or of another time."""
    key = pending(context)
    with pytest.raises(error):
        context.membership.approve("dora", certificate("dora", key.public, **wrong), actor="operator")
    assert member(context, "dora").state is MemberState.PENDING


def test_a_certificate_is_for_one_agent_and_the_key_that_it_brought(context: Context) -> None:
    """One of another agent, or of a key that nobody has brought, makes nobody a member."""
    key = pending(context)
    pending(context, "emil")
    for other in (
        certificate("dora", key.public),
        certificate("emil", key.public),
        certificate("emil", ANOTHER.public),
    ):
        with pytest.raises(MemberConflict, match="the certificate is for"):
            context.membership.approve("emil", other, actor="operator")


def test_who_has_not_enrolled_is_not_approved(context: Context) -> None:
    """There is no key yet that a certificate could be for, and of an unknown name there is nothing."""
    invited(context)
    with pytest.raises(MemberConflict, match="dora, with none"):
        context.membership.approve("dora", certificate("dora", KEY.public), actor="operator")
    with pytest.raises(NotFound):
        context.membership.approve("eve", certificate("eve", KEY.public), actor="operator")
    with pytest.raises(NotFound):
        context.membership.revoke("eve", "never seen", actor="operator")


def test_a_membership_can_be_made_longer(context: Context) -> None:
    """A later certificate takes the place of the one before."""
    key = pending(context)
    for not_after in (FAR, FAR + 1000):
        signed = certificate("dora", key.public, not_after=not_after)
        assert context.membership.approve("dora", signed, actor="operator").not_after == not_after


def test_a_revoked_agent_comes_back_only_by_a_new_invitation(context: Context) -> None:
    """Its token and its certificate are worth nothing any more."""
    token = invited(context)
    context.membership.enrol(enrolment(token, KEY))
    signed = certificate("dora", KEY.public)
    context.membership.approve("dora", signed, actor="operator")
    assert context.membership.revoke("dora", "it left", actor="operator").state is MemberState.REVOKED
    with pytest.raises(MemberConflict, match="is revoked: invite it again"):
        context.membership.approve("dora", signed, actor="operator")
    with pytest.raises(InvitationInvalid):
        context.membership.enrol(enrolment(token, KEY))
    again = invited(context)
    assert member(context, "dora").key is None
    assert context.membership.enrol(enrolment(again, ANOTHER)).state is MemberState.PENDING


def test_an_invitation_that_was_lost_gives_way_to_a_new_one(context: Context) -> None:
    """The first lets nobody in from then on; who has enrolled is invited again only when revoked."""
    lost, new = invited(context), invited(context)
    with pytest.raises(InvitationInvalid):
        context.membership.enrol(enrolment(lost, KEY))
    context.membership.enrol(enrolment(new, KEY))
    with pytest.raises(MemberConflict, match="revoke it before it is invited again"):
        invited(context)


@pytest.mark.parametrize("wrong", [{"federation": "another-federation"}, {"operator": ANOTHER}])
def test_an_invitation_agrees_with_the_coordinator(wrong: dict[str, object], context: Context) -> None:
    """Agents would believe its key and its federation, and nothing of this coordinator's."""
    with pytest.raises(FederationMismatch, match="compare the operator's federation"):
        context.membership.invite("dora", invitation("A" * 43, **wrong), actor="operator")
    assert "dora" not in {one.name for one in context.membership.members().agents}


@pytest.mark.parametrize("name", ["coordinator", "operator", "worker", "viewer"])
def test_no_agent_is_called_as_somebody_else_in_the_audit_log(name: str, context: Context) -> None:
    """Who has done what must be plain."""
    with pytest.raises(MemberConflict, match="choose another name"):
        invited(context, name)


def test_no_agent_is_called_as_somebody_who_has_a_token(context: Context, clock: ManualClock) -> None:
    """Their names stand side by side in the audit log, without their roles."""
    tokens = KnownTokens({"dora": issue(Role.VIEWER)[1]})
    members = Membership(
        context.store, tokens, context.presence, clock, federation=FEDERATION, operator_key=OPERATOR.public
    )
    with pytest.raises(MemberConflict, match="choose another name"):
        members.invite("dora", invitation("A" * 43), actor="operator")
    assert not members.members().agents


@pytest.mark.anyio
async def test_every_step_has_its_route(context: Context) -> None:
    """Invite, enrol, approve, list and revoke over HTTP; the certificate that is kept can be checked by everybody."""
    token = secrets.token_urlsafe(32)
    signed = certificate("dora", KEY.public)
    async with client(context, "operator") as operator, client(context, None) as nobody:
        steps = (
            (operator, "PUT", "/v1/agents/dora/invitation", invitation(token), MemberState.INVITED),
            (nobody, "POST", "/v1/enrol", enrolment(token, KEY), MemberState.PENDING),
            (operator, "PUT", "/v1/agents/dora/certificate", signed, MemberState.APPROVED),
            (operator, "POST", "/v1/agents/dora/revoke", RevocationRequest(reason="it left"), MemberState.REVOKED),
        )
        for http, method, path, body, state in steps:
            answer = await http.request(method, path, json=body.model_dump())
            assert answer.status_code == 200, answer.text
            assert MemberView.model_validate_json(answer.content).state is state
            listed = MemberList.model_validate_json((await operator.get("/v1/agents")).content)
            assert [one.state for one in listed.agents if one.name == "dora"] == [state]
        refused = await nobody.post("/v1/enrol", json=enrolment(token, KEY).model_dump())
        assert_problem(refused, 403, "invitation_invalid")
    with context.store.read() as tx:
        kept = tx.members.get("dora")
    assert kept.signature == signed.signature
    assert require_member(signed, operator_key=OPERATOR.public, federation=FEDERATION, now=0).key == kept.key
